package cluster

import (
	"bytes"
	"compress/lzw"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	goruntime "runtime"
	"slices"
	"testing"
	"time"
)

// attacked runs an attack on three hosts that agree, and checks that nothing of it is left: all are alive, the roster is what it
// was, and neither goroutines nor memory have grown.
func attacked(t *testing.T, seed uint64, attack func(t *testing.T, f *testFleet, i *intruder, hosts []*testHost)) {
	t.Helper()
	inFleet(t, seed, func(t *testing.T, f *testFleet) {
		f.keyed()
		hosts := f.addMany(3)
		f.within(10*time.Second, "three agree", func() bool { return agree(hosts...) })
		i := f.intruder(1)
		i.old = hosts[0].roster.notices()
		for range 3 { // so that they are old
			if err := hosts[1].m.Raise(); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		before, goroutines, heap := hosts[0].roster.Digest(), fewestGoroutines(), heapInUse()
		attack(t, f, i, hosts)
		f.within(3*time.Minute, "three agree again", func() bool { return agree(hosts...) })
		if hosts[0].roster.Digest() != before {
			t.Error("the roster has changed")
		}
		time.Sleep(3 * time.Minute)
		if now := fewestGoroutines(); now > goroutines {
			b := make([]byte, 1<<20)
			t.Errorf("%d goroutines, %d before\n%s", now, goroutines, b[:goruntime.Stack(b, true)])
		}
		if now := heapInUse(); now > heap+8<<20 {
			t.Errorf("%d kB of memory, %d before", now>>10, heap>>10)
		}
		for _, h := range hosts {
			if len(h.log.last(4000)) == 4000 {
				t.Errorf("%s fills its log", h.name)
			}
		}
	})
}

// fewestGoroutines leaves out those that come and go.
func fewestGoroutines() int {
	fewest := goruntime.NumGoroutine()
	for range 100 {
		time.Sleep(37 * time.Millisecond)
		fewest = min(fewest, goruntime.NumGoroutine())
	}
	return fewest
}

func heapInUse() int {
	goruntime.GC()
	var m goruntime.MemStats
	goruntime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

func allocated() int {
	var m goruntime.MemStats
	goruntime.ReadMemStats(&m)
	return int(m.TotalAlloc)
}

func TestAnIntruderSpeaksMemberlistsLanguage(t *testing.T) {
	attacked(t, 60, func(t *testing.T, _ *testFleet, i *intruder, hosts []*testHost) {
		i.send(hosts[0], i.alive("stranger", 1, i.address(), aboutNode(t, "stranger", "x:1", 1), spoken))
		i.stream(hosts[1], i.userMessage([]byte{kindUser, 'x'}))
		i.stream(hosts[2], i.pushPull(1, 0, [][]byte{i.state("another", 1, i.address(), aboutNode(t, "another", "x:1", 1))}, nil))
		time.Sleep(time.Second)
		for n, name := range map[int]string{0: "stranger", 2: "another"} {
			if m := hosts[n].member(name); !m.Alive || m.Listed {
				t.Errorf("%s is not heard: %+v", name, m)
			}
		}
		if got := <-hosts[1].m.Messages(); string(got) != "x" {
			t.Errorf("%q", got)
		}
	})
}

func TestWhatMemberlistPanicsAtIsKeptFromIt(t *testing.T) {
	attacked(t, 61, func(t *testing.T, f *testFleet, i *intruder, hosts []*testHost) {
		a := hosts[0]
		padding := bytes.Repeat([]byte{255}, 16) // more than there is
		for _, b := range [][]byte{
			i.labelled(i.seal(oldEncryption, padding, []byte(i.label))),
			i.labelled(i.seal(oldEncryption, nil, []byte(i.label))),
		} {
			i.sendRaw(a, b)
		}
		streams := [][]byte{i.sealStream(1, nil), i.sealStream(oldEncryption, padding), i.sealStream(oldEncryption, nil)}
		for _, b := range streams {
			i.streamRaw(a, i.labelled(b))
		}
		if s := a.m.Stats(); s.RefusedTraffic < 5 {
			t.Errorf("%+v", s)
		}
		// The same as answers to a host that calls.
		answers := f.net.Host("answers")
		listener, err := answers.Transport(9745)
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Shutdown()
		for n, b := range streams {
			before := a.m.Stats().RefusedTraffic
			a.m.call(netip.MustParseAddrPort(listener.Address()))
			c := <-listener.StreamCh()
			_, _ = c.Write(b)
			time.Sleep(time.Second)
			_ = c.Close()
			time.Sleep(time.Second)
			if a.m.Stats().RefusedTraffic == before {
				t.Errorf("answer %d was not refused", n)
			}
		}
	})
}

func TestWrongKeysLabelsAndGarbageAreRefusedAndCounted(t *testing.T) {
	attacked(t, 62, func(t *testing.T, _ *testFleet, i *intruder, hosts []*testHost) {
		good := i.alive("stranger", 1, i.address(), aboutNode(t, "stranger", "x:1", 1), spoken)
		random := rand.New(rand.NewPCG(62, 0))
		noise := make([]byte, 1400)
		other := *i
		other.key = bytes.Repeat([]byte{9}, 32)
		label := *i
		label.label = "another"
		for name, attack := range map[string]func(){
			"another key":             func() { other.send(hosts[0], good) },
			"no encryption":           func() { i.sendRaw(hosts[0], i.labelled(good)) },
			"another label":           func() { label.send(hosts[0], good) },
			"no label":                func() { i.sendRaw(hosts[0], i.seal(1, good, nil)) },
			"a label cut off":         func() { i.sendRaw(hosts[0], []byte{typeLabel, 200, 'f'}) },
			"another key, stream":     func() { other.stream(hosts[0], i.userMessage([]byte{kindUser})) },
			"another label, stream":   func() { label.stream(hosts[0], i.userMessage([]byte{kindUser})) },
			"no encryption, stream":   func() { i.streamRaw(hosts[0], i.labelled(i.userMessage([]byte{kindUser}))) },
			"an unknown type":         func() { i.send(hosts[0], []byte{99, 1, 2}) },
			"an unknown type, stream": func() { i.stream(hosts[0], []byte{99, 1, 2}) },
			"no msgpack":              func() { i.send(hosts[0], append([]byte{typeAlive}, noise[:100]...)) },
			"a bomb":                  func() { i.send(hosts[0], pack(typeCompress, "Algo", 0, "Buf", noise[:1000])) },
			"a bomb, stream":          func() { i.stream(hosts[0], pack(typeCompress, "Algo", 0, "Buf", folded(t, make([]byte, 40<<20)))) },
			"a lying list of parts":   func() { i.send(hosts[0], []byte{typeCompound, 255, 0, 1}) },
			"a lying header":          func() { i.stream(hosts[0], i.pushPull(1<<40, 0, nil, nil)) },
			"a lying header, smaller": func() { i.stream(hosts[0], i.pushPull(1<<19, 1<<24, nil, nil)) },
			"a lying length":          func() { i.stream(hosts[0], pack(typeUser, "UserMsgLen", 1<<40)) },
			"another protocol": func() {
				i.send(hosts[0], i.alive("s", 1, i.address(), aboutNode(t, "s", "", 1), []byte{9, 9, 9, 0, 0, 0}))
			},
			"another delegate's protocol": func() {
				i.send(hosts[0], i.alive("s", 1, i.address(), aboutNode(t, "s", "", 1), []byte{1, 5, 2, 0, 9, 9}))
			},
			"no address": func() {
				i.send(hosts[0], pack(typeAlive, "Incarnation", 1, "Node", "s", "Addr", "xyz", "Port", 1, "Meta", aboutNode(t, "s", "", 1), "Vsn", spoken))
			},
			"another name within": func() { i.send(hosts[0], i.alive("s", 1, i.address(), aboutNode(t, "t", "", 1), spoken)) },
			"too much about itself": func() {
				i.send(hosts[0], i.alive("s", 1, i.address(), append(aboutNode(t, "s", "", 1), noise[:600]...), spoken))
			},
		} {
			before := hosts[0].m.Stats()
			attack()
			time.Sleep(time.Second)
			if now := hosts[0].m.Stats(); now.RefusedTraffic == before.RefusedTraffic && now.RefusedAlive == before.RefusedAlive {
				t.Errorf("%s is not counted", name)
			}
			if len(hosts[0].m.Snapshot().Members) != 3 {
				t.Errorf("%s was heard", name)
			}
		}
		sealed := i.labelled(i.seal(1, good, []byte(i.label)))
		for n := range sealed {
			i.sendRaw(hosts[1], sealed[:n])
			if n < len(good) {
				i.send(hosts[1], good[:n])
			}
			time.Sleep(time.Millisecond)
		}
		whole := i.labelled(i.sealStream(1, i.userMessage([]byte{kindNotices, 1, 2, 3})))
		for n := range whole {
			i.streamRaw(hosts[1], whole[:n])
		}
		for n := range 40 {
			i.streamRaw(hosts[1], i.labelled(append([]byte{typeEncrypted, 0, 0, 0, byte(n)}, noise[:n]...)))
		}
		for range 3000 {
			for n := range noise {
				noise[n] = byte(random.Uint32())
			}
			part := noise[:random.IntN(len(noise))]
			switch random.IntN(4) {
			case 0:
				i.sendRaw(hosts[2], part)
			case 1:
				i.send(hosts[2], part)
			case 2:
				i.send(hosts[2], append([]byte{byte(random.IntN(13))}, part...))
			default: // a real message, damaged
				b := bytes.Clone(good)
				b[random.IntN(len(b))] ^= byte(1 << random.IntN(8))
				i.send(hosts[2], b)
			}
			time.Sleep(5 * time.Millisecond)
		}
		time.Sleep(5 * time.Minute) // strangers that damage made are gone
	})
}

func folded(t *testing.T, b []byte) []byte {
	t.Helper()
	var small bytes.Buffer
	w := lzw.NewWriter(&small, lzw.LSB, 8)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return small.Bytes()
}

func TestMessagesOfNoUse(t *testing.T) {
	attacked(t, 63, func(t *testing.T, f *testFleet, i *intruder, hosts []*testHost) {
		a := hosts[0]
		forged := i.old[1]
		forged.Entry += 1000
		unsigned := a.m.Stats().Roster.Unsigned
		for _, n := range append(i.old, forged) {
			i.send(a, append([]byte{typeUser, kindNotices}, encodeNotice(n)...))
		}
		time.Sleep(time.Second)
		if s := a.m.Stats().Roster; s.Unsigned != unsigned+1 || s.Stale < uint64(len(i.old)) {
			t.Errorf("%+v", s)
		}
		malformed := a.m.Stats().Malformed
		random := rand.New(rand.NewPCG(63, 0))
		for range 500 {
			b := make([]byte, 1+random.IntN(1200))
			for n := range b {
				b[n] = byte(random.Uint32())
			}
			b[0] = byte(random.IntN(20))
			i.send(a, append([]byte{typeUser}, b...))
			time.Sleep(10 * time.Millisecond)
		}
		large := make([]byte, maxBulk+1)
		for _, kind := range []byte{kindNotices, kindConflict, kindSummary, kindUser, 99} {
			large[0] = kind
			i.stream(a, i.userMessage(large))
			i.stream(a, i.userMessage(large[:maxBulk]))
		}
		for _, h := range []hello{
			{node: "stranger", addr: i.address(), keys: []string{"k"}},
			{node: hosts[1].name, addr: i.address(), keys: slices.Repeat([]string{"k"}, 100)},
			{node: hosts[1].name, addr: i.address(), keys: []string{string(large)}},
			{node: hosts[1].name, addr: netip.AddrPortFrom(netip.IPv6LinkLocalAllNodes().WithZone(string(large[:1<<20])), 1)},
		} {
			time.Sleep(time.Second)
			before := a.m.Stats().Malformed
			b := encodeHello(h)
			i.stream(a, i.pushPull(0, len(b), nil, b))
			time.Sleep(time.Second)
			if refused := a.m.Stats().Malformed > before; refused != (h.node != "stranger") {
				t.Errorf("a hello of %d bytes: refused %t", len(b), refused)
			}
		}
		time.Sleep(10 * time.Second)
		s := a.m.Stats()
		t.Logf("%d malformed, %d traffic refused, %d dropped", s.Malformed-malformed, s.RefusedTraffic, s.DroppedReceived)
		if s.Malformed < malformed+300 {
			t.Errorf("%+v", s)
		}
		for queued := len(a.m.Messages()); queued > 0; queued-- {
			if b := <-a.m.Messages(); len(b) > packetSize {
				t.Fatalf("a broadcast of %d bytes", len(b))
			}
		}
	})
}

func TestThousandsOfNames(t *testing.T) {
	attacked(t, 64, func(t *testing.T, _ *testFleet, i *intruder, hosts []*testHost) {
		most := 0
		for n := range 20_000 {
			name := fmt.Sprint("stranger-", n)
			i.send(hosts[0], i.alive(name, 1, i.address(), aboutNode(t, name, "x:1", 1), spoken))
			if n%50 == 49 {
				time.Sleep(50 * time.Millisecond)
				for dead := n - 49; dead <= n; dead++ { // they make no room for others
					i.send(hosts[0], i.dead(fmt.Sprint("stranger-", dead), 1, "x"))
				}
				time.Sleep(50 * time.Millisecond)
				most = max(most, len(hosts[0].m.Snapshot().Members), len(hosts[1].m.Snapshot().Members))
			}
		}
		t.Logf("at most %d hosts were known, %d were turned away", most, hosts[0].m.Stats().TurnedAway)
		if most > maxStrangers+3 || hosts[0].m.Stats().TurnedAway < 19_900 {
			t.Errorf("%d hosts are known: %+v", most, hosts[0].m.Stats())
		}
		time.Sleep(10 * time.Minute)
		if n := len(hosts[0].m.Snapshot().Members); n != 3 {
			t.Errorf("%d hosts are still known", n)
		}
	})
}

// failedFor measures in how many of many looks a host was not alive for another one.
func failedFor(hosts []*testHost, name string, during time.Duration, every func()) (failed time.Duration) {
	const step = 20 * time.Millisecond
	for begun := time.Now(); time.Since(begun) < during; time.Sleep(step) {
		every()
		for _, h := range hosts {
			if h.m != nil && h.name != name && !h.member(name).Alive {
				failed += step / time.Duration(len(hosts)-1)
			}
		}
	}
	return failed
}

func TestALiveHostIsNotTalkedDead(t *testing.T) {
	for n, storm := range []struct {
		name        string
		incarnation int // 0 is one above the last
		from        string
		every       time.Duration
		kind        func(i *intruder, node string, incarnation int, from string) []byte
	}{
		{"dead once", math.MaxUint32, "x", time.Hour, (*intruder).dead},
		{"dead again and again", 0, "x", 100 * time.Millisecond, (*intruder).dead},
		{"dead, of the last incarnation there is", math.MaxUint32, "x", 100 * time.Millisecond, (*intruder).dead},
		{"left again and again", 0, "host-02", 100 * time.Millisecond, (*intruder).dead},
		{"suspect again and again", 0, "x", 20 * time.Millisecond, (*intruder).suspect},
		{"suspect, of the last incarnation there is", math.MaxUint32, "x", 100 * time.Millisecond, (*intruder).suspect},
	} {
		t.Run(storm.name, func(t *testing.T) {
			attacked(t, 70+uint64(n), func(t *testing.T, f *testFleet, i *intruder, hosts []*testHost) {
				victim, incarnation, last := hosts[2].name, 10, time.Time{}
				failed := failedFor(hosts, victim, 2*time.Minute, func() {
					if time.Since(last) < storm.every {
						return
					}
					last = time.Now()
					accused := storm.incarnation
					if accused == 0 {
						incarnation += 5
						accused = incarnation
					}
					for _, h := range hosts[:2] {
						i.send(h, storm.kind(i, victim, accused, storm.from))
					}
				})
				t.Logf("failed for %v of two minutes; %d times memberlist had it dead", failed, hosts[0].m.Stats().FalseDeaths)
				if failed > 0 {
					t.Error("others believe whoever has the gossip key")
				}
			})
		})
	}
}

func TestAHostThatDiesInAStormIsFailed(t *testing.T) {
	attacked(t, 80, func(t *testing.T, f *testFleet, i *intruder, hosts []*testHost) {
		victim := hosts[2]
		storm := func() {
			for _, h := range hosts[:2] {
				i.send(h, i.dead(victim.name, math.MaxUint32, "x"))
			}
		}
		failedFor(hosts, victim.name, time.Minute, storm)
		victim.stop()
		begun := time.Now()
		failedFor(hosts, victim.name, 3*time.Second, storm)
		if hosts[0].member(victim.name).Alive || hosts[1].member(victim.name).Alive {
			t.Errorf("it is alive %v after it died", time.Since(begun))
		}
		victim.start(hosts[0])
	})
}

// TestALiveHostIsNotMovedAway has the whole trick: dead, a second later alive at the intruder's address.
func TestALiveHostIsNotMovedAway(t *testing.T) {
	attacked(t, 81, func(t *testing.T, f *testFleet, i *intruder, hosts []*testHost) {
		victim := hosts[2]
		incarnation, moved := 100, 0
		for range 60 {
			incarnation += 10
			for _, h := range hosts[:2] {
				i.send(h, i.dead(victim.name, incarnation, "x"))
			}
			time.Sleep(reclaimAfter + 10*time.Millisecond)
			for _, h := range hosts[:2] {
				i.send(h, i.alive(victim.name, incarnation+1, i.address(), aboutNode(t, victim.name, "6.6.6.6:1", 1<<40), spoken))
			}
			time.Sleep(500 * time.Millisecond)
			for _, h := range hosts[:2] {
				if h.member(victim.name).Gossip.String() != victim.address() {
					moved++
				}
			}
		}
		if moved > 0 {
			t.Errorf("it was believed %d times", moved)
		}
	})
}

func TestManyStreamsAtOnce(t *testing.T) {
	attacked(t, 83, func(t *testing.T, f *testFleet, i *intruder, hosts []*testHost) {
		a := hosts[0]
		before := allocated()
		begin := i.labelled(i.sealStream(1, i.pushPull(1<<20, 0, nil, nil)))
		for range 20 {
			for range 10 {
				c, err := i.transport.DialTimeout(a.address(), time.Second)
				if err != nil {
					continue
				}
				_, _ = c.Write(begin)
				time.AfterFunc(time.Minute, func() { _ = c.Close() })
			}
			time.Sleep(50 * time.Millisecond)
		}
		took, refused := (allocated()-before)>>20, a.m.Stats().RefusedTraffic
		t.Logf("200 streams that announce a million hosts each: %d MB, %d refused", took, refused)
		if took > 100 || refused < 200 {
			t.Error("memberlist would take 30,000 MB")
		}
		for range 3 * maxStreams { // and say nothing
			c, err := i.transport.DialTimeout(a.address(), time.Second)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
		}
		time.Sleep(time.Second)
		if now := a.m.Stats().RefusedTraffic; now < refused+2*maxStreams {
			t.Errorf("%d streams may be open", 3*maxStreams-(now-refused))
		}
		time.Sleep(2 * time.Minute)
		if !hosts[1].sees(hosts...) {
			t.Error("it cost a host its life")
		}
	})
}
