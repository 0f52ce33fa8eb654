package agent

import (
	"testing"
	"time"

	"github.com/picketd/picket/cluster"
	"github.com/picketd/picket/cluster/pki"
)

// What was signed with certificates of an authority that is gone is signed anew, by doors and, what hosts say of themselves, by each
// host: a host that comes later gets all of it.
func TestAnAuthorityThatIsGone(t *testing.T) {
	withFleet(t, 2, func(t *testing.T, f *testFleet) {
		f.add("plain", false)
		f.within(time.Minute, "all are ready", f.allReady)
		f.hosts[0].apply(webOf("busybox", ""))
		f.within(10*time.Second, "web runs", func() bool { return f.everywhere(func(h *fleetHost) bool { return h.webReady(3, 3) }) })
		next, err := pki.NewAuthority("picket", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		both := append(f.authority.TrustedPEM(), next.TrustedPEM()...)
		for _, step := range []struct {
			by *pki.Authority
			ca []byte
		}{{f.authority, both}, {next, both}, {next, next.TrustedPEM()}} {
			for _, h := range f.hosts {
				p, err := step.by.IssueHost(pki.Host{Node: h.cfg.Node.Name, Door: h.cfg.Node.Name != "plain"}, time.Now())
				if err == nil {
					err = pki.HostKit{CA: step.ca, Pair: p}.Write(h.cfg.API.PKI, true)
				}
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(5 * time.Second)
			}
			time.Sleep(30 * time.Second)
		}
		f.authority = next
		f.within(3*time.Minute, "all is signed anew", func() bool {
			return f.everywhere(func(h *fleetHost) bool { return len(h.loop.fleet.store.Orphans()) == 0 })
		})
		for _, h := range f.hosts {
			if n := len(h.running()); n != 1 {
				t.Errorf("%s runs %d containers", h.cfg.Node.Name, n)
			}
		}
		f.add("late", true)
		f.within(20*time.Second, "a late host shows all hosts and runs all", func() bool {
			return f.allReady() && f.everywhere(func(h *fleetHost) bool { return h.webReady(4, 4) })
		})
	})
}

func TestWhoMayWriteWhat(t *testing.T) {
	door, plain := cluster.Signer{Node: "door", Door: true}, cluster.Signer{Node: "plain"}
	for _, c := range []struct {
		by  cluster.Signer
		key string
		may bool
	}{
		{door, "DaemonSet/default/web", true},
		{door, keyOfHost("door"), true},
		{door, keyOfHost("plain"), false},
		{door, "Node//plain", true},
		{plain, "DaemonSet/default/web", false},
		{plain, keyOfHost("plain"), true},
		{plain, keyOfHost("door"), false},
		{plain, keyOfHost("plain/other"), false},
		{plain, keyOfHost(""), false},
		{plain, "Host/default/plain", false},
		{plain, "Node//plain", false},
		{plain, "", false},
	} {
		if err := mayWrite(c.by, c.key); (err == nil) != c.may {
			t.Errorf("%s writes %q: %v", c.by.Node, c.key, err)
		}
	}
}
