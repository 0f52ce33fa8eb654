package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// A status on the wire:
//
//	format 1 | node | unit | sequence | body | signature
//
// The sequence is a varint; what varies in length has its length before it. What is signed is all before the signature, after the
// fleet's name.
const statusFormat = 1

const signedStatus = "picket status\x00"

func (s Status) signedPart(fleet string) []byte {
	return s.appendClaim(appendBytes([]byte(signedStatus), fleet))
}

func (s Status) appendClaim(b []byte) []byte {
	b = append(b, statusFormat)
	b = appendBytes(b, s.Node)
	b = appendBytes(b, s.Unit)
	b = binary.AppendUvarint(b, s.Sequence)
	return appendBytes(b, s.Body)
}

func (s Status) encode() []byte {
	b := s.appendClaim(make([]byte, 0, 96+len(s.Node)+len(s.Unit)+len(s.Body)))
	return appendBytes(b, s.Signature)
}

// decodeStatus reads one status that fills b; it shares no memory with b.
func decodeStatus(b []byte) (Status, error) {
	if len(b) == 0 || b[0] != statusFormat {
		return Status{}, errors.New("the status has an unknown format")
	}
	r := &fields{rest: b[1:]}
	s := Status{Node: string(r.bytes()), Unit: string(r.bytes()), Sequence: r.uvarint()}
	s.Body, s.Signature = bytes.Clone(r.bytes()), bytes.Clone(r.bytes())
	if r.bad || len(r.rest) > 0 {
		return Status{}, errors.New("the status' fields do not fill it")
	}
	return s, s.check()
}

// check refuses what no host says.
func (s Status) check() error {
	switch {
	case s.Node == "" || len(s.Node) > maxNameLength:
		return errors.New("it has no node, or a name that is too long")
	case checkName(s.Node) != nil, checkName(s.Unit) != nil:
		return errors.New("its names are not text")
	case s.Sequence > maxSequence:
		return fmt.Errorf("its sequence is %d", s.Sequence)
	case len(s.Unit) > maxUnit:
		return fmt.Errorf("its unit has %d bytes; %d is the most", len(s.Unit), maxUnit)
	case len(s.Body) > MaxStatus:
		return fmt.Errorf("it has %d bytes; %d is the most", len(s.Body), MaxStatus)
	case len(s.Signature) > maxSignatureLength:
		return errors.New("its signature is too long")
	}
	return nil
}
