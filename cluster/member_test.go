package cluster

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"
)

func TestAFleetOfOneIsAnOrdinaryFleet(t *testing.T) {
	inFleet(t, 1, func(t *testing.T, f *testFleet) {
		a := f.add("a")
		time.Sleep(time.Minute)
		if !agree(a) || len(a.m.Snapshot().Members) != 1 {
			t.Errorf("%+v", a.m.Snapshot())
		}
		if s := a.m.Stats(); s.Alive != 1 || s.Listed != 1 || s.Missing != 0 || s.HealthScore != 0 || s.JoinsTried != 0 {
			t.Errorf("%+v", s)
		}
		if err := a.m.Leave(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestThreeHostsFindEachOtherAndAFailedOneIsFound(t *testing.T) {
	inFleet(t, 2, func(t *testing.T, f *testFleet) {
		hosts := f.addMany(3)
		t.Log("joined after", f.within(5*time.Second, "three agree", func() bool { return agree(hosts...) }))
		<-hosts[1].m.Joined()
		time.Sleep(20 * time.Second)
		a, c := hosts[0], hosts[2]
		c.lose()
		t.Log("failed after", f.within(10*time.Second, "a finds c failed", func() bool { return !a.member(c.name).Alive }))
		if m := a.member(c.name); !m.Missing() || m.API == "" || m.Incarnation == 0 || a.m.Stats().Missing != 1 {
			t.Errorf("%+v", m)
		}
	})
}

func TestTrap1ASplitHealsAfterEachSideForgotTheOther(t *testing.T) {
	inFleet(t, 3, func(t *testing.T, f *testFleet) {
		hosts := f.addMany(6)
		f.within(10*time.Second, "six agree", func() bool { return agree(hosts...) })
		time.Sleep(10 * time.Second) // addresses are saved
		left, right := hosts[:3], hosts[3:]
		f.net.Partition(names(left), names(right))
		time.Sleep(10 * time.Minute)
		if !agree(left[0]) || left[0].sees(right[0]) || left[0].m.Stats().Missing != 3 {
			t.Fatalf("%+v", left[0].m.Stats())
		}
		f.net.Heal()
		t.Log("healed after", f.within(10*time.Second, "all agree again", func() bool { return agree(hosts...) }))
	})
}

func TestTrap1ASplitHealsThoughEveryAgentWasRestartedWithoutSeeds(t *testing.T) {
	inFleet(t, 4, func(t *testing.T, f *testFleet) {
		hosts := f.addMany(4)
		f.within(10*time.Second, "four agree", func() bool { return agree(hosts...) })
		time.Sleep(10 * time.Second)
		f.net.Partition(names(hosts[:2]), names(hosts[2:]))
		time.Sleep(time.Minute)
		for _, h := range hosts {
			h.stop()
			h.start() // only the roster and the addresses on disk
		}
		time.Sleep(time.Minute)
		f.net.Heal()
		t.Log("healed after", f.within(10*time.Second, "all agree again", func() bool { return agree(hosts...) }))
	})
}

func TestTrap2AHostReturnsWithAnotherAddress(t *testing.T) {
	inFleet(t, 5, func(t *testing.T, f *testFleet) {
		hosts := f.addMany(5)
		f.within(10*time.Second, "five agree", func() bool { return agree(hosts...) })
		time.Sleep(10 * time.Second)
		moved := hosts[4]
		before := hosts[0].member(moved.name).Incarnation
		moved.lose()
		moved.move(hosts[0])
		t.Log("back after", f.within(20*time.Second, "it is known by its new address", func() bool { return agree(hosts...) }))
		if after := hosts[0].member(moved.name).Incarnation; after <= before {
			t.Errorf("incarnation %d after %d", after, before)
		}
		for _, h := range hosts {
			if h.log.has("ERROR", "one name") || h.log.has("ERROR", "this host's name") {
				t.Errorf("%s calls a host that moved a twin", h.name)
			}
		}
	})
}

func TestTrap2TwinsBothSaySoAndNeitherDies(t *testing.T) {
	inFleet(t, 6, func(t *testing.T, f *testFleet) {
		hosts := f.addMany(3)
		f.within(10*time.Second, "three agree", func() bool { return agree(hosts...) })
		first := hosts[2]
		twin := &testHost{f: f, name: first.name, auth: newPlainKeys(first.name, true, "twin"), db: openRosterDB(t), log: &logBook{}}
		twin.host = f.net.Host("twin")
		f.hosts = append(f.hosts, twin)
		twin.start(hosts[0])
		time.Sleep(time.Minute)
		for _, h := range []*testHost{first, twin} {
			if !h.log.has("ERROR", "another host has this host's name", first.address()) {
				t.Errorf("the one at %s does not say it", h.address())
			}
			if c := h.m.Snapshot().Conflicts; len(c) != 1 || c[0].Node != first.name {
				t.Errorf("%+v", c)
			}
		}
		if !hosts[0].log.has("ERROR", "two hosts have one name") {
			t.Error("the others do not say it")
		}
		if !hosts[0].sees(first) || !hosts[0].sees(hosts[1]) {
			t.Error("the first of the name should stay a member")
		}
		entry := hosts[0].member(first.name).Entry
		time.Sleep(10 * time.Minute)
		if now := hosts[0].member(first.name).Entry; now > entry+20 {
			t.Errorf("the twins outbid each other: entry %d, ten minutes later %d", entry, now)
		}
		twin.stop()
		f.within(2*time.Minute, "the conflict is over", func() bool { return len(first.m.Snapshot().Conflicts) == 0 })
	})
}

func TestTrap3ARestartIsALaterLifeAndRefutesWhatIsStale(t *testing.T) {
	inFleet(t, 7, func(t *testing.T, f *testFleet) {
		hosts := f.addMany(3)
		f.within(10*time.Second, "three agree", func() bool { return agree(hosts...) })
		a, c := hosts[0], hosts[2]
		for range 3 { // before it is found failed, and after
			for _, down := range []time.Duration{0, time.Minute} {
				before := a.member(c.name).Incarnation
				c.stop()
				time.Sleep(down)
				c.start(a)
				f.within(10*time.Second, "its later life is known", func() bool {
					return agree(hosts...) && a.member(c.name).Incarnation > before
				})
			}
		}
	})
}

func TestTrap3ALostDiskGoesOnAboveWhatOthersRemember(t *testing.T) {
	inFleet(t, 8, func(t *testing.T, f *testFleet) {
		hosts := f.addMany(3)
		f.within(10*time.Second, "three agree", func() bool { return agree(hosts...) })
		a, c := hosts[0], hosts[2]
		for range 3 { // its numbers grow
			c.stop()
			c.start(a)
			time.Sleep(20 * time.Second)
		}
		before := a.member(c.name)
		c.stop()
		c.db = openRosterDB(t)
		c.start(a)
		f.within(20*time.Second, "it is above its former life", func() bool {
			now := a.member(c.name)
			return agree(hosts...) && now.Incarnation > before.Incarnation && now.Entry > before.Entry
		})
	})
}

func TestTrap4KeysRotateWithAHostOffline(t *testing.T) {
	inFleet(t, 9, func(t *testing.T, f *testFleet) {
		paths := map[string]string{}
		f.change = func(c *MembershipConfig) {
			if paths[c.Node] == "" {
				paths[c.Node] = keyPath(t, 1)
			}
			c.Gossip.KeyFile = paths[c.Node]
		}
		hosts := f.addMany(3)
		online, offline := hosts[:2], hosts[2]
		f.within(10*time.Second, "three agree", func() bool { return agree(hosts...) })
		rotate := func(keys ...byte) {
			for _, h := range online {
				keyFile(t, paths[h.name], keys...)
				if err := h.m.ReloadKeys(); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Minute)
			if !agree(online...) {
				t.Fatalf("keys %v split the fleet", keys)
			}
		}
		offline.stop()
		rotate(1, 2)
		rotate(2, 1)
		// It returns with the old key, which the others have as their second. It hears nothing that they send with the new one.
		offline.start(online[0])
		time.Sleep(time.Minute)
		if !online[0].log.has("ERROR", "Decrypt") && !offline.log.has("ERROR", "Decrypt") {
			t.Error("a key that is not known should be said")
		}
		keyFile(t, paths[offline.name], 1, 2)
		if err := offline.m.ReloadKeys(); err != nil {
			t.Fatal(err)
		}
		f.within(30*time.Second, "it is back with both keys", func() bool { return agree(hosts...) })
		// The notice may go out while a refutation of its death replaces it; then only a push/pull brings it, every 30 s with any host.
		f.within(10*time.Minute, "its order of keys is seen", func() bool {
			m := online[0].member(offline.name)
			return len(m.Keys) == 2 && m.Keys[0] != online[0].m.Stats().KeyFingerprints[0]
		})
		if !online[0].log.has("WARN", "other gossip keys", offline.name) {
			t.Error("a stale order of keys is not said")
		}
		rotate(2)
		keyFile(t, paths[offline.name], 2)
		if err := offline.m.ReloadKeys(); err != nil {
			t.Fatal(err)
		}
		f.within(time.Minute, "all have the new key", func() bool { return agree(hosts...) })
		// A file that cannot be used changes nothing.
		if err := os.WriteFile(paths[offline.name], []byte("not a key"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := offline.m.ReloadKeys(); err == nil || offline.m.Stats().KeyErrors != 1 || len(offline.m.Stats().KeyFingerprints) != 1 {
			t.Errorf("%v, %+v", err, offline.m.Stats())
		}
	})
}

func TestTrap5NobodyWaitsForAnAgentThatDoesNotListen(t *testing.T) {
	inFleet(t, 10, func(t *testing.T, f *testFleet) {
		hosts := f.addMany(2)
		f.within(10*time.Second, "two agree", func() bool { return agree(hosts...) })
		a, b := hosts[0], hosts[1]
		memory := []byte{kindUser, 'x'}
		delegate{b.m}.NotifyMsg(memory)
		memory[1] = 'y'
		if got := <-b.m.Messages(); string(got) != "x" {
			t.Errorf("%q: memberlist's memory was kept", got)
		}
		for range userSize + 100 {
			delegate{b.m}.NotifyMsg(memory)
		}
		if s := b.m.Stats(); s.DroppedReceived != 100 {
			t.Errorf("%d dropped", s.DroppedReceived)
		}
		time.Sleep(time.Minute)
		if !agree(a, b) {
			t.Error("an agent that does not listen is not found alive")
		}
	})
}

func TestTrap7AFailedHostsStateIsKept(t *testing.T) {
	inFleet(t, 11, func(t *testing.T, f *testFleet) {
		hosts := f.addMany(3)
		f.within(10*time.Second, "three agree", func() bool { return agree(hosts...) })
		a, c := hosts[0], hosts[2]
		before := a.member(c.name)
		c.lose()
		time.Sleep(time.Hour)
		after := a.member(c.name)
		if after.Alive || after.API != before.API || after.Incarnation != before.Incarnation || after.Standing != before.Standing || after.Gossip != before.Gossip {
			t.Errorf("%+v became %+v", before, after)
		}
		if !after.Quiet(time.Now(), 2*time.Second) || a.member(hosts[1].name).Quiet(time.Now(), 2*time.Second) {
			t.Error("two seconds without a word tell a failed host from one that is there")
		}
	})
}

func TestTrap9AFewAreJoinedAtOnce(t *testing.T) {
	inFleet(t, 12, func(t *testing.T, f *testFleet) {
		var seeds []*testHost
		for i := range 30 {
			seeds = append(seeds, &testHost{name: fmt.Sprint("s", i), host: f.net.Host(fmt.Sprint("s", i))}) // nobody is there yet
		}
		a := f.add("a", seeds...)
		most := uint64(0)
		for range 60 {
			before := a.m.Stats().JoinsTried
			time.Sleep(a.m.profile.rejoinEvery/2 - time.Millisecond)
			most = max(most, a.m.Stats().JoinsTried-before)
		}
		if most == 0 || most > joinAtOnce {
			t.Errorf("%d at once", most)
		}
		tried := a.m.Stats().JoinsTried
		time.Sleep(10 * time.Minute)
		if a.m.Stats().JoinsTried < tried+100 {
			t.Error("it gave up")
		}
	})
}

func TestTrap10MemberlistsLevelsAreKept(t *testing.T) {
	book := &logBook{}
	refused := 0
	log := memberlistLog(slog.New(book), func() { refused++ })
	for _, line := range []string{"[ERR] memberlist: e", "[ERROR] memberlist: e2", "[WARN] memberlist: w", "[INFO] memberlist: i", "[DEBUG] memberlist: d", "plain"} {
		log.Print(line)
	}
	want := []string{"ERROR e", "ERROR e2", "WARN w", "INFO i", "DEBUG d", "INFO plain"}
	for i, line := range book.lines {
		if !strings.HasPrefix(line, want[i]+" from=memberlist") {
			t.Errorf("%q, want %q", line, want[i])
		}
	}
	if len(book.lines) != len(want) {
		t.Errorf("%q", book.lines)
	}
}
