package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/hashicorp/memberlist"
)

const metaFormat = 2

// meta is what a host tells of itself with every sign of life: nothing that grows, for memberlist panics above 512 bytes.
type meta struct {
	node        string
	api         string // host:port of its API
	incarnation uint64 // of this life of the agent
	at          netip.AddrPort
	// signature is of the rest, with the certificate of the host's own notice in the roster: member_proof.go.
	signature string
}

const signedMember = "picket member\x00"

// signedPart is what a meta's signature is of. The fleet's name keeps it out of another fleet with the same authority.
func (m meta) signedPart(fleet string) []byte {
	return m.appendClaim(appendBytes([]byte(signedMember), fleet))
}

func (m meta) appendClaim(b []byte) []byte {
	at, _ := m.at.MarshalBinary() // it never fails
	b = binary.AppendUvarint(append(b, metaFormat), m.incarnation)
	b = appendBytes(b, m.node)
	b = appendBytes(b, m.api)
	return appendBytes(b, at)
}

// encodeMeta fails when it would be too large.
func encodeMeta(m meta) ([]byte, error) {
	b := appendBytes(m.appendClaim(nil), m.signature)
	if len(b)+binary.MaxVarintLen64 > memberlist.MetaMaxSize { // the incarnation may grow
		return nil, fmt.Errorf("the names of the node and of its API have %d bytes, which is %d too many", len(m.node)+len(m.api), len(b)+binary.MaxVarintLen64-memberlist.MetaMaxSize)
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
	at := r.bytes()
	m.signature = string(r.bytes())
	if r.bad || m.at.UnmarshalBinary(at) != nil {
		return meta{}, errors.New("what the host says of itself is cut off")
	}
	return m, nil
}
