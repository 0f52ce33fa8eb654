package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
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

// Orphans are the keys of objects that no other host takes: their origin's certificate was revoked, or is of an authority that the
// fleet has no more, or they were never signed.
func (s *Store) Orphans() []string {
	var keys []string
	for _, o := range s.orphans() {
		keys = append(keys, o.Key)
	}
	return keys
}

func (s *Store) orphans() []Object {
	if s.seal == nil {
		return nil
	}
	believed := s.seal.believes()
	return slices.DeleteFunc(s.All(), believed)
}

// Believed says whether there is an object, and other hosts take it, see Orphans.
func (s *Store) Believed(key string) bool {
	o, ok := s.Get(key)
	return ok && (s.seal == nil || s.seal.believes()(o))
}

// reconsider keeps orphans out of what is compared and told: they would be offered, and refused, for ever.
func (s *Store) reconsider() {
	orphans := map[string]Object{}
	for _, o := range s.orphans() {
		orphans[o.Key] = o
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, o := range s.objects {
		orphan, out := orphans[key]
		_, _, in := s.sketch.find(key)
		switch {
		case in && out && bytes.Equal(orphan.Signature, o.Signature): // else it was written anew meanwhile
			s.sketch.remove(key)
		case !in && !out:
			s.sketch.put(itemOf(o))
		}
	}
}

// offered is an object that is compared and told.
func (s *Store) offered(key string) (Object, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, _, in := s.sketch.find(key)
	o, ok := s.objects[key]
	return o, ok && in
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

// believes says whether other hosts take an object that is here. Its signature was checked when it came: what may have changed since
// is what its signer's certificate is worth, and there are fewer certificates than objects.
func (s *Seal) believes() func(Object) bool {
	worth := map[string]bool{}
	return func(o Object) bool {
		if len(o.Signature) == 0 {
			return false
		}
		believed, known := worth[string(o.Credential)]
		if !known {
			by, err := s.Auth.Verify(o.Credential, o.signedPart(s.Fleet), o.Signature)
			believed = err == nil && (s.Revoked == nil || !s.Revoked(by.Node, by.Issued))
			worth[string(o.Credential)] = believed
		}
		return believed
	}
}
