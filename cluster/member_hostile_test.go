package cluster

import (
	"bytes"
	"testing"
	"time"
)

func TestAnIntruderIsHeardByMemberlist(t *testing.T) {
	inFleet(t, 60, func(t *testing.T, f *testFleet) {
		f.keyed()
		hosts := f.addMany(3)
		f.within(10*time.Second, "three agree", func() bool { return agree(hosts...) })
		i := f.intruder(1)
		i.send(hosts[0], i.alive("stranger", 1, i.address(), aboutNode(t, "stranger", "x:1", 1), spoken))
		i.stream(hosts[1], i.userMessage([]byte{kindUser, 'x'}))
		time.Sleep(time.Second)
		if m := hosts[0].member("stranger"); !m.Alive || m.Listed {
			t.Errorf("the test does not speak memberlist's language: %+v", m)
		}
		if got := <-hosts[1].m.Messages(); string(got) != "x" {
			t.Errorf("%q", got)
		}
	})
}

func TestAPacketThatMemberlistPanicsAt(t *testing.T) {
	inFleet(t, 61, func(t *testing.T, f *testFleet) {
		f.keyed()
		hosts := f.addMany(2)
		f.within(10*time.Second, "two agree", func() bool { return agree(hosts...) })
		i := f.intruder(1)
		a := hosts[0]
		i.sendRaw(a, i.labelled(i.seal(0, bytes.Repeat([]byte{255}, 16), []byte(i.label))))
		time.Sleep(time.Second)
	})
}
func TestAStreamThatMemberlistPanicsAt(t *testing.T) {
	inFleet(t, 61, func(t *testing.T, f *testFleet) {
		f.keyed()
		hosts := f.addMany(2)
		f.within(10*time.Second, "two agree", func() bool { return agree(hosts...) })
		i := f.intruder(1)
		a := hosts[0]
		i.streamRaw(a, i.labelled(i.sealStream(1, nil)))
		time.Sleep(time.Second)
	})
}
