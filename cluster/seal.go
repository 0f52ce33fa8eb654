package cluster

import (
	"errors"
	"fmt"
)

// Seal gives objects the signature of the host that wrote them, and tells those that may not have been written by who signed them.
type Seal struct {
	Fleet string
	Auth  Authenticator
	// Permit says whether a host may write an object; nil permits doors everything and others nothing.
	Permit func(s Signer, key string) error
	// Revoked says whether what was signed with a host's certificate, by the beginning of its validity, is not taken any more.
	Revoked func(node string, issued int64) bool
}

// NotPermittedError is a write that this host may not make.
type NotPermittedError struct{ Reason string }

func (e *NotPermittedError) Error() string { return e.Reason }

// SealWith makes the store sign what is written here from now on. It is called before the first write.
func (s *Store) SealWith(seal *Seal) { s.seal = seal }

// Resign writes an object that is there again as this host's own, in the next generation and with the same content: its origin is
// no longer believed, or never signed it.
func (s *Store) Resign(key string) ([]Object, error) {
	o, ok := s.Get(key)
	if !ok {
		return nil, fmt.Errorf("cannot sign object %q: it is not there", key)
	}
	return s.PutAll([]Write{{Key: key, Body: o.Body, Hash: o.Version.Hash, Content: o.Content, Deleted: o.Deleted, Author: o.Author}})
}

// Orphans are the keys of objects that no other host takes: their origin's certificate was revoked, or they were never signed.
func (s *Store) Orphans() []string {
	if s.seal == nil {
		return nil
	}
	var keys []string
	for _, o := range s.All() {
		if len(o.Signature) == 0 || s.seal.revoked(o) {
			keys = append(keys, o.Key)
		}
	}
	return keys
}

func (s *Seal) permit(by Signer, key string) error {
	if s.Permit != nil {
		return s.Permit(by, key)
	}
	if !by.Door {
		return &NotPermittedError{Reason: fmt.Sprintf("%s is no door and may not write %s", by.Node, key)}
	}
	return nil
}

// sign completes an object that is written here. Without a seal it stays unsigned.
func (s *Seal) sign(o *Object) error {
	if s == nil {
		return nil
	}
	var permitted error
	signature, err := s.Auth.Sign(func(self Signer, credential []byte) []byte {
		permitted = s.permit(self, o.Key)
		o.Origin, o.Credential = self.Node, credential
		return o.signedPart(s.Fleet)
	})
	if err := errors.Join(permitted, err); err != nil {
		return fmt.Errorf("cannot write object %q: %w", o.Key, err)
	}
	o.Signature = signature
	return nil
}

// check says why an object of another host is not to be merged.
func (s *Seal) check(o Object) error {
	by, err := s.Auth.Verify(o.Credential, o.signedPart(s.Fleet), o.Signature)
	switch {
	case err != nil:
		return err
	case by.Node != o.Origin:
		return fmt.Errorf("it is signed by %s, not by its origin %s", by.Node, o.Origin)
	case s.Revoked != nil && s.Revoked(by.Node, by.Issued):
		return fmt.Errorf("%s, which signed it, was deleted", by.Node)
	}
	return s.permit(by, o.Key)
}

func (s *Seal) revoked(o Object) bool {
	if s.Revoked == nil {
		return false
	}
	by, err := s.Auth.Verify(o.Credential, o.signedPart(s.Fleet), o.Signature)
	return err == nil && s.Revoked(by.Node, by.Issued)
}
