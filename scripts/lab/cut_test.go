package lab

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// mailbox takes datagrams at a host.
type mailbox struct {
	fixture
	host *Host
	conn net.PacketConn
}

func (f fixture) mailbox(h *Host) *mailbox {
	f.t.Helper()
	m := &mailbox{f, h, nil}
	f.must(h.Inside(func() (err error) {
		m.conn, err = net.ListenPacket("udp4", h.Address.String()+":7")
		return err
	}))
	f.t.Cleanup(func() { m.conn.Close() })
	return m
}

// send sends one datagram to another mailbox.
func (m *mailbox) send(to *mailbox, text string) {
	m.t.Helper()
	_, err := m.conn.WriteTo([]byte(text), to.conn.LocalAddr())
	m.must(err)
}

// read is what arrived first and was not read yet.
func (m *mailbox) read() string {
	m.t.Helper()
	b := make([]byte, 100)
	m.must(m.conn.SetReadDeadline(time.Now().Add(10 * time.Second)))
	n, _, err := m.conn.ReadFrom(b)
	m.must(err)
	return string(b[:n])
}

// mailboxes is a lab whose hosts run nothing but a mailbox each.
func mailboxes(t *testing.T, n int) (fixture, []*mailbox) {
	t.Helper()
	f := newLab(t, n)
	var m []*mailbox
	for _, h := range f.Hosts {
		f.must(h.plug())
		h.plugged = true
		m = append(m, f.mailbox(h))
	}
	return f, m
}

// What is cut is lost, and only that. One datagram does not overtake another: a second that arrives alone tells that the first was lost.
func TestCuts(t *testing.T) {
	f, m := mailboxes(t, 3)
	same := func(*Lab) error { return nil }
	for _, test := range []struct {
		name string
		cut  func(l *Lab) error
		lost string // who sends to whom in vain
	}{
		{"nothing", same, ""},
		{"one way", func(l *Lab) error { return l.Cut(l.Hosts[0], l.Hosts[1]) }, "0>1"},
		{"the same again", func(l *Lab) error { return l.Cut(l.Hosts[0], l.Hosts[1]) }, "0>1"},
		{"both ways", func(l *Lab) error { return l.CutBoth(l.Hosts[0], l.Hosts[1]) }, "0>1 1>0"},
		{"one way mended", func(l *Lab) error { return l.Mend(l.Hosts[0], l.Hosts[1]) }, "1>0"},
		{"healed", (*Lab).Heal, ""},
		{"two sides", func(l *Lab) error { return l.Partition(l.Hosts[:2], l.Hosts[2:]) }, "0>2 1>2 2>0 2>1"},
		{"alone", func(l *Lab) error { return l.Isolate(l.Hosts[1]) }, "0>1 0>2 1>0 1>2 2>0 2>1"},
		{"by another process", func(l *Lab) error {
			other, err := Open(l.Dir)
			if err != nil {
				return err
			}
			return other.MendBoth(other.Hosts[2], other.Hosts[0])
		}, "0>1 1>0 1>2 2>1"},
		{"all lost", func(l *Lab) error { return l.Drop(l.Hosts[2], 100) }, "0>1 0>2 1>0 1>2 2>0 2>1"},
		{"no loss", func(l *Lab) error { return l.Drop(l.Hosts[2], 0) }, "0>1 1>0 1>2 2>1"},
		{"healed again", (*Lab).Heal, ""},
	} {
		f.must(test.cut(f.Lab))
		if lost := f.lost(m); lost != test.lost {
			t.Fatalf("%s: lost %q, want %q", test.name, lost, test.lost)
		}
	}
}

// lost sends one datagram on every way and lists those that did not arrive.
func (f fixture) lost(m []*mailbox) string {
	f.t.Helper()
	var ways []string
	for to := range m {
		for from := range m {
			if from == to {
				continue
			}
			way := string(rune('0'+from)) + ">" + string(rune('0'+to))
			m[from].send(m[to], way)
			m[to].send(m[to], "end")
			if m[to].read() != way {
				ways = append(ways, way)
			} else if end := m[to].read(); end != "end" {
				f.t.Fatalf("%s: then %q", way, end)
			}
		}
	}
	// In the order of who sends.
	var sorted []string
	for from := range m {
		for _, way := range ways {
			if strings.HasPrefix(way, string(rune('0'+from))) {
				sorted = append(sorted, way)
			}
		}
	}
	return strings.Join(sorted, " ")
}

// Some of what a host sends and gets is lost.
func TestDrop(t *testing.T) {
	f, m := mailboxes(t, 2)
	f.must(f.Drop(f.Hosts[0], 50))
	for _, way := range [][2]*mailbox{{m[0], m[1]}, {m[1], m[0]}} {
		arrived := 0
		for range 200 {
			way[0].send(way[1], "x")
			way[1].send(way[1], "end")
			for way[1].read() == "x" {
				arrived++
			}
		}
		if arrived < 60 || arrived > 140 { // 5.6 standard deviations
			t.Errorf("from %s to %s, %d of 200 arrived with a loss of 50 %%", way[0].host.Name, way[1].host.Name, arrived)
		}
	}
}

// What is delayed arrives, not before its time, and in its order unless there is jitter.
func TestDelay(t *testing.T) {
	f, m := mailboxes(t, 2)
	const wait, n = 50 * time.Millisecond, 100
	exchange := func() (took time.Duration, order []string) {
		began := time.Now()
		for i := range n {
			m[0].send(m[1], fmt.Sprintf("%02d", i))
		}
		for i := range n {
			order = append(order, m[1].read())
			if i == 0 {
				took = time.Since(began)
			}
		}
		return took, order
	}
	f.must(f.Delay(f.Hosts[1], wait, 0))
	if took, order := exchange(); took < wait || !slices.IsSorted(order) {
		t.Errorf("delayed by %s: the first arrived after %s, all in the order %s", wait, took, order)
	}
	f.must(f.Delay(f.Hosts[1], wait, wait))
	if took, order := exchange(); took < wait || slices.IsSorted(order) {
		t.Errorf("delayed by %s to %s: the first arrived after %s, all in the order %s", wait, 2*wait, took, order)
	}
	m[1].send(m[0], "back")
	if got := m[0].read(); got != "back" {
		t.Errorf("what is not delayed: %q", got)
	}

	f.must(m[1].conn.Close())
	f.must(f.Hosts[1].Crash())
	f.must(f.Hosts[1].plug())
	f.Hosts[1].plugged = true
	m[1] = f.mailbox(f.Hosts[1])
	if took, _ := exchange(); took < wait {
		t.Errorf("after a power cut, the first arrived after %s", took)
	}
	f.must(f.Heal())
	if f.Hosts[1].queue != nil {
		t.Error("healed, packets are still delayed")
	}
	if _, order := exchange(); !slices.IsSorted(order) {
		t.Errorf("healed: %s", order)
	}
}
