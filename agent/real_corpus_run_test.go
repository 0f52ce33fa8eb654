package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/picketd/picket/agent/manifest"
)

// corpusPatience is how long a manifest may take to start, or to end; one waits 30 s before its first probe.
const corpusPatience = 100 * time.Second

// corpusRun is one manifest on its way through the host.
type corpusRun struct {
	*realHost
	*corpusCase
	t      *testing.T
	client *kubernetes.Clientset
	made   []manifest.Object
	pod    *corev1.Pod // as it was last
	seen   []*given    // the containers that were looked at, init containers while they ran
}

// apply brings what is missing, then puts the files into the manifests directory.
func (r *corpusRun) apply() {
	ctx, core := r.t.Context(), r.client.CoreV1()
	r.made = r.missing()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: r.ds.Namespace}}
	if _, err := core.Namespaces().Create(ctx, namespace, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		r.t.Fatal(err)
	}
	for _, obj := range r.made {
		var err error
		switch o := obj.(type) {
		case *corev1.ConfigMap:
			_, err = core.ConfigMaps(o.Namespace).Create(ctx, o, metav1.CreateOptions{})
		case *corev1.Secret:
			_, err = core.Secrets(o.Namespace).Create(ctx, o, metav1.CreateOptions{})
		}
		if err != nil {
			r.t.Fatal(err)
		}
	}
	r.label(nodeLabels(r.ds), false)
	for _, name := range r.files {
		text := readFile(r.t, filepath.Join(corpusDir, name))
		if err := os.WriteFile(r.manifest(name), []byte(text), 0o600); err != nil {
			r.t.Fatal(err)
		}
	}
}

// manifest is where a file of the corpus is put.
func (r *corpusRun) manifest(name string) string {
	return filepath.Join(r.cfg.Manifests, strings.ReplaceAll(name, "/", "_"))
}

// label sets labels of the node, or removes them.
func (r *corpusRun) label(labels map[string]string, remove bool) {
	for key, value := range labels {
		patch := fmt.Sprintf(`{"metadata":{"labels":{%q:%q}}}`, key, value)
		if remove {
			patch = fmt.Sprintf(`{"metadata":{"labels":{%q:null}}}`, key)
		}
		if _, err := r.client.CoreV1().Nodes().Patch(r.t.Context(), r.cfg.Node.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
			r.t.Fatal(err)
		}
	}
}

// wait asks for the DaemonSet's pod, nil when there is none, until it is as wanted.
func (r *corpusRun) wait(what string, ok func(p *corev1.Pod) bool) {
	r.t.Helper()
	end := time.Now().Add(corpusPatience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		p := r.ownPod()
		if p != nil {
			r.pod = p
		}
		if ok(p) {
			return
		}
		if time.Now().After(end) {
			r.t.Fatalf("did not come about: %s\n%s", what, r.complaints())
		}
		<-tick.C
	}
}

func (r *corpusRun) ownPod() *corev1.Pod {
	selector := labels.SelectorFromSet(r.ds.Spec.Template.Labels).String()
	list, err := r.client.CoreV1().Pods(r.ds.Namespace).List(r.t.Context(), metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		r.t.Fatal(err)
	}
	for i := range list.Items {
		if p := &list.Items[i]; len(p.OwnerReferences) > 0 && p.OwnerReferences[0].Name == r.ds.Name {
			return p
		}
	}
	return nil
}

// complaints are what the pod and the events say.
func (r *corpusRun) complaints() string {
	var out strings.Builder
	if r.pod != nil {
		for _, s := range append(r.pod.Status.InitContainerStatuses, r.pod.Status.ContainerStatuses...) {
			fmt.Fprintf(&out, "%s: ready %v, restarts %d, %+v\n", s.Name, s.Ready, s.RestartCount, s.State)
		}
	}
	for _, e := range r.events() {
		fmt.Fprintf(&out, "%s: %s\n", e.Reason, e.Message)
	}
	return out.String()
}

// events are those of the DaemonSet and its pods, of all that had its name.
func (r *corpusRun) events() (own []corev1.Event) {
	list, err := r.client.CoreV1().Events(r.ds.Namespace).List(r.t.Context(), metav1.ListOptions{})
	if err != nil {
		r.t.Error(err)
		return nil
	}
	for _, e := range list.Items {
		if e.InvolvedObject.Name == r.ds.Name || r.pod != nil && e.InvolvedObject.Name == r.pod.Name {
			own = append(own, e)
		}
	}
	return own
}

// start lets the init containers do their part, and returns when all containers are ready.
func (r *corpusRun) start() {
	r.t.Helper()
	for i := range r.ds.Spec.Template.Spec.InitContainers {
		c := &r.ds.Spec.Template.Spec.InitContainers[i]
		if c.RestartPolicy != nil {
			continue // a sidecar
		}
		r.wait("init container "+c.Name+" runs", func(p *corev1.Pod) bool {
			if p == nil {
				return false
			}
			s := statusNamed(p.Status.InitContainerStatuses, c.Name)
			return s != nil && s.State.Running != nil
		})
		g := r.given(c, statusNamed(r.pod.Status.InitContainerStatuses, c.Name))
		g.look()
		r.seen = append(r.seen, g)
		if err := syscall.Kill(g.pid, syscall.SIGUSR1); err != nil {
			r.t.Error(err)
		}
	}
	r.wait("all containers are ready", func(p *corev1.Pod) bool { return p != nil && podReady(p) })
}

func statusNamed(list []corev1.ContainerStatus, name string) *corev1.ContainerStatus {
	for i := range list {
		if list[i].Name == name {
			return &list[i]
		}
	}
	return nil
}

// look holds the running containers against the manifest. It returns how many facts were checked, those of init containers included.
func (r *corpusRun) look() (checks int) {
	spec := &r.ds.Spec.Template.Spec
	for i := range spec.Containers {
		c := &spec.Containers[i]
		s := statusNamed(r.pod.Status.ContainerStatuses, c.Name)
		if s == nil || !s.Ready || s.RestartCount != 0 || s.State.Running == nil {
			r.t.Errorf("container %s: %+v", c.Name, s)
			continue
		}
		g := r.given(c, s)
		g.look()
		g.answers()
		r.seen = append(r.seen, g)
	}
	for _, g := range r.seen {
		checks += g.checks
		for _, fault := range g.faults {
			r.t.Errorf("container %s: %s", g.container.Name, fault)
		}
	}
	return checks
}

// given finds a container's process.
func (r *corpusRun) given(c *corev1.Container, s *corev1.ContainerStatus) *given {
	r.t.Helper()
	cl, ctx := r.containerd()
	container, err := cl.LoadContainer(ctx, strings.TrimPrefix(s.ContainerID, "containerd://"))
	var task client.Task
	if err == nil {
		task, err = container.Task(ctx, nil)
	}
	if err != nil {
		r.t.Fatalf("container %s: %v", c.Name, err)
	}
	node, err := r.client.CoreV1().Nodes().Get(r.t.Context(), r.cfg.Node.Name, metav1.GetOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	return &given{pid: int(task.Pid()), pod: r.pod, spec: &r.ds.Spec.Template.Spec, container: c, node: node, objects: append(r.parsed.Objects, r.made...)}
}

// end takes the manifest away, and waits until nothing of it runs.
func (r *corpusRun) end() {
	ctx := r.t.Context()
	for _, name := range r.files {
		if err := os.Remove(r.manifest(name)); err != nil {
			r.t.Error(err)
		}
	}
	var errs []error
	for _, obj := range append(r.parsed.Objects, r.made...) {
		switch ns, name := obj.GetNamespace(), obj.GetName(); manifest.RefOf(obj).Kind {
		case manifest.KindDaemonSet:
			errs = append(errs, r.client.AppsV1().DaemonSets(ns).Delete(ctx, name, metav1.DeleteOptions{}))
		case manifest.KindConfigMap:
			errs = append(errs, r.client.CoreV1().ConfigMaps(ns).Delete(ctx, name, metav1.DeleteOptions{}))
		case manifest.KindSecret:
			errs = append(errs, r.client.CoreV1().Secrets(ns).Delete(ctx, name, metav1.DeleteOptions{}))
		}
	}
	for _, err := range errs {
		if err != nil {
			r.t.Error(err)
		}
	}
	r.wait("nothing is left", func(p *corev1.Pod) bool { return p == nil })
	for _, e := range r.events() {
		if e.Reason == "FailedPreStopHook" || e.Reason == "FailedPostStartHook" {
			r.t.Errorf("%s: %s", e.Reason, e.Message)
		}
	}
	r.label(nodeLabels(r.ds), true)
}
