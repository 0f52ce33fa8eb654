package cluster

import (
	"bytes"
	"compress/lzw"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"io"
)

// memberlist believes what a stream says of its own size: a hundred bytes, encrypted with the right key, make it reserve 150 MB for
// a million hosts, or unfold to 40 MB. So what comes over a stream is opened here first, and refused when it says more than it has.

// Types of memberlist's messages.
const (
	messagePushPull   = 6
	messageUser       = 8
	messageCompressed = 9
	messageEncrypted  = 10
	messageLabel      = 244
)

const (
	// maxStream bounds a message over a stream, as it is and unfolded. The state of 10,000 hosts has 3 MB.
	maxStream = 8 << 20
	// leastState is less than what one host in an exchange of states can have.
	leastState = 32
	// emptyEncrypted is the length of nothing, encrypted: version, nonce and tag.
	emptyEncrypted = 1 + 12 + 16
)

var errRefusedStream = errors.New("it is refused: no host of the fleet sends that")

// openSealed decrypts what memberlist encrypted; false when none of the keys does.
func openSealed(keys [][]byte, sealed, authenticated []byte) ([]byte, bool) {
	for _, key := range keys {
		block, err := aes.NewCipher(key)
		if err != nil {
			continue
		}
		gcm, err := cipher.NewGCM(block)
		if err != nil {
			continue
		}
		if plain, err := gcm.Open(nil, sealed[1:13], sealed[13:], authenticated); err == nil {
			return plain, true
		}
	}
	return nil, false
}

// affordable refuses a message that would cost more than its size.
func affordable(message []byte) error {
	if len(message) == 0 {
		return errRefusedStream
	}
	if message[0] == messageCompressed {
		var err error
		if message, err = unfold(message[1:]); err != nil {
			return err
		}
	}
	p := &packed{rest: message[1:]}
	switch message[0] {
	case messagePushPull:
		said := p.numbers("Nodes", "UserStateLen", "Join")
		if p.bad || said[0] > len(p.rest)/leastState || said[1] > len(p.rest) {
			return errRefusedStream
		}
	case messageUser:
		if said := p.numbers("UserMsgLen"); p.bad || said[0] > len(p.rest) {
			return errRefusedStream
		}
	}
	return nil
}

func unfold(b []byte) ([]byte, error) {
	p := &packed{rest: b}
	folded := p.compressed()
	if p.bad {
		return nil, errRefusedStream
	}
	r := lzw.NewReader(bytes.NewReader(folded), lzw.LSB, 8)
	defer r.Close()
	var message bytes.Buffer
	if n, err := io.Copy(&message, io.LimitReader(r, maxStream+1)); err != nil || n == 0 || n > maxStream {
		return nil, errRefusedStream
	}
	return message.Bytes(), nil
}

// packed reads msgpack. What is written as memberlist does not write it is bad.
type packed struct {
	rest []byte
	bad  bool
}

func (p *packed) take(n int) []byte {
	if p.bad || n < 0 || n > len(p.rest) {
		p.bad = true
		return make([]byte, min(max(n, 0), 8))
	}
	b := p.rest[:n]
	p.rest = p.rest[n:]
	return b
}

// fields reads the head of a map.
func (p *packed) fields(n int) {
	if p.take(1)[0] != 0x80|byte(n) {
		p.bad = true
	}
}

func (p *packed) name() string {
	first := p.take(1)[0]
	if first&0xe0 != 0xa0 {
		p.bad = true
	}
	return string(p.take(int(first & 0x1f)))
}

// numbers reads a map of them, and true or false, in any order.
func (p *packed) numbers(names ...string) []int {
	values := make([]int, len(names))
	p.fields(len(names))
	for range names {
		name, value, known := p.name(), p.number(), false
		for i := range names {
			if names[i] == name {
				values[i], known = value, true
			}
		}
		p.bad = p.bad || !known
	}
	return values
}

func (p *packed) number() int {
	switch first := p.take(1)[0]; {
	case first < 0x80:
		return int(first)
	case first == 0xc2 || first == 0xc3:
		return int(first & 1)
	case first >= 0xcc && first <= 0xce:
		return int(p.unsigned(1 << (first - 0xcc)))
	case first >= 0xd0 && first <= 0xd2: // signed, and never negative
		size := 1 << (first - 0xd0)
		if n := p.unsigned(size); n>>(8*size-1) == 0 {
			return int(n)
		}
	}
	p.bad = true
	return 0
}

func (p *packed) unsigned(size int) uint64 {
	var b [8]byte
	copy(b[8-size:], p.take(size))
	return binary.BigEndian.Uint64(b[:])
}

// compressed reads memberlist's compress, of the only algorithm there is.
func (p *packed) compressed() (folded []byte) {
	p.fields(2)
	for range 2 {
		switch p.name() {
		case "Algo":
			p.bad = p.bad || p.number() != 0
		case "Buf":
			folded = p.bytes()
		default:
			p.bad = true
		}
	}
	return folded
}

func (p *packed) bytes() []byte {
	switch first := p.take(1)[0]; {
	case first&0xe0 == 0xa0:
		return p.take(int(first & 0x1f))
	case first >= 0xd9 && first <= 0xdb:
		return p.take(int(p.unsigned(1 << (first - 0xd9))))
	case first >= 0xc4 && first <= 0xc6:
		return p.take(int(p.unsigned(1 << (first - 0xc4))))
	}
	p.bad = true
	return nil
}
