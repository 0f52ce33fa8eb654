package cluster

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// A notice on the wire and on disk:
//
//	format 1 | state 1 | entry | node | by | fingerprint 32 | issued | at | API | credential | signature
//
// The entry and the time are varints; what varies in length has its length before it. What is signed is all before the credential, after the
// fleet's name.
const noticeFormat = 2

const signedRoster = "picket roster notice\x00"

// signedPart is what a notice's signature is of. The fleet's name keeps notices out of another fleet with the same authority.
func (n Notice) signedPart(fleet string) []byte {
	b := appendBytes([]byte(signedRoster), fleet)
	return n.appendClaim(b)
}

func (n Notice) appendClaim(b []byte) []byte {
	b = append(b, noticeFormat, byte(n.State))
	b = binary.AppendUvarint(b, n.Entry)
	b = appendBytes(b, n.Node)
	b = appendBytes(b, n.By)
	b = append(b, n.Fingerprint[:]...)
	b = binary.AppendVarint(b, n.Issued)
	at, _ := n.At.MarshalBinary() // it never fails
	b = appendBytes(b, at)
	return appendBytes(b, n.API)
}

func encodeNotice(n Notice) []byte {
	b := n.appendClaim(make([]byte, 0, 64+len(n.Node)+len(n.By)+len(n.Credential)+len(n.Signature)))
	b = appendBytes(b, n.Credential)
	return appendBytes(b, n.Signature)
}

// takeNotice reads one notice and leaves what follows. The notice shares no memory with what it was read from.
func takeNotice(r *fields) (Notice, error) {
	head := r.take(2)
	if r.bad {
		return Notice{}, errors.New("the notice is cut off")
	}
	if head[0] != noticeFormat {
		return Notice{}, fmt.Errorf("the notice has format %d: it was written by a newer picketd", head[0])
	}
	n := Notice{State: RosterState(head[1]), Entry: r.uvarint(), Node: string(r.bytes()), By: string(r.bytes())}
	copy(n.Fingerprint[:], r.take(uint64(len(n.Fingerprint))))
	n.Issued = r.varint()
	unread := n.At.UnmarshalBinary(r.bytes())
	n.API = string(r.bytes())
	n.Credential = bytes.Clone(r.bytes())
	n.Signature = bytes.Clone(r.bytes())
	if r.bad || unread != nil || len(n.Credential) > maxCredentialLength || len(n.Signature) > maxSignatureLength {
		return Notice{}, errors.New("the notice's fields do not fit")
	}
	return n, nil
}

func decodeNotices(b []byte) ([]Notice, error) {
	r := &fields{rest: b}
	var notices []Notice
	for len(r.rest) > 0 {
		n, err := takeNotice(r)
		if err != nil {
			return nil, err
		}
		notices = append(notices, n)
	}
	return notices, nil
}

// mark stands for a notice in a summary of a roster.
type mark [8]byte

func (n Notice) mark() mark {
	sum := sha256.Sum256(encodeNotice(n))
	return mark(sum[:len(mark{})])
}

func decodeMarks(b []byte) (map[mark]bool, error) {
	if len(b)%len(mark{}) != 0 {
		return nil, errors.New("the summary of a roster is cut off")
	}
	marks := map[mark]bool{}
	for ; len(b) > 0; b = b[len(mark{}):] {
		marks[mark(b)] = true
	}
	return marks, nil
}
