package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/picketd/picket/agent/pod"
)

// agentProcess is a picketd of its own.
type agentProcess struct {
	cmd   *exec.Cmd
	ended chan struct{}
}

// launch starts bin/picketd with the host's configuration in a file and waits until its API answers.
func (h *realHost) launch() *agentProcess {
	h.t.Helper()
	text, err := yaml.Marshal(h.cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	config := filepath.Join(h.dir, "picketd.yaml")
	if err := os.WriteFile(config, text, 0o600); err != nil {
		h.t.Fatal(err)
	}
	p := &agentProcess{cmd: exec.Command(filepath.Join(shared.binaries, "picketd"), "--config", config), ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = h.log, h.log
	if err := p.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	go func() { _ = p.cmd.Wait(); close(p.ended) }()
	h.stop = func() { h.stop = func() {}; p.signal(syscall.SIGTERM) }
	socket := socketClient(h.cfg.API.Socket)
	h.eventually("the agent's API answers", func() bool {
		select {
		case <-p.ended:
			h.t.Fatalf("picketd ended:\n%s", h.log.tail(20))
		default:
		}
		answer, err := socket.Get("http://picket/healthz")
		if err == nil {
			answer.Body.Close()
		}
		return err == nil && answer.StatusCode == http.StatusOK
	})
	return p
}

func socketClient(path string) *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
}

// signal sends a signal that ends the process, and waits for that.
func (p *agentProcess) signal(s syscall.Signal) {
	_ = p.cmd.Process.Signal(s)
	<-p.ended
}

// busyDaemon is a DaemonSet that does nothing, at once and until it is told to end.
func busyDaemon(name, image, seq string) *appsv1.DaemonSet {
	labels := map[string]string{"app": name}
	grace := int64(2)
	return &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", Annotations: map[string]string{"seq": seq}},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					HostNetwork: true, TerminationGracePeriodSeconds: &grace,
					Containers: []corev1.Container{{Name: "c", Image: image, Command: []string{"sh", "-c", "trap 'exit 0' TERM; while true; do sleep 0.05; done"}}},
				},
			},
		},
	}
}

// churn changes a few DaemonSets all the time and keeps book of what was acknowledged.
type churn struct {
	client *kubernetes.Clientset
	random *rand.Rand

	mu    sync.Mutex
	trace []string // of what was asked and answered
	// may holds for each name the states it may be in: one after an acknowledged write, more while answers were lost. "" is deleted.
	may map[string][]string
	seq int
}

// step makes one write. An answer that says no (not found, conflict) changes nothing; no answer leaves both states possible.
func (c *churn) step(ctx context.Context) {
	c.mu.Lock()
	c.seq++
	seq := strconv.Itoa(c.seq)
	c.mu.Unlock()
	name := fmt.Sprintf("churn-%d", c.random.IntN(4))
	ds := busyDaemon(name, fmt.Sprintf("busybox:%d", 1+c.random.IntN(2)), seq)
	client, err := c.client.AppsV1().DaemonSets("default"), error(nil)
	if c.random.IntN(4) == 0 {
		seq = ""
		err = client.Delete(ctx, name, metav1.DeleteOptions{})
	} else if _, err = client.Update(ctx, ds, metav1.UpdateOptions{}); apierrors.IsNotFound(err) {
		_, err = client.Create(ctx, ds, metav1.CreateOptions{})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trace = append(c.trace, fmt.Sprintf("%s %s=%q: %v", time.Now().UTC().Format("15:04:05.000"), name, seq, err))
	var refused apierrors.APIStatus
	switch {
	case err == nil:
		c.may[name] = []string{seq}
	case errors.As(err, &refused) && refused.Status().Code < http.StatusInternalServerError:
	default:
		if c.may[name] == nil {
			c.may[name] = []string{""} // it was never there
		}
		c.may[name] = append(c.may[name], seq)
	}
}

// check compares the books with what the agent says.
func (c *churn) check(t *testing.T, list *appsv1.DaemonSetList) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	is := map[string]string{}
	for _, ds := range list.Items {
		is[ds.Name] = ds.Annotations["seq"]
	}
	for name, states := range c.may {
		found := false
		for _, s := range states {
			found = found || is[name] == s
		}
		if !found {
			t.Errorf("%s is at write %q, acknowledged or possible are %q", name, is[name], states)
		}
		c.may[name] = []string{is[name]}
	}
	if t.Failed() {
		t.Fatalf("what was asked, and what was answered:\n%s", strings.Join(c.trace, "\n"))
	}
}

// The agent is killed at 50 random moments of applies, updates and deletes: nothing that was acknowledged is lost, no container
// is lost, doubled, or restarted without cause (bar of the issue).
func TestRealKill9(t *testing.T) {
	h := newRealHost(t)
	agent := h.launch()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	client := h.clientset()
	sets := client.AppsV1().DaemonSets("default")
	ctx := t.Context()
	const steady = 3
	for i := range steady {
		if _, err := sets.Create(ctx, busyDaemon(fmt.Sprintf("steady-%d", i), "busybox:1", ""), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	h.eventually("the steady pods run", func() bool { return len(h.pids()) == steady })
	before := h.pids()

	c := &churn{client: client, random: rand.New(rand.NewPCG(seed, 1)), may: map[string][]string{}}
	for kill := range 50 {
		writing, stop := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for writing.Err() == nil {
				c.step(ctx)
			}
		}()
		time.Sleep(time.Duration(random.IntN(300)) * time.Millisecond) // the random moment
		agent.signal(syscall.SIGKILL)
		stop()
		<-done
		h.atMostOneEach(kill)
		agent = h.launch()
		list, err := sets.List(ctx, metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		c.check(t, list)
	}
	h.settled(client)
	after := h.pids()
	for id, pid := range before {
		if after[id] != pid {
			t.Errorf("container %s ran as process %d, now as %d", id, pid, after[id])
		}
	}
	h.checkRestarts(client)
}

// settled waits until exactly the DaemonSets' containers run.
func (h *realHost) settled(client *kubernetes.Clientset) {
	h.t.Helper()
	h.eventually("one running container a DaemonSet, and no other", func() bool {
		list, err := client.AppsV1().DaemonSets("default").List(context.Background(), metav1.ListOptions{})
		if err != nil {
			h.t.Fatal(err)
		}
		c, ctx := h.containerd()
		all, err := c.Containers(ctx)
		if err != nil {
			h.t.Fatal(err)
		}
		ready := 0
		for _, ds := range list.Items {
			if ds.Status.ObservedGeneration == ds.Generation && ds.Status.UpdatedNumberScheduled == 1 && ds.Status.NumberAvailable == 1 {
				ready++
			}
		}
		return ready == len(list.Items) && len(h.pids()) == ready && len(all) == ready
	})
}

// atMostOneEach: never do two containers of one DaemonSet run.
func (h *realHost) atMostOneEach(kill int) {
	h.t.Helper()
	c, ctx := h.containerd()
	for id := range h.pids() {
		container, err := c.LoadContainer(ctx, id)
		if err != nil {
			continue
		}
		labels, err := container.Labels(ctx)
		if err != nil {
			continue
		}
		for other := range h.pids() {
			o, err := c.LoadContainer(ctx, other)
			if err != nil || other == id {
				continue
			}
			if l, err := o.Labels(ctx); err == nil && l[pod.LabelDaemonSet] == labels[pod.LabelDaemonSet] {
				h.t.Errorf("after kill %d two containers of %s run: %s and %s", kill, l[pod.LabelDaemonSet], id, other)
			}
		}
	}
}

// checkRestarts: no container was restarted.
func (h *realHost) checkRestarts(client *kubernetes.Clientset) {
	h.t.Helper()
	pods, err := client.CoreV1().Pods("default").List(context.Background(), metav1.ListOptions{})
	if err != nil {
		h.t.Fatal(err)
	}
	for _, p := range pods.Items {
		for _, s := range p.Status.ContainerStatuses {
			if s.RestartCount != 0 {
				h.t.Errorf("container %s of %s was restarted %d times: %+v", s.Name, p.Name, s.RestartCount, s.LastTerminationState.Terminated)
			}
		}
	}
}
