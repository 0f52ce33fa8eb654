package cluster

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// Who has the gossip key and no certificate cannot make a host alive that is away, nor say where one is or where its API is.

// noKeys signs what nobody believes.
type noKeys struct{ *plainKeys }

func (k noKeys) Sign(message func(Signer, []byte) []byte) ([]byte, error) {
	message(k.self, k.credential(k.self.Node, k.self.Door))
	return make([]byte, 64), nil
}

// impostor is a whole agent without a certificate under a host's name, which answers whoever asks.
func (f *testFleet) impostor(name string, seed *testHost) *testHost {
	h := &testHost{f: f, name: name, auth: noKeys{newPlainKeys("nobody", true, "")}, db: openRosterDB(f.t), log: &logBook{}}
	h.host = f.net.Host("impostor")
	f.hosts = append(f.hosts, h)
	h.start(seed)
	return h
}

func TestAnImpostorOfAHostThatIsThere(t *testing.T) {
	attacked(t, 84, func(t *testing.T, f *testFleet, _ *intruder, hosts []*testHost) {
		victim := hosts[2]
		impostor := f.impostor(victim.name, hosts[0])
		told := 0 // moments in which the operator is shown it: the impostor is not heard all the time
		failed := failedFor(hosts, victim.name, 10*time.Minute, func() {
			told += len(hosts[0].m.Snapshot().Conflicts)
			if at := hosts[0].member(victim.name).Gossip.String(); at != victim.address() {
				t.Fatalf("it is believed to be at %s", at)
			}
		})
		if failed > 0 || !victim.log.has("ERROR", "another host has this host's name") || told == 0 {
			t.Errorf("failed for %v; told in %d moments", failed, told)
		}
		impostor.stop()
	})
}

func TestAnImpostorOfAHostThatIsAway(t *testing.T) {
	attacked(t, 86, func(t *testing.T, f *testFleet, i *intruder, hosts []*testHost) {
		victim := hosts[2]
		said := aboutNode(t, victim.name, hosts[0].member(victim.name).API, hosts[0].member(victim.name).Incarnation) // all true but the address
		victim.stop()
		f.within(10*time.Second, "it is failed", func() bool {
			return !hosts[0].member(victim.name).Alive && !hosts[1].member(victim.name).Alive
		})
		before, refused := hosts[0].member(victim.name), hosts[0].m.Stats().RefusedAlive
		impostor := f.impostor(victim.name, hosts[0])
		incarnation := 100
		for range 240 {
			for _, h := range hosts[:2] {
				for _, about := range [][]byte{said, aboutNode(t, victim.name, "6.6.6.6:1", 1<<20)} {
					incarnation++
					i.send(h, i.alive(victim.name, incarnation, i.address(), about, spoken))
					i.stream(h, i.pushPull(1, 0, [][]byte{i.state(victim.name, incarnation, i.address(), about)}, nil))
				}
				greeting := encodeHello(hello{node: victim.name, addr: i.address()})
				i.stream(h, i.pushPull(0, len(greeting), nil, greeting))
				time.Sleep(250 * time.Millisecond)
				if m := h.member(victim.name); m.Alive || m.Gossip != before.Gossip || m.API != before.API || m.Heard.After(before.Heard.Add(5*time.Second)) {
					t.Fatalf("%s believes %+v", h.name, m)
				}
			}
		}
		if now := hosts[0].m.Stats().RefusedAlive; now < refused+400 {
			t.Errorf("of hundreds %d are counted", now-refused)
		}
		victim.start(hosts[0])
		t.Log("it is back after", f.within(10*time.Second, "it is back, while the impostor goes on", func() bool { return agree(hosts...) }))
		impostor.stop()
	})
}

func TestAForgedAPIAddressIsNotUsed(t *testing.T) {
	attacked(t, 82, func(t *testing.T, f *testFleet, i *intruder, hosts []*testHost) {
		victim := hosts[2]
		at := netip.MustParseAddrPort(victim.address())
		for n := range 40 {
			for _, h := range hosts[:2] {
				i.send(h, i.alive(victim.name, 100+10*n, at, aboutNode(t, victim.name, "6.6.6.6:1", 1<<40), spoken))
			}
			for range 300 {
				time.Sleep(10 * time.Millisecond)
				for _, h := range hosts[:2] {
					m := h.member(victim.name)
					if m.API != victim.host.Addr().String()+":9746" || m.Incarnation > 1<<30 || !m.Alive {
						t.Fatalf("%s believes %+v", h.name, m)
					}
				}
			}
		}
	})
}

// Who could raise a host's entry at will would halt rollouts for as long.
func TestForgedLivesRaiseNoEntryAgainAndAgain(t *testing.T) {
	inFleet(t, 87, func(t *testing.T, f *testFleet) {
		f.keyed()
		hosts := f.addMany(3)
		f.within(10*time.Second, "three agree", func() bool { return agree(hosts...) })
		victim, i := hosts[2], f.intruder(1)
		entry := hosts[0].member(victim.name).Entry
		for n := range 20 {
			about := aboutNode(t, victim.name, "6.6.6.6:1", victim.m.Stats().Incarnation+1)
			i.send(victim, i.alive(victim.name, 100+10*n, netip.MustParseAddrPort(victim.address()), about, spoken))
			time.Sleep(time.Second)
		}
		if now := hosts[0].member(victim.name).Entry; now > entry+1 {
			t.Errorf("entry %d became %d", entry, now)
		}
	})
}

// A host without a roster believes anybody, until the roster comes.
func TestAnImpostorThatCameBeforeTheRoster(t *testing.T) {
	inFleet(t, 88, func(t *testing.T, f *testFleet) {
		f.keyed()
		hosts := f.addMany(3)
		f.within(10*time.Second, "three agree", func() bool { return agree(hosts...) })
		victim := hosts[2]
		victim.stop()
		fresh := f.add("fresh")
		impostor := f.impostor(victim.name, fresh)
		f.within(10*time.Second, "it is believed", func() bool { return fresh.member(victim.name).Alive })
		fresh.m.SetJoin([]string{hosts[0].address()})
		f.within(10*time.Second, "the roster comes", func() bool { return fresh.sees(hosts[:2]...) })
		failed := failedFor([]*testHost{fresh, hosts[0], hosts[1]}, victim.name, time.Minute, func() {
			if m := fresh.member(victim.name); m.Alive || m.API != "" {
				t.Fatalf("it is still believed: %+v", m)
			}
		})
		if failed < time.Minute {
			t.Errorf("failed for %v", failed)
		}
		impostor.stop()
		victim.start(hosts[0])
		f.within(time.Minute, "it is back everywhere", func() bool { return agree(append(hosts, fresh)...) })
	})
}

// A host's certificate is replaced while others do not hear of it, before a restart and without one.
func TestAHostStaysAliveThoughItsCertificateIsRenewed(t *testing.T) {
	inFleet(t, 89, func(t *testing.T, f *testFleet) {
		hosts := f.addMany(4)
		f.within(10*time.Second, "four agree", func() bool { return agree(hosts...) })
		time.Sleep(10 * time.Second)
		c := hosts[3]
		api := c.host.Addr().String() + ":9746"
		known := func(salt string, issued int64, within time.Duration) {
			t.Helper()
			k := newPlainKeys(c.name, true, salt)
			k.issue(issued)
			c.auth.(*plainKeys).become(k)
			f.within(within, "the new one is known", func() bool {
				for _, h := range hosts[:3] {
					if m := h.member(c.name); c.m != nil && (!m.Alive || m.API != api) {
						t.Fatalf("%s has it %+v", h.name, m)
					}
				}
				return agree(hosts...) && hosts[0].member(c.name).Fingerprint == k.self.Fingerprint
			})
			failed := failedFor(hosts, c.name, 2*time.Minute, func() {})
			if failed > 0 {
				t.Errorf("failed for %v", failed)
			}
		}
		for n := range 5 {
			known(string(rune('a'+n)), int64(n+1), 15*time.Second)
		}
		f.net.Partition([]string{hosts[2].name}, []string{hosts[3].name}) // it hears of it from others
		known("relayed", 10, 15*time.Second)
		f.net.Heal()
		for n, down := range []time.Duration{0, time.Minute} {
			c.stop()
			k := newPlainKeys(c.name, true, "restarted")
			k.issue(int64(20 + n))
			c.auth.(*plainKeys).become(k)
			time.Sleep(down)
			if n > 0 {
				c.lost = true // and it has another address
				c.powered()
			}
			c.start(hosts[0])
			t.Log("back after", f.within(20*time.Second, "it is back", func() bool { return agree(hosts...) }))
			api = c.host.Addr().String() + ":9746"
			time.Sleep(time.Minute)
		}
	})
}

// A host that was refused, because the notice of its new address had not come, is called as soon as it comes; an impostor is not.
func TestAHostThatWasRefusedIsCalled(t *testing.T) {
	inFleet(t, 90, func(t *testing.T, f *testFleet) {
		a, c := f.add("a"), newPlainKeys("c", true, "")
		listener, err := f.net.Host("c").Transport(9745)
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Shutdown()
		i, elsewhere := f.intruder(0), newRoster(t, c)
		tells := func(at netip.AddrPort) uint64 {
			elsewhere.locate(at, "c:9746")
			i.send(a, append([]byte{typeUser, kindNotices}, encodeNotice(say(t, elsewhere, "c", RosterMember))...))
			time.Sleep(time.Second)
			return a.m.Stats().JoinsTried
		}
		at := netip.MustParseAddrPort(listener.Address())
		before := tells(i.address())
		i.send(a, i.alive("c", 1, at, aboutNode(t, "c", "c:9746", 1), spoken))
		time.Sleep(time.Second)
		if now := tells(i.address()); a.member("c").Alive || now != before {
			t.Errorf("an impostor is called, or believed: %+v", a.member("c"))
		}
		if now := tells(at); now != before+1 {
			t.Error("it is not called")
		}
	})
}

// An agent that is restarted with another address of its API stays alive.
func TestAnAPIThatMoved(t *testing.T) {
	inFleet(t, 91, func(t *testing.T, f *testFleet) {
		hosts := f.addMany(3)
		f.within(10*time.Second, "three agree", func() bool { return agree(hosts...) })
		c, failed := hosts[2], 0
		for _, api := range []string{"10.9.9.9:1", "10.9.9.9:2", "10.9.9.9:3"} {
			c.stop()
			f.change = func(config *MembershipConfig) { config.API = api }
			c.start(hosts[0])
			f.within(5*time.Second, "the new one is known", func() bool {
				for _, h := range hosts[:2] {
					if !h.member(c.name).Alive {
						failed++
					}
				}
				return hosts[0].member(c.name).API == api && hosts[1].member(c.name).API == api
			})
		}
		if failed > 0 || !agree(hosts...) {
			t.Errorf("failed in %d looks", failed)
		}
	})
}

// TestAnOlderCertificateIsPutBack is a mistake: the host starts, says so, and is heard again when the newer one is back.
func TestAnOlderCertificateIsPutBack(t *testing.T) {
	inFleet(t, 85, func(t *testing.T, f *testFleet) {
		hosts := f.addMany(3)
		f.within(10*time.Second, "three agree", func() bool { return agree(hosts...) })
		c := hosts[2]
		older, newer := newPlainKeys(c.name, true, ""), newPlainKeys(c.name, true, "newer")
		older.issue(1)
		newer.issue(2)
		with := func(k *plainKeys) {
			c.stop()
			c.auth = k
			c.start(hosts[0])
		}
		with(newer)
		f.within(10*time.Second, "the newer is known", func() bool {
			return agree(hosts...) && hosts[0].member(c.name).Fingerprint == newer.self.Fingerprint
		})
		digest := hosts[0].roster.Digest()
		with(older)
		time.Sleep(10 * time.Minute)
		said := 0
		for _, line := range c.log.last(10_000) {
			if strings.Contains(line, "ERROR") && strings.Contains(line, "picket pki host") {
				said++
			}
		}
		if said < 3 || said > 15 {
			t.Errorf("it says so %d times in ten minutes", said)
		}
		if err := c.m.Raise(); !errors.Is(err, errOlderCertificate) {
			t.Errorf("it raises its entry: %v", err)
		}
		if hosts[0].roster.Digest() != digest || hosts[0].member(c.name).Fingerprint != newer.self.Fingerprint {
			t.Error("it was believed")
		}
		newest := newPlainKeys(c.name, true, "newest")
		newest.issue(3)
		c.auth.(*plainKeys).become(newest)
		f.within(10*time.Second, "a new one is taken up without a restart", func() bool {
			return agree(hosts...) && hosts[0].member(c.name).Fingerprint == newest.self.Fingerprint
		})
	})
}
