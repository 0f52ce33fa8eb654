package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/hashicorp/memberlist"
)

const metaFormat = 1

// meta is what a host tells of itself with every sign of life: nothing that grows, for memberlist panics above 512 bytes.
type meta struct {
	node        string
	api         string // host:port of its API
	incarnation uint64 // of this life of the agent
}

// encodeMeta fails when it would be too large.
func encodeMeta(m meta) ([]byte, error) {
	b := binary.AppendUvarint([]byte{metaFormat}, m.incarnation)
	b = appendBytes(b, m.node)
	b = appendBytes(b, m.api)
	if len(b)+binary.MaxVarintLen64 > memberlist.MetaMaxSize { // the incarnation may grow
		return nil, fmt.Errorf("the names of the node and of its API have %d bytes: %d is the most", len(m.node)+len(m.api), memberlist.MetaMaxSize-2*binary.MaxVarintLen64)
	}
	return b, nil
}

// decodeMeta lets what follows be: a newer picketd may say more.
func decodeMeta(b []byte) (meta, error) {
	if len(b) == 0 || b[0] != metaFormat {
		return meta{}, errors.New("what the host says of itself is of another format")
	}
	r := &fields{rest: b[1:]}
	m := meta{incarnation: r.uvarint(), node: string(r.bytes()), api: string(r.bytes())}
	if r.bad {
		return meta{}, errors.New("what the host says of itself is cut off")
	}
	return m, nil
}
