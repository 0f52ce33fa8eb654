package runtimetest

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
)

// What a pull through hosts.toml brings from the registry runs, survives containerd's restart, and is gone with Close.
func TestContainerdRunsWhatTheRegistryHas(t *testing.T) {
	c, err := StartTemporary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	reg := StartRegistry(t)
	image, err := Image{}.Build()
	if err != nil {
		t.Fatal(err)
	}
	if err := reg.Push("docker.io/library/busybox:latest", image); err != nil {
		t.Fatal(err)
	}
	hosts := t.TempDir()
	if err := reg.WriteHosts(hosts, "docker.io"); err != nil {
		t.Fatal(err)
	}
	cl, err := c.Client("harness")
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	pull := func() (client.Image, error) {
		resolver := docker.NewResolver(docker.ResolverOptions{Hosts: config.ConfigureHosts(t.Context(), config.HostOptions{HostDir: config.HostDirFromRoot(hosts)})})
		return cl.Pull(t.Context(), "docker.io/library/busybox:latest", client.WithPullUnpack, client.WithResolver(resolver))
	}
	reg.Fail(http.StatusServiceUnavailable)
	if _, err := pull(); err == nil {
		t.Fatal("a registry that fails was pulled from")
	}
	reg.Heal()
	img, err := pull()
	if err != nil {
		t.Fatal(err)
	}
	if n := reg.Requests(); n.Manifests == 0 || n.Blobs == 0 {
		t.Errorf("requests are not counted: %+v", n)
	}
	ctr, err := cl.NewContainer(t.Context(), "one", client.WithNewSnapshot("one", img), client.WithNewSpec(oci.WithImageConfig(img), oci.WithProcessArgs("sleep", "1000")))
	if err != nil {
		t.Fatal(err)
	}
	task, err := ctr.NewTask(t.Context(), cio.NullIO)
	if err != nil {
		t.Fatal(err)
	}
	if err := task.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := c.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s, err := task.Status(t.Context()); err != nil || s.Status != client.Running {
		t.Errorf("after containerd's restart: %v, %v", s.Status, err)
	}
	pid, shims := int(task.Pid()), c.Shims()
	if len(shims) != 1 {
		t.Errorf("shims: %v", shims)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	for _, p := range append(shims, pid) {
		if Alive(p) {
			t.Errorf("process %d is left", p)
		}
	}
	if _, err := os.Stat(c.Dir); err == nil {
		t.Errorf("%s is left", c.Dir)
	}
}

func TestArchiveAndLogin(t *testing.T) {
	image, err := Image{Files: map[string]File{"/srv/data": {Content: []byte("x")}}}.Build()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "busybox.tar")
	if err := WriteArchive(file, "docker.io/library/busybox:1", image); err != nil {
		t.Fatal(err)
	}
	reg := StartRegistry(t)
	reg.RequireLogin("user", "secret")
	response, err := http.Get("http://" + reg.Host + "/v2/")
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusUnauthorized {
		t.Errorf("without login: %s", response.Status)
	}
	if err := reg.Push("busybox", image); err != nil {
		t.Errorf("push is not the client's business: %v", err)
	}
	if err := reg.Refuse(); err != nil {
		t.Fatal(err)
	}
	if _, err := http.Get("http://" + reg.Host + "/v2/"); err == nil {
		t.Error("a registry that refuses answered")
	}
	if err := reg.Reopen(); err != nil {
		t.Fatal(err)
	}
}
