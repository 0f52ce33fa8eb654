package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What is delayed waits in the kernel, in a queue of netfilter's (nfnetlink_queue) of the host's namespace, until we let it go: not
// every kernel has netem, and this needs no driver and no library.

// lag is for how long packets wait: wait, and up to jitter more.
type lag struct{ wait, jitter time.Duration }

// Delay holds back what arrives at a host from others, each packet for a time and at random up to jitter longer, which lets packets
// overtake each other. 0 and 0 end it.
func (l *Lab) Delay(to *Host, wait, jitter time.Duration) error {
	if l.lock == nil {
		return errForeign // with this process the delay would end
	}
	to.mu.Lock()
	defer to.mu.Unlock()
	to.lag = lag{wait, jitter}
	return to.applyLag()
}

// applyLag makes the host's queue what its lag says.
func (h *Host) applyLag() error {
	if err := h.endLag(); err != nil || h.lag == (lag{}) {
		return err
	}
	err := h.Inside(func() (err error) {
		h.queue, err = openQueue()
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot delay what reaches %s: %w", h.Name, err)
	}
	go h.queue.serve(h.lag)
	// With nobody at the queue, packets pass.
	return run(h.Namespace, exec.Command(tool("iptables"), "--wait", "-t", "mangle", "-A", "PREROUTING", "-i", "eth0", "-j", "NFQUEUE", "--queue-num", "0", "--queue-bypass"))
}

func (h *Host) endLag() error {
	if h.queue == nil {
		return nil
	}
	err := run(h.Namespace, exec.Command(tool("iptables"), "--wait", "-t", "mangle", "-F", "PREROUTING"))
	err = errors.Join(err, h.queue.Close()) // what waits is lost
	h.queue = nil
	return err
}

// Of linux/netfilter/nfnetlink_queue.h.
const (
	queuePacket  = unix.NFNL_SUBSYS_QUEUE << 8
	queueVerdict = unix.NFNL_SUBSYS_QUEUE<<8 | 1
	queueConfig  = unix.NFNL_SUBSYS_QUEUE<<8 | 2

	attrPacketHeader  = 1 // its number first
	attrVerdictHeader = 2
	attrConfigCommand = 1
	attrConfigParams  = 2
	attrConfigMaxLen  = 3

	commandBind  = 1
	copyMeta     = 1 // nothing of the packet itself
	accept       = 1
	queueLength  = 1 << 16
	nfgenmsgSize = 4 // between a message's header and its attributes
)

// queue is netfilter's queue 0 of a network namespace.
type queue struct{ *os.File }

// openQueue takes the queue of the namespace that the thread is in.
func openQueue() (*queue, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	q := &queue{os.NewFile(uintptr(fd), "nfqueue")}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20),
		q.send(queueConfig, unix.NLM_F_ACK, attrConfigCommand, []byte{commandBind, 0, 0, 0}))
	if err == nil {
		err = q.acknowledged()
	}
	if err == nil {
		err = errors.Join(
			q.send(queueConfig, 0, attrConfigParams, []byte{0, 0, 0, 0, copyMeta}),
			q.send(queueConfig, 0, attrConfigMaxLen, binary.BigEndian.AppendUint32(nil, queueLength)))
	}
	if err != nil {
		return nil, errors.Join(err, q.Close())
	}
	return q, nil
}

// acknowledged reads the kernel's answer to what was sent with NLM_F_ACK.
func (q *queue) acknowledged() error {
	messages, err := q.read(make([]byte, 1<<12))
	if err != nil {
		return err
	}
	for _, m := range messages {
		if m.Header.Type == unix.NLMSG_ERROR && len(m.Data) >= 4 {
			if code := int32(binary.NativeEndian.Uint32(m.Data)); code != 0 {
				return syscall.Errno(-code)
			}
		}
	}
	return nil
}

func (q *queue) read(b []byte) ([]syscall.NetlinkMessage, error) {
	n, err := q.Read(b)
	if err != nil {
		return nil, err
	}
	return syscall.ParseNetlinkMessage(b[:n])
}

// send sends a message with one attribute.
func (q *queue) send(kind uint16, flags uint16, attribute uint16, value []byte) error {
	length := unix.SizeofNlAttr + len(value)
	padded := (length + unix.NLA_ALIGNTO - 1) &^ (unix.NLA_ALIGNTO - 1)
	b := make([]byte, 0, unix.SizeofNlMsghdr+nfgenmsgSize+padded)
	b = binary.NativeEndian.AppendUint32(b, uint32(cap(b)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|flags)
	b = append(b, make([]byte, 8+nfgenmsgSize)...) // sequence and port; family, version and queue 0
	b = binary.NativeEndian.AppendUint16(b, uint16(length))
	b = binary.NativeEndian.AppendUint16(b, attribute)
	b = append(b, value...)
	_, err := q.Write(b[:cap(b)])
	return err
}

// serve lets every packet go when its time has come, until the queue is closed.
func (q *queue) serve(lag lag) {
	inOrder := make(chan packet, queueLength)
	defer close(inOrder)
	go func() {
		for p := range inOrder {
			time.Sleep(time.Until(p.due))
			q.release(p)
		}
	}()
	for b := make([]byte, 1<<16); ; {
		messages, err := q.read(b)
		if errors.Is(err, unix.ENOBUFS) {
			continue // some did not fit: lost
		}
		if err != nil {
			return // closed
		}
		for _, m := range messages {
			id, ok := packetOf(m)
			switch {
			case !ok:
			case lag.jitter == 0:
				inOrder <- packet{id, time.Now().Add(lag.wait)}
			default:
				time.AfterFunc(lag.wait+rand.N(lag.jitter), func() { q.release(packet{id: id}) })
			}
		}
	}
}

// packet is one that waits.
type packet struct {
	id  uint32
	due time.Time
}

// packetOf is the number of the packet that a message tells of.
func packetOf(m syscall.NetlinkMessage) (id uint32, ok bool) {
	const size = unix.SizeofNlAttr + 4
	if m.Header.Type != queuePacket || len(m.Data) < nfgenmsgSize+size {
		return 0, false
	}
	b := m.Data[nfgenmsgSize:] // the number comes first
	if binary.NativeEndian.Uint16(b[2:]) != attrPacketHeader {
		return 0, false
	}
	return binary.BigEndian.Uint32(b[unix.SizeofNlAttr:]), true
}

func (q *queue) release(p packet) {
	verdict := binary.BigEndian.AppendUint32(nil, accept)
	_ = q.send(queueVerdict, 0, attrVerdictHeader, binary.BigEndian.AppendUint32(verdict, p.id)) // closed: all are lost
}
