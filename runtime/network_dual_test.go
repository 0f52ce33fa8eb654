package runtime_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/picketd/picket/runtime"
)

// With two networks a pod has an address of each, in that order, ports are published on both, and on one address of the host where
// hostIP says so. Also of a pod whose network namespace was lost nothing is left.
func TestDualStack(t *testing.T) {
	if !inside(t) {
		return
	}
	h := newNetHost(t)
	h.config.PodCIDR = "10.91.7.0/24,fd91:7::/64"
	h.reopen()
	both := func(p runtime.PodConfig) []string {
		t.Helper()
		s, err := h.SetUpPod(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		if len(s.IPs) != 2 || !strings.HasPrefix(s.IPs[0], "10.91.7.") || !strings.HasPrefix(s.IPs[1], "fd91:7::") {
			t.Fatalf("addresses %v", s.IPs)
		}
		return s.IPs
	}
	first := aPod()
	first.Ports = []runtime.PortMapping{{HostPort: 9999, ContainerPort: 9, Protocol: "tcp"}}
	both(first)
	h.tearDown(first.UID)
	before := h.traces()
	a, b := aPod(), aPod()
	a.Ports = []runtime.PortMapping{
		{HostPort: 8080, ContainerPort: 80, Protocol: "tcp"},
		{HostPort: 8084, ContainerPort: 80, Protocol: "tcp", HostIP: "10.91.7.1"},
		{HostPort: 8086, ContainerPort: 80, Protocol: "tcp", HostIP: "fd91:7::1"},
	}
	addresses := both(a)
	both(b)
	if again := both(a); !slices.Equal(again, addresses) {
		t.Errorf("%v became %v", addresses, again)
	}
	serve(t, h.path(a.UID, "net"), ":80", "a")
	for _, from := range []string{ownNetwork, h.path(b.UID, "net")} {
		in(t, from, func() error {
			return errors.Join(
				expect(addresses[0]+":80", "a"), expect("["+addresses[1]+"]:80", "a"), expect("10.91.7.1:8080", "a"), expect("[fd91:7::1]:8080", "a"),
				expect("10.91.7.1:8084", "a"), expect("[fd91:7::1]:8086", "a"), silent("10.91.7.1:8086"), silent("[fd91:7::1]:8084"),
			)
		})
	}
	in(t, ownNetwork, func() error { return errors.Join(expect("127.0.0.1:8080", "a"), silent("127.0.0.1:8084")) })
	h.tearDown(a.UID)
	run(t, "umount", h.path(b.UID, "net"))
	h.tearDown(b.UID)
	after := h.traces()
	for deadline := time.Now().Add(10 * time.Second); after != before && time.Now().Before(deadline); after = h.traces() {
		time.Sleep(10 * time.Millisecond) // the kernel takes its time to remove the interface of a namespace that is gone
	}
	if after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// silent is an error when something answers at an address.
func silent(address string) error {
	if got, err := ask(address); err == nil {
		return fmt.Errorf("%s answers %q", address, got)
	}
	return nil
}
