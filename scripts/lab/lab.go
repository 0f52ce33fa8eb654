package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/picketd/picket/cluster/pki"
	"github.com/picketd/picket/runtime/runtimetest"
)

// maxHosts is what fits into the wire's addresses.
const maxHosts = 200

// Options say what is special about a lab. The zero value is good.
type Options struct {
	// Binaries is the directory of picketd, picket and picket-logger. Empty: they are built from the source that the caller is in.
	Binaries string
	// Labels are those of host i, counted from 0. nil: disktype=ssd on every other host from the first on, and zones a, b, c in turn.
	Labels func(i int) map[string]string
	// Config may change host i's configuration before it is written: keys are those of picketd.yaml with a dot between section
	// and key, such as "cluster.reapAfter" and "node.taints"; values are what the file would hold.
	Config func(i int, config map[string]any)
	// NoDoor says that host i gets no door's certificate. nil: all are doors.
	NoDoor func(i int) bool
	// Profile is cluster.profile; empty is lan.
	Profile string
	// Log takes what happens in the lab, a line each. nil: nobody wants it.
	Log io.Writer
}

// Lab is a fleet of hosts. Its methods may be called from several goroutines.
type Lab struct {
	Dir     string
	Hosts   []*Host
	Network netip.Prefix // of the wire
	// Registry holds busybox, and what is pushed to it. nil in a lab that was opened.
	Registry *runtimetest.Registry
	// Authority makes further certificates of the fleet. nil in a lab that was opened.
	Authority *pki.Authority

	options Options
	lock    *os.File // nil in a lab that was opened
	gossip  pki.GossipKeys
	admin   pki.Pair
	logging sync.Mutex
}

// record is what lab.json holds.
type record struct {
	Network  netip.Prefix `json:"network"`
	Hosts    int          `json:"hosts"`
	Binaries string       `json:"binaries"`
}

// New makes a lab of n hosts in dir and starts none of them. An empty dir is a new temporary one. What an earlier lab left in dir, or
// in temporary ones, is removed; one that is in use is an error. dir must be short: there are unix sockets in it.
func New(dir string, n int, options Options) (l *Lab, err error) {
	if n < 1 || n > maxHosts {
		return nil, fmt.Errorf("cannot make a lab of %d hosts: 1 to %d", n, maxHosts)
	}
	lock, dir, err := hold(dir)
	if err != nil {
		return nil, err
	}
	l = &Lab{Dir: dir, options: options, lock: lock}
	defer func() {
		if err != nil {
			l, err = nil, errors.Join(err, l.Close())
		}
	}()
	if err := sweep(dir); err != nil {
		return l, fmt.Errorf("cannot remove what an earlier lab left: %w", err)
	}
	if l.options.Binaries == "" {
		l.options.Binaries = filepath.Join(dir, "bin")
		if err := Build(l.options.Binaries); err != nil {
			return l, err
		}
	}
	for i := range n {
		l.Hosts = append(l.Hosts, newHost(l, i))
	}
	return l, l.furnish()
}

// furnish makes all that the hosts need.
func (l *Lab) furnish() error {
	if err := l.lay(); err != nil {
		return err
	}
	r := record{Network: l.Network, Hosts: len(l.Hosts), Binaries: l.options.Binaries}
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(l.Dir, "lab.json"), text, 0o600); err != nil {
		return err
	}
	if err := l.serveImages(); err != nil {
		return err
	}
	if err := l.found(); err != nil {
		return err
	}
	for _, h := range l.Hosts {
		if err := h.furnish(); err != nil {
			return fmt.Errorf("cannot make %s: %w", h.Name, err)
		}
	}
	return nil
}

// serveImages starts the registry and tells the hosts of it.
func (l *Lab) serveImages() (err error) {
	if l.Registry, err = runtimetest.NewRegistryIn(l.wire(), netip.AddrPortFrom(l.wireAddress(), 5000).String()); err != nil {
		return err
	}
	image, err := runtimetest.Image{}.Build()
	if err != nil {
		return err
	}
	return errors.Join(l.Registry.Push("busybox", image), l.Registry.WriteHosts(l.imageHosts(), "docker.io"))
}

func (l *Lab) imageHosts() string { return filepath.Join(l.Dir, "certs.d") }

// found makes the fleet's authority and its administrator.
func (l *Lab) found() (err error) {
	now := time.Now()
	if l.Authority, l.gossip, err = pki.Init(filepath.Join(l.Dir, "pki"), fleetName, now); err != nil {
		return err
	}
	l.admin, err = l.Authority.IssueUser(pki.User{Name: "admin", Role: pki.Admin}, now)
	return err
}

// Open gives access to a lab that another process runs: to cut and mend its links, and to what its hosts answer. Its hosts cannot
// be started or stopped.
func Open(dir string) (*Lab, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(dir, "lab.json"))
	if err != nil {
		return nil, fmt.Errorf("cannot find a lab: %w", err)
	}
	var r record
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("cannot read %s/lab.json: %w", dir, err)
	}
	l := &Lab{Dir: dir, Network: r.Network, options: Options{Binaries: r.Binaries}}
	for i := range r.Hosts {
		l.Hosts = append(l.Hosts, newHost(l, i))
	}
	return l, nil
}

// Host finds a host by its name.
func (l *Lab) Host(name string) (*Host, error) {
	for _, h := range l.Hosts {
		if h.Name == name {
			return h, nil
		}
	}
	return nil, fmt.Errorf("there is no host %q: %s to %s", name, l.Hosts[0].Name, l.Hosts[len(l.Hosts)-1].Name)
}

// Start starts the hosts that do not run and returns when all are ready.
func (l *Lab) Start(ctx context.Context) error {
	return each(l.Hosts, func(h *Host) error { return h.Start(ctx) })
}

// Meet returns when each of the hosts that run shows all of them as Ready.
func (l *Lab) Meet(ctx context.Context) error {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	running := slices.DeleteFunc(slices.Clone(l.Hosts), func(h *Host) bool { return h.PID() == 0 })
	err := each(running, func(h *Host) error { return h.sees(ctx, running) })
	if err == nil {
		l.logf("%d hosts see each other after %s", len(running), time.Since(began).Round(time.Millisecond))
	}
	return err
}

// sees waits until the host shows all others as Ready.
func (h *Host) sees(ctx context.Context, others []*Host) error {
	for {
		ready, err := h.readyNodes(ctx)
		missing := slices.DeleteFunc(slices.Clone(others), func(o *Host) bool { return ready[o.Name] })
		if err == nil && len(missing) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("it does not see %d of %d hosts: %w", len(missing), len(others), ctx.Err()), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (h *Host) readyNodes(ctx context.Context) (map[string]bool, error) {
	text, err := h.get(ctx, "/api/v1/nodes")
	if err != nil {
		return nil, err
	}
	var nodes corev1.NodeList
	if err := json.Unmarshal(text, &nodes); err != nil {
		return nil, fmt.Errorf("cannot read the list of nodes: %w", err)
	}
	ready := make(map[string]bool)
	for _, n := range nodes.Items {
		ready[n.Name] = slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
		})
	}
	return ready, nil
}

// Close takes everything away at once. What could not be removed is in the error, and Clean may try again.
func (l *Lab) Close() error {
	if l.lock == nil {
		return errForeign
	}
	errs := []error{each(l.Hosts, func(h *Host) error {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.off()
	})}
	if l.Registry != nil {
		errs = append(errs, l.Registry.Close())
	}
	if err := errors.Join(append(errs, raze(l.Dir))...); err != nil {
		return errors.Join(err, l.lock.Close())
	}
	return release(l.lock, l.Dir)
}

// each calls f for all hosts at the same time.
func each(hosts []*Host, f func(*Host) error) error {
	errs := make([]error, len(hosts))
	var wg sync.WaitGroup
	for i, h := range hosts {
		wg.Go(func() {
			if err := f(h); err != nil {
				errs[i] = fmt.Errorf("%s: %w", h.Name, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (l *Lab) logf(format string, args ...any) {
	if l.options.Log == nil {
		return
	}
	l.logging.Lock()
	defer l.logging.Unlock()
	fmt.Fprintf(l.options.Log, time.Now().Format("15:04:05.000 ")+format+"\n", args...)
}
