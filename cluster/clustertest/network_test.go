package clustertest

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// listen makes a machine with one transport.
func listen(t *testing.T, n *Network, name string) *Transport {
	t.Helper()
	tr, err := n.Host(name).Transport(9745)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tr.Shutdown() })
	return tr
}

// received takes all packets that have arrived.
func received(t *Transport) []byte {
	var all []byte
	for {
		select {
		case p := <-t.packets:
			all = append(all, p.Buf[0])
		default:
			return all
		}
	}
}

func sendAll(t *testing.T, from, to *Transport, count int) {
	t.Helper()
	for i := range count {
		if _, err := from.WriteTo([]byte{byte(i)}, to.Address()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPacketsArriveAfterTheDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork(1)
		a, b := listen(t, n, "a"), listen(t, n, "b")
		n.SetFaults(Faults{Delay: 10 * time.Millisecond})
		sendAll(t, a, b, 3)
		time.Sleep(9 * time.Millisecond)
		synctest.Wait()
		if got := received(b); len(got) != 0 {
			t.Fatalf("%v arrived early", got)
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		got := received(b)
		slices.Sort(got)
		if !bytes.Equal(got, []byte{0, 1, 2}) {
			t.Fatalf("got %v", got)
		}
	})
}

func TestFaultsLoseDoubleAndReorder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork(7)
		a, b := listen(t, n, "a"), listen(t, n, "b")
		n.SetFaults(Faults{Loss: 0.2, Duplicate: 0.2, Reorder: 0.5, ReorderBy: time.Second})
		for range 200 {
			sendAll(t, a, b, 1)
			time.Sleep(time.Millisecond)
		}
		time.Sleep(2 * time.Second)
		c := n.Counts()
		if c.Sent != 200 || c.Lost < 20 || c.Lost > 60 {
			t.Errorf("of 200 packets 20 %% should be lost: %+v", c)
		}
		if extra := c.Delivered - (c.Sent - c.Lost); extra < 15 || extra > 55 {
			t.Errorf("20 %% should come twice, %d did", extra)
		}
		received(b)
		for i := range 100 {
			if _, err := a.WriteTo([]byte{byte(i)}, b.Address()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(2 * time.Second)
		if got := received(b); slices.IsSorted(got) {
			t.Error("nothing was reordered")
		}
	})
}

func TestAFullHostDropsAndNeverBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork(1)
		a, b := listen(t, n, "a"), listen(t, n, "b")
		sendAll(t, a, b, packetBuffer+100)
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if c := n.Counts(); c.Delivered != packetBuffer || c.Overflow != 100 {
			t.Errorf("%+v", c)
		}
	})
}

func TestCutIsOneWayAndPartitionBoth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork(1)
		a, b := listen(t, n, "a"), listen(t, n, "b")
		arrives := func(from, to *Transport) bool {
			sendAll(t, from, to, 1)
			time.Sleep(time.Millisecond)
			synctest.Wait()
			return len(received(to)) == 1
		}
		n.Cut("a", "b")
		if arrives(a, b) || !arrives(b, a) {
			t.Error("a cut from a to b should leave b to a")
		}
		n.Mend("a", "b")
		if !arrives(a, b) {
			t.Error("it was mended")
		}
		n.Partition([]string{"a"}, []string{"b"})
		if arrives(a, b) || arrives(b, a) {
			t.Error("a partition is both ways")
		}
		n.Heal()
		if !arrives(a, b) || !arrives(b, a) {
			t.Error("it was healed")
		}
		old := b.Address()
		b.host.Unplug()
		if arrives(a, b) {
			t.Error("b has no plug")
		}
		if again := listen(t, n, "b"); again.Address() == old || !arrives(a, again) {
			t.Error("b should be back with another address")
		}
	})
}

// accept echoes one stream.
func accept(t *Transport) {
	select {
	case c := <-t.streams:
		io.Copy(c, c)
		c.Close()
	case <-t.closed:
	}
}

func TestStreamsCarryMoreThanTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork(1)
		n.SetFaults(Faults{Loss: 0.5, Delay: time.Millisecond, Jitter: 5 * time.Millisecond})
		a, b := listen(t, n, "a"), listen(t, n, "b")
		go accept(b)
		c, err := a.DialTimeout(b.Address(), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		sent := bytes.Repeat([]byte("0123456789abcdef"), 3*windowSize/16)
		go func() { c.Write(sent) }()
		got := make([]byte, len(sent))
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("what came back is not what was sent: %v", err)
		}
	})
}

func TestStreamDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork(1)
		a, b := listen(t, n, "a"), listen(t, n, "b")
		go accept(b)
		c, err := a.DialTimeout(b.Address(), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		begun := time.Now()
		c.SetReadDeadline(begun.Add(3 * time.Second))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begun) != 3*time.Second {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
		var timeout net.Error
		if _, err := c.Read(make([]byte, 1)); !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("%v is no time-out", err)
		}
		c.SetReadDeadline(time.Time{})
		go func() {
			time.Sleep(time.Second)
			c.SetReadDeadline(time.Unix(1, 0)) // how net/http ends a read
		}()
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
	})
}

func TestStreamsWaitForACutToBeMended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork(1)
		a, b := listen(t, n, "a"), listen(t, n, "b")
		go accept(b)
		c, err := a.DialTimeout(b.Address(), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		n.Cut("a", "b")
		c.Write([]byte("x"))
		c.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		n.Heal()
		c.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Error("the byte should have come after the heal:", err)
		}
	})
}

func TestDialing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork(1)
		a, b := listen(t, n, "a"), listen(t, n, "b")
		refused := func() bool {
			_, err := a.DialTimeout(b.Address(), time.Second)
			return err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
		}
		n.Cut("b", "a")
		begun := time.Now()
		if _, err := a.DialTimeout(b.Address(), time.Second); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begun) != time.Second {
			t.Errorf("a cut link: %v after %v", err, time.Since(begun))
		}
		if _, err := a.DialTimeout("10.9.9.9:1", time.Second); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("nobody there: %v", err)
		}
		n.Heal()
		c, err := a.DialTimeout(b.Address(), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		b.Shutdown()
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("the stream of a host that went down should be reset")
		}
		c.Close()
		if !refused() {
			t.Error("nobody listens any more")
		}
	})
}
