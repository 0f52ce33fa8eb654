package runtime_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/namespaces"

	"github.com/picketd/picket/runtime"
	"github.com/picketd/picket/runtime/runtimetest"
)

// Containers of a pod share its name, its network and its /dev/shm, and nothing of these with the host or with another pod.
func TestContainersShareThePod(t *testing.T) {
	if !inside(t) {
		return
	}
	n := newNetHost(t)
	h := newHostOn(t, runtimetest.StartContainerd(t))
	h.config.RunDir, h.config.DataDir, h.config.CNIBin, h.config.PodCIDR = n.config.RunDir, n.config.DataDir, n.config.CNIBin, n.config.PodCIDR
	h.reopen()
	setUp := func() (runtime.PodConfig, string) {
		p := aPod()
		p.Sysctls = map[string]string{"net.ipv4.ip_unprivileged_port_start": "80", "kernel.msgmax": "4096"}
		s, err := h.SetUpPod(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			if err := h.TearDownPod(ctx, p); err != nil {
				t.Error(err)
			}
		})
		return p, s.IPs[0]
	}
	p, address := setUp()
	server := h.shell(p, "server", "echo from server > /dev/shm/note; exec nc -ll -p 80 -e echo served")
	h.start(server)
	t.Cleanup(func() { // a pod is torn down when its containers are gone
		for _, id := range []string{server.ID, p.UID + "-client-0"} {
			if err := h.RemoveContainer(context.Background(), id); err != nil {
				t.Error(err)
			}
		}
	})
	client := h.shell(p, "client", strings.Join([]string{
		"until [ -s /dev/shm/note ]; do sleep 0.05; done; cat /dev/shm/note", "hostname", "ip -o -4 addr show eth0",
		"until nc 127.0.0.1 80; do sleep 0.05; done", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax",
	}, "; "))
	got := h.output(client)
	for _, s := range []string{"from server\n", p.Hostname + "\n", address + "/24", "served\n", "80\n4096\n"} {
		if !strings.Contains(got, s) {
			t.Errorf("%q is missing in:\n%s", s, got)
		}
	}
	other, _ := setUp()
	got = h.output(h.shell(other, "client", fmt.Sprintf("hostname; ls /dev/shm; nc %s 80", address)))
	if got != other.Hostname+"\nserved\n" {
		t.Errorf("another pod: %q", got)
	}
	in(t, ownNetwork, func() error { return expect(address+":80", "served\n") })
}

// A container that is restarted runs the image that its pod started with, though the tag means another by now, the agent was
// restarted and containerd has collected what nobody uses.
func TestRestartKeepsTheImage(t *testing.T) {
	h := newHost(t)
	registry := runtimetest.StartRegistry(t)
	h.config.HostsDir = t.TempDir()
	if err := registry.WriteHosts(h.config.HostsDir, "docker.io"); err != nil {
		t.Fatal(err)
	}
	h.reopen()
	ensure := func(version string) runtime.Image {
		image := build(t, "restart "+version, runtimetest.Image{Files: map[string]runtimetest.File{"/version": {Content: []byte(version)}}})
		if err := registry.Push("library/restarted:1", image); err != nil {
			t.Fatal(err)
		}
		got, err := h.EnsureImage(t.Context(), runtime.ImageRequest{Ref: "restarted:1", Policy: runtime.PullAlways})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	old := ensure("1")
	first := h.shell(h.newPod(), "web", "cat /version")
	first.Image = old.Ref
	h.create(first)
	ensure("2")
	h.collect()
	h.reopen()
	second := first
	second.ID, second.Attempt = first.Pod.UID+"-web-1", 1
	if got := h.output(second); got != "1\n" {
		t.Errorf("version %q", got)
	}
	if s := h.status(first.ID); s.ImageRef != old.Ref {
		t.Errorf("%+v", s)
	}
	// When no container is left it is collected, and a restart is told that the image is gone.
	h.remove(first.ID)
	h.collect()
	h.reopen()
	want(t, h.CreateContainer(t.Context(), second), runtime.ErrNotFound)
}

// collect has containerd collect its garbage.
func (h *host) collect() {
	h.t.Helper()
	ctx := namespaces.WithNamespace(h.t.Context(), testNamespace)
	service := h.client().LeasesService()
	lease, err := service.Create(ctx, leases.WithRandomID())
	if err == nil {
		err = service.Delete(ctx, lease, leases.SynchronousDelete)
	}
	if err != nil {
		h.t.Fatal(err)
	}
}
