package cluster

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/picketd/picket/cluster/pki"
)

// A deleted host is refused everywhere, with all it has, until it is admitted or comes with a new certificate.
func TestHostileDeletedHost(t *testing.T) {
	withRogue(t, 40, func(t *testing.T, f *agents, evil *rogue) {
		door := f.add("gone", true, f.list[0])
		f.within(time.Minute, "they meet", f.met)
		door.mustPut("DaemonSet/default/theirs", "v1")
		door.say("default/web", "running")
		f.within(10*time.Second, "all are alike", func() bool { return alike(f.list) })
		status, _ := door.statuses.Get("gone", "default/web")
		old := door.identity().Certificate
		c := door.rogueClient(old)
		defer c.CloseIdleConnections()
		digest := f.list[0].r.digest()
		for _, a := range f.list[:3] {
			if code, answer := post(c, a, pathCompare, digest[:]); code != 200 {
				t.Fatalf("before, %s answers %d %s", a.name, code, answer)
			}
			if _, err := a.peers.post(t.Context(), "gone", pathCompare, digest[:], maxMessage); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.list[0].m.Delete("gone"); err != nil {
			t.Fatal(err)
		}
		f.list = f.list[:3]
		f.within(10*time.Second, "the deletion is known", func() bool {
			return f.everyone(func(a *agent) bool {
				s, _ := a.roster.Standing("gone")
				return s.State == RosterDeleted
			})
		})
		time.Sleep(time.Second)
		before := f.snapshot()
		auth := signs(f, old)
		for _, a := range f.list {
			if code, answer := post(c, a, pathCompare, digest[:]); code != http.StatusForbidden {
				t.Errorf("%s answers %d %s on a kept connection", a.name, code, answer)
			}
			if _, err := a.peers.post(t.Context(), "gone", pathCompare, digest[:], maxMessage); err == nil {
				t.Errorf("%s calls it on a kept connection", a.name)
			}
			if len(a.store.Orphans()) != 1 {
				t.Errorf("%s: orphans are %v", a.name, a.store.Orphans())
			}
		}
		relay := evil.own()
		defer relay.CloseIdleConnections()
		news := pushOf([]record{
			objectRecord(forge(t, auth, Object{Key: "DaemonSet/default/theirs", Version: Version{Generation: 5}, Body: []byte("x")})),
			statusRecord(forgeStatus(t, auth, Status{Node: "gone", Unit: "default/web", Sequence: status.Sequence + 5, Body: []byte("x")})),
		})
		for _, a := range f.list {
			refused := a.r.Stats().Refused
			post(relay, a, pathPush, news)
			if n := a.r.Stats().Refused - refused; n != 2 {
				t.Errorf("of what it signed since, %d were refused by %s", n, a.name)
			}
		}
		f.unchanged(before)

		// A late host gets all but that, and is quiet; when a door has signed it anew it gets that too.
		late, began := f.add("late", true, f.list[1]), time.Now()
		<-late.r.Synced()
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("a late host is in step after %s", took)
		}
		f.within(5*time.Second, "all are alike", func() bool { return alike(f.list) })
		if late.has("DaemonSet/default/theirs", "v1") {
			t.Error("a late host takes what a deleted one signed")
		}
		quiet(t, f)
		signed, err := f.list[1].store.Resign("DaemonSet/default/theirs")
		if err != nil {
			t.Fatal(err)
		}
		f.list[1].r.Tell(signed)
		f.within(3*time.Second, "it is everywhere", func() bool {
			return f.everyone(func(a *agent) bool { return a.has("DaemonSet/default/theirs", "v1") && len(a.store.Orphans()) == 0 })
		})

		t.Log("admitted")
		if err := f.list[0].m.Admit("gone"); err != nil {
			t.Fatal(err)
		}
		f.list = append(f.list, door)
		f.within(time.Minute, "it is back", func() bool { return f.met() && alike(f.list) })
		door.mustPut("ConfigMap/default/back", "x")
		f.within(3*time.Second, "what it writes is everywhere", func() bool {
			return f.everyone(func(a *agent) bool { return a.has("ConfigMap/default/back", "x") })
		})

		t.Log("deleted again, with a new certificate")
		f.list = f.list[:4]
		if err := f.list[1].m.Delete("gone"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		door.certify(f.authority)
		f.list = append(f.list, door)
		f.within(2*time.Minute, "it is back", func() bool { return f.met() && alike(f.list) })
		if code, _ := post(c, f.list[0], pathCompare, digest[:]); code != http.StatusForbidden {
			t.Errorf("its old certificate is answered with %d", code)
		}
		f.thief("gone", auth)
		door.mustPut("ConfigMap/default/again", "x")
		door.say("default/web", "again")
		f.within(10*time.Second, "what it writes and says is everywhere", func() bool {
			return f.everyone(func(a *agent) bool {
				st, _ := a.statuses.Get("gone", "default/web")
				return a.has("ConfigMap/default/again", "x") && string(st.Body) == "again"
			})
		})
	})
}

// thief is who has the certificate with which a host was deleted: the host, which has a newer one, stays what it is for all.
func (f *agents) thief(node string, old Authenticator) {
	f.t.Helper()
	f.within(time.Minute, "it is a member again", func() bool {
		return f.everyone(func(a *agent) bool {
			s, _ := a.roster.Standing(node)
			return s.State == RosterMember && a.roster.Digest() == f.list[0].roster.Digest()
		})
	})
	for i := range 10 {
		before, _ := f.list[0].roster.Standing(node)
		n := Notice{Node: node, State: RosterState(i % 2 * int(RosterLeft)), Entry: before.Entry + 5 + uint64(i)}
		n.Signature, _ = old.Sign(func(s Signer, credential []byte) []byte {
			n.By, n.Credential, n.Fingerprint, n.Issued = s.Node, credential, s.Fingerprint, s.Issued
			return n.signedPart(f.list[0].roster.fleet)
		})
		for _, a := range f.list {
			delegate{a.m}.NotifyMsg(append([]byte{kindNotices}, encodeNotice(n)...))
		}
		for range 100 {
			time.Sleep(10 * time.Millisecond)
			for _, a := range f.list {
				if s, _ := a.roster.Standing(node); s != before || !a.roster.Refused(node, time.Unix(n.Issued, 0)) {
					f.t.Fatalf("%s: %+v became %+v", a.name, before, s)
				}
			}
		}
	}
}

// quiet says that nobody finds a difference or refuses anything for a minute.
func quiet(t *testing.T, f *agents) {
	t.Helper()
	sum := func() (differing, refused uint64) {
		for _, a := range f.list {
			s := a.r.Stats()
			differing, refused = differing+s.Differing, refused+s.Refused
		}
		return differing, refused
	}
	time.Sleep(5 * time.Second) // for what is under way
	d, r := sum()
	time.Sleep(time.Minute)
	if d2, r2 := sum(); d2 != d || r2 != r {
		t.Errorf("in a minute in which nothing happens %d comparisons differ and %d elements are refused", d2-d, r2-r)
	}
}

// rogueClient is one of this agent's machine.
func (a *agent) rogueClient(certs ...tls.Certificate) *http.Client {
	return (&rogue{agent: a}).client(certs...)
}

// A host's certificate is replaced while it works: nothing stops, and its words hold for hosts that come later.
func TestRenewedCertificate(t *testing.T) {
	withAgents(t, 41, lossless, func(t *testing.T, f *agents) {
		hosts := f.addMany(3)
		f.within(time.Minute, "they meet", f.met)
		hosts[1].say("default/web", "running")
		f.works()
		time.Sleep(time.Second) // certificates are told apart by the second
		hosts[1].certify(f.authority)
		f.works()
		f.within(30*time.Second, "all know the new one and are alike", func() bool {
			self, _ := hosts[1].statuses.auth.Self()
			return alike(f.list) && f.everyone(func(a *agent) bool { return a.statuses.certificate("host-01") == self.Fingerprint })
		})
		late := f.add("late", true, hosts[0])
		f.within(15*time.Second, "a late host knows how it stands", func() bool {
			st, ok := late.statuses.Get("host-01", "default/web")
			return ok && string(st.Body) == "running"
		})
		f.within(15*time.Second, "all are alike", func() bool { return alike(f.list) })
		quiet(t, f)
		f.works()
	})
}

// The fleet changes its authority in the usual steps: both are trusted, new certificates, the old one goes. Work goes on all the
// time, and a host that comes afterwards gets everything.
func TestAuthorityRotation(t *testing.T) {
	withAgents(t, 42, lossless, func(t *testing.T, f *agents) {
		hosts := f.addMany(5)
		f.within(time.Minute, "they meet", f.met)
		for i, a := range hosts {
			a.mustPut(fmt.Sprintf("ConfigMap/default/of-%d", i), "x")
			a.say("default/web", "running")
		}
		f.works()
		next, err := pki.NewAuthority("fleet", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		both := append(f.authority.TrustedPEM(), next.TrustedPEM()...)
		step := func(what string, by *pki.Authority, ca []byte) {
			t.Log(what)
			for _, a := range hosts {
				time.Sleep(3 * time.Second)
				a.certifyWith(by, ca)
				f.works()
			}
			f.within(time.Minute, "all are alike", func() bool { return alike(f.list) })
		}
		step("both authorities", f.authority, both)
		step("new certificates", next, both)
		step("only the new authority", next, next.TrustedPEM())
		f.authority = next

		orphans := hosts[0].store.Orphans()
		if len(orphans) < 5 {
			t.Errorf("orphans are %v", orphans)
		}
		for _, key := range orphans { // the agent of one door does so
			signed, err := hosts[0].store.Resign(key)
			if err != nil {
				t.Fatal(err)
			}
			hosts[0].r.Tell(signed)
		}
		late := f.add("late", true, hosts[2])
		<-late.r.Synced()
		f.within(30*time.Second, "a late host has all there is", func() bool { // the last new certificate was a moment ago
			return f.met() && alike(f.list) && len(late.store.All()) == 6 && len(late.statuses.All()) == 5
		})
		quiet(t, f)
	})
}

// certifyWith gives the host a certificate of one authority and a list of those to trust.
func (a *agent) certifyWith(by *pki.Authority, trusted []byte) {
	a.f.t.Helper()
	p, err := by.IssueHost(pki.Host{Node: a.name, Door: a.door}, time.Now())
	if err == nil {
		err = pki.HostKit{CA: trusted, Pair: p}.Write(a.dir, true)
	}
	if err != nil {
		a.f.t.Fatal(err)
	}
}
