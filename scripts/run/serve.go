package main

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/picketd/picket/runtime"
	"github.com/picketd/picket/runtime/runtimetest"
)

const (
	// hubWithin is how long Docker Hub may take to answer before it counts as out of reach.
	hubWithin = 3 * time.Second
	// stopWithin bounds what the pods and the agent may take to end.
	stopWithin = time.Minute
	// quickly is within what an agent that cannot work ends.
	quickly = 5 * time.Second
)

// images are the names that configs/examples pull.
var images = []string{"busybox"}

// serve is the host: it runs containerd, a registry if one is needed, and picketd, until it is told to end. Then it removes
// everything that they made.
func serve(ctx context.Context, p place) (err error) {
	lock, err := p.hold()
	if err != nil {
		return err
	}
	defer lock.Close()
	containerd, err := runtimetest.Start(ctx, filepath.Join(p.dir, "c"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, containerd.Close()) }()
	registry, err := p.registry()
	if err != nil {
		return err
	}
	if registry != nil {
		defer func() { err = errors.Join(err, registry.Close()) }()
	}
	if err := p.configure(containerd.Address); err != nil {
		return err
	}
	if err := p.removeBridge(); err != nil { // of an earlier run that was killed; its addresses may be others
		return err
	}
	return errors.Join(p.agent(ctx), p.removeBridge(), p.unmount())
}

// unmount removes the file system that the agent keeps the pods' mounts in, and what a killed one left in it.
func (p place) unmount() error {
	var errs []error
	for _, m := range runtimetest.Mounts(p.runDir()) {
		if err := syscall.Unmount(m, syscall.MNT_DETACH); err != nil {
			errs = append(errs, fmt.Errorf("cannot unmount %s: %w", m, err))
		}
	}
	return errors.Join(errs...)
}

// agent runs picketd until ctx ends, as systemd would: one that ends by itself is started again. Three that end at once are given up.
func (p place) agent(ctx context.Context) error {
	for quick := 0; ; {
		agent := exec.Command(p.binary("picketd"), "--config", p.config())
		agent.Stdout, agent.Stderr = os.Stdout, os.Stderr
		agent.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		began := time.Now()
		if err := agent.Start(); err != nil {
			return fmt.Errorf("cannot start picketd: %w", err)
		}
		ended := make(chan error, 1)
		go func() { ended <- agent.Wait() }()
		select {
		case <-ctx.Done():
			p.removePods()
			return endProcess(agent, ended)
		case err := <-ended:
			if quick++; time.Since(began) > quickly {
				quick = 0
			}
			if quick == 3 {
				return fmt.Errorf("picketd ended three times at once: %w", err)
			}
			log.Printf("picketd ended (%v); it is started again", err)
		}
	}
}

// hold takes the lock and says who holds it.
func (p place) hold() (*os.File, error) {
	f, err := os.OpenFile(p.lock(), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, fmt.Errorf("another `make run` holds %s: %w", p.lock(), err)
	}
	_, err = fmt.Fprintln(f, os.Getpid())
	return f, err
}

// registry serves the examples' images under their own names where Docker Hub is out of reach; nil where it is not.
func (p place) registry() (*runtimetest.Registry, error) {
	if err := os.MkdirAll(p.hosts(), 0o755); err != nil {
		return nil, err
	}
	if conn, err := net.DialTimeout("tcp", "registry-1.docker.io:443", hubWithin); err == nil {
		return nil, conn.Close()
	}
	registry, err := runtimetest.NewRegistry()
	if err != nil {
		return nil, err
	}
	image, err := runtimetest.Image{}.Build()
	for _, name := range images {
		if err == nil {
			err = registry.Push(name, image)
		}
	}
	if err == nil {
		err = registry.WriteHosts(p.hosts(), "docker.io")
	}
	if err == nil {
		err = os.WriteFile(p.offline(), []byte(strings.Join(images, ", ")), 0o600)
	}
	if err != nil {
		return nil, errors.Join(err, registry.Close())
	}
	return registry, nil
}

func (p place) hosts() string  { return filepath.Join(p.dir, "certs.d") }
func (p place) runDir() string { return filepath.Join(p.dir, "run") }
func (p place) config() string { return filepath.Join(p.dir, "picketd.yaml") }

// offline is there when the images are not Docker Hub's; it names them.
func (p place) offline() string { return filepath.Join(p.dir, "offline") }

// configure writes the agent's configuration: everything it would put elsewhere is in p.dir, and the ports are free ones.
func (p place) configure(containerd string) error {
	api, err := freePort()
	if err != nil {
		return err
	}
	metrics, err := freePort()
	if err != nil {
		return err
	}
	text := fmt.Sprintf(`node: {labels: {disktype: ssd}}
cluster: {name: try}
api: {listen: %q, socket: %q, pki: %[3]s/pki}
metrics: {listen: %[4]q}
runtime: {address: %[5]q, imagesDir: %[3]s/images, hostsDir: %[3]s/certs.d, podCIDR: %[6]s, podLogs: %[3]s/logs/pods, containerLogs: %[3]s/logs/containers}
manifests: %[3]s/manifests.d
dataDir: %[3]s/data
runDir: %[7]s
`, api, p.socket(), p.dir, metrics, containerd, p.network(), p.runDir())
	return os.WriteFile(p.config(), []byte(text), 0o600)
}

// network is an address range that a picket installed here, another clone's `make run` and common container engines do not use.
func (p place) network() string {
	sum := fnv.New32a()
	sum.Write([]byte(p.dir))
	return fmt.Sprintf("10.89.%d.0/24", sum.Sum32()%256)
}

// removeBridge removes what stays of the pods' network when the last of them is gone.
func (p place) removeBridge() error {
	bridge := runtime.Config{Namespace: "picket", RunDir: p.runDir()}.BridgeName()
	if _, err := net.InterfaceByName(bridge); err != nil {
		return nil // no pod had a network of its own
	}
	if out, err := exec.Command("busybox", "ip", "link", "delete", bridge).CombinedOutput(); err != nil {
		return fmt.Errorf("cannot remove the bridge %s: %w: %s", bridge, err, out)
	}
	return nil
}

// freePort is a loopback address that nobody uses at this moment.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// removePods deletes the DaemonSets and waits until the agent has taken the pods with their networks away.
func (p place) removePods() {
	ctx, cancel := context.WithTimeout(context.Background(), stopWithin)
	defer cancel()
	if out, err := p.picket(ctx, "delete", "daemonsets", "--all", "--all-namespaces").CombinedOutput(); err != nil {
		log.Printf("cannot delete the DaemonSets: %v: %s", err, out)
		return
	}
	for ctx.Err() == nil {
		out, err := p.picket(ctx, "get", "pods", "--all-namespaces", "-o", "name").Output()
		if err == nil && len(out) == 0 {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	log.Print("some pods did not end in time")
}

// endProcess asks a process to end, then makes it.
func endProcess(cmd *exec.Cmd, ended <-chan error) error {
	_ = cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-ended:
		return err
	case <-time.After(stopWithin):
		_ = cmd.Process.Kill()
		return errors.Join(errors.New("picketd did not end when told to"), <-ended)
	}
}
