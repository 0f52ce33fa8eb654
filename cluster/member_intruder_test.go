package cluster

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/picketd/picket/cluster/clustertest"
)

// intruder has the gossip key and no certificate. It writes memberlist's messages itself, byte by byte, true or false ones.
type intruder struct {
	t         *testing.T
	transport *clustertest.Transport
	key       []byte // nil is no encryption
	label     string
	old       []Notice // what was told before
}

func (f *testFleet) intruder(key byte) *intruder {
	f.t.Helper()
	transport, err := f.net.Host("intruder").Transport(9745)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = transport.Shutdown() })
	i := &intruder{t: f.t, transport: transport, label: "fleet"}
	if key != 0 {
		i.key = bytes.Repeat([]byte{key}, 32)
	}
	return i
}

// keyed gives every host of a fleet the gossip key 1.
func (f *testFleet) keyed() {
	path := keyPath(f.t, 1)
	f.change = func(c *MembershipConfig) { c.Gossip.KeyFile = path }
}

// The types of memberlist's messages, and what it puts before a label.
const (
	typePing = iota
	typeIndirectPing
	typeAck
	typeSuspect
	typeAlive
	typeDead
	typePushPull
	typeCompound
	typeUser
	typeCompress
	typeEncrypted
	typeNack
	typeLabel = 244
)

// pack writes a map of msgpack: names and values in turn.
func pack(kind byte, fields ...any) []byte {
	b := []byte{kind, 0x80 | byte(len(fields)/2)}
	for n, f := range fields {
		switch v := f.(type) {
		case string:
			if n%2 == 0 {
				b = append(append(b, 0xa0|byte(len(v))), v...)
				continue
			}
			b = append(binary.BigEndian.AppendUint16(append(b, 0xda), uint16(len(v))), v...)
		case []byte:
			b = append(binary.BigEndian.AppendUint32(append(b, 0xdb), uint32(len(v))), v...)
		case int:
			if v>>32 == 0 {
				b = binary.BigEndian.AppendUint32(append(b, 0xce), uint32(v))
				continue
			}
			b = binary.BigEndian.AppendUint64(append(b, 0xd3), uint64(v))
		case bool:
			b = append(b, 0xc2)
			if v {
				b[len(b)-1] = 0xc3
			}
		}
	}
	return b
}

// seal encrypts as memberlist does; version 0 is its old way, with padding, of which an intruder may put anything at the end.
func (i *intruder) seal(version byte, plain, authenticated []byte) []byte {
	block, err := aes.NewCipher(i.key)
	if err != nil {
		i.t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		i.t.Fatal(err)
	}
	nonce := make([]byte, 12)
	return append(append([]byte{version}, nonce...), gcm.Seal(nil, nonce, plain, authenticated)...)
}

func (i *intruder) labelled(b []byte) []byte {
	if i.label == "" {
		return b
	}
	return append(append([]byte{typeLabel, byte(len(i.label))}, i.label...), b...)
}

// send puts a message into a packet for a host.
func (i *intruder) send(to *testHost, message []byte) {
	if i.key != nil {
		message = i.seal(1, message, []byte(i.label))
	}
	i.sendRaw(to, i.labelled(message))
}

func (i *intruder) sendRaw(to *testHost, packet []byte) {
	i.t.Helper()
	if _, err := i.transport.WriteTo(packet, to.address()); err != nil {
		i.t.Fatal(err)
	}
}

// stream sends a message over a stream, and returns when the host has closed it.
func (i *intruder) stream(to *testHost, message []byte) {
	i.t.Helper()
	if i.key != nil {
		message = i.sealStream(1, message)
	}
	i.streamRaw(to, i.labelled(message))
}

func (i *intruder) sealStream(version byte, plain []byte) []byte {
	length := 1 + 12 + len(plain) + 16
	head := binary.BigEndian.AppendUint32([]byte{typeEncrypted}, uint32(length))
	return append(head, i.seal(version, plain, append(bytes.Clone(head), i.label...))...)
}

func (i *intruder) streamRaw(to *testHost, b []byte) {
	i.t.Helper()
	c, err := i.transport.DialTimeout(to.address(), time.Second)
	if err != nil {
		i.t.Fatal(err)
	}
	defer c.Close()
	_, _ = c.Write(b)
	_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
	for buffer := make([]byte, 64<<10); ; {
		if _, err := c.Read(buffer); err != nil {
			return
		}
	}
}

// spoken are the versions that memberlist speaks.
var spoken = []byte{1, 5, 2, 0, 0, 0}

// alive is a sign of life in the name of a host.
func (i *intruder) alive(node string, incarnation int, at netip.AddrPort, about []byte, versions []byte) []byte {
	return pack(typeAlive, "Incarnation", incarnation, "Node", node, "Addr", at.Addr().AsSlice(), "Port", int(at.Port()), "Meta", about, "Vsn", versions)
}

func (i *intruder) dead(node string, incarnation int, from string) []byte {
	return pack(typeDead, "Incarnation", incarnation, "Node", node, "From", from)
}

func (i *intruder) suspect(node string, incarnation int, from string) []byte {
	return pack(typeSuspect, "Incarnation", incarnation, "Node", node, "From", from)
}

func (i *intruder) address() netip.AddrPort { return netip.MustParseAddrPort(i.transport.Address()) }

// pushPull is a whole exchange of states: the header may lie.
func (i *intruder) pushPull(nodes, stateLength int, states [][]byte, user []byte) []byte {
	b := pack(typePushPull, "Nodes", nodes, "UserStateLen", stateLength, "Join", true)
	for _, s := range states {
		b = append(b, s[1:]...)
	}
	return append(b, user...)
}

// state is one host of a pushPull: alive.
func (i *intruder) state(node string, incarnation int, at netip.AddrPort, about []byte) []byte {
	return pack(0, "Name", node, "Addr", at.Addr().AsSlice(), "Port", int(at.Port()), "Meta", about, "Incarnation", incarnation, "State", 0, "Vsn", spoken)
}

// userMessage is one over a stream.
func (i *intruder) userMessage(b []byte) []byte {
	return append(pack(typeUser, "UserMsgLen", len(b)), b...)
}

// aboutNode is what a host says of itself.
func aboutNode(t *testing.T, node, api string, incarnation uint64) []byte {
	t.Helper()
	b, err := encodeMeta(meta{node: node, api: api, incarnation: incarnation})
	if err != nil {
		t.Fatal(err)
	}
	return b
}
