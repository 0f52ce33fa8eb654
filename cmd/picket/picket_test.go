package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/picketd/picket/agent/api"
	"github.com/picketd/picket/agent/api/apitest"
	"github.com/picketd/picket/agent/daemonset"
	"github.com/picketd/picket/cluster/pki"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"picket": main})
}

// startHost serves an agent's API with one node and one running pod, whose shell knows a few commands. It is the first of a fleet,
// of which host-02 runs a pod too, and host-03 was deleted.
func startHost(t testing.TB) *apitest.Host {
	t.Helper()
	fleet := apitest.StartFleet(t, []pki.Host{{Node: "host-01", Door: true}, {Node: "host-02", Door: true}, {Node: "host-03", Door: true}})
	fleet.Delete("host-03")
	host, other := serve(fleet.Host("host-01")), serve(fleet.Host("host-02"))
	other.Backend.OnLogs = func(_ context.Context, _ *corev1.Pod, _ *corev1.PodLogOptions, w io.Writer) error {
		_, err := fmt.Fprintln(w, "Hello from host-02")
		return err
	}
	return host
}

func runningPod(name, node string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "web", Image: "busybox"}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{{
			Name: "web", Ready: true, ContainerID: "containerd://web", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
		}}},
	}
}

// serve fills a host with what the fleet shows, and makes its containers work.
func serve(host *apitest.Host) *apitest.Host {
	host.Cache.Set(apitest.Namespaces, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}})
	host.Cache.Set(apitest.Nodes, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "host-01"}})
	host.Cache.Set(apitest.Pods, runningPod("web-x2z4k", "host-01"))
	host.Cache.Set(apitest.Pods, runningPod("web-on-02", "host-02"))
	host.Backend.OnExec = func(_ context.Context, _ *corev1.Pod, _ string, e api.Exec) (int, error) {
		switch e.Command[0] {
		case "cat":
			_, err := io.Copy(e.Stdout, e.Stdin)
			return 0, err
		case "fail":
			fmt.Fprintln(e.Stderr, "it failed")
			return 42, nil
		}
		_, err := fmt.Fprintln(e.Stdout, strings.Join(e.Command, " "))
		return 0, err
	}
	host.Backend.OnLogs = func(_ context.Context, _ *corev1.Pod, opts *corev1.PodLogOptions, w io.Writer) error {
		_, err := fmt.Fprintf(w, "Hello from %s\n", opts.Container)
		return err
	}
	host.Backend.OnWhy = why
	return host
}

// why is of web, which is blocked, and of done in the namespace shop, which no host runs.
func why(name types.NamespacedName) (*daemonset.Why, error) {
	answer := &daemonset.Why{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name}}
	switch name.String() {
	case "shop/done":
		answer.Rollout = daemonset.WhyRollout{State: daemonset.RolloutComplete, Message: "complete: no host is to run it"}
	case "default/web":
		answer.Rollout = daemonset.WhyRollout{
			State: daemonset.RolloutBlocked, Message: "blocked: 1 of 3 pods are updated; host-03, lost in the update, may come back", Command: "picket delete node host-03",
		}
		answer.Hosts = []daemonset.WhyHost{
			{Host: "host-01", Placed: true, By: "disktype=ssd", Pod: "web-x2z4k", Revision: 3, RevisionHash: "5d4f", Current: true, State: daemonset.HostAvailable},
			{Host: "host-02", Placed: true, By: "disktype=ssd", Pod: "web-aaaaa", Revision: 2, RevisionHash: "6b8c", State: daemonset.HostAvailable, Message: "waiting for host-03"},
			{Host: "host-03", Placed: true, Guess: true, Pod: "web-bbbbb", RevisionHash: "7f9c", State: daemonset.HostSilent, Message: "no word from it since noon"},
			{Host: "host-04", By: "taint dedicated=gpu:NoSchedule is not tolerated", State: daemonset.HostNotPlaced},
		}
	default:
		return nil, apierrors.NewNotFound(apitest.DaemonSets, name.Name)
	}
	return answer, nil
}

// TestScripts runs picket as people do, as a process of its own, against an agent's API on a unix socket and on TLS.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			host := startHost(env.T().(testing.TB))
			env.Setenv("SOCKET", host.Socket)
			env.Setenv("PICKET_SOCKET", host.Socket)
			env.Setenv("ADMIN", host.Kubeconfig(env.T().(testing.TB), "alice", apitest.Admins))
			env.Setenv("OPERATOR", host.Kubeconfig(env.T().(testing.TB), "olga", apitest.Operators))
			env.Setenv("VIEWER", host.Kubeconfig(env.T().(testing.TB), "vera", apitest.Viewers))
			env.Setenv("HOME", filepath.Join(env.WorkDir, "home"))
			// A trap: whoever reads it talks to nobody.
			env.Setenv("KUBECONFIG", filepath.Join(env.WorkDir, "home", ".kube", "config"))
			return nil
		},
	})
}

// process is a picket process against the host's socket.
func process(t testing.TB, host *apitest.Host, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Args[0] = "picket"
	cmd.Env = append(os.Environ(), "PICKET_SOCKET="+host.Socket, "HOME="+t.TempDir(), "XDG_CACHE_HOME=")
	return cmd
}

// TestLogsFollow holds that a line is shown when it is written, not when the log ends.
func TestLogsFollow(t *testing.T) {
	host := startHost(t)
	seen := make(chan struct{})
	host.Backend.OnLogs = func(ctx context.Context, _ *corev1.Pod, opts *corev1.PodLogOptions, w io.Writer) error {
		if !opts.Follow {
			t.Error("the server was not asked to follow")
		}
		fmt.Fprintln(w, "first")
		select {
		case <-seen:
		case <-ctx.Done():
			return ctx.Err()
		}
		_, err := fmt.Fprintln(w, "last")
		return err
	}
	cmd := process(t, host, "logs", "-f", "web-x2z4k")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "first" {
		t.Errorf("the first line is %q", lines.Text())
	}
	close(seen)
	if !lines.Scan() || lines.Text() != "last" {
		t.Errorf("the last line is %q", lines.Text())
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("logs -f: %v\n%s", err, errOut.String())
	}
}

// BenchmarkStart prints what a command costs from its start to its end: without an agent, and with one and a warm cache.
func BenchmarkStart(b *testing.B) {
	host := startHost(b)
	binary := filepath.Join(b.TempDir(), "picket")
	if out, err := exec.CommandContext(b.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, ".").CombinedOutput(); err != nil {
		b.Fatalf("cannot build picket: %v\n%s", err, out)
	}
	home := b.TempDir()
	for _, args := range [][]string{{"version", "--client"}, {"get", "ds"}, {"get", "pods", "-o", "yaml"}} {
		b.Run(strings.Join(args, "_"), func(b *testing.B) {
			for b.Loop() {
				cmd := exec.CommandContext(b.Context(), binary, args...)
				cmd.Env = []string{"PICKET_SOCKET=" + host.Socket, "HOME=" + home}
				if out, err := cmd.CombinedOutput(); err != nil {
					b.Fatalf("%v\n%s", err, out)
				}
			}
		})
	}
}
