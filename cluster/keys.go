package cluster

import (
	"bytes"
	"fmt"
	"slices"
	"sync"

	"github.com/hashicorp/memberlist"
	"github.com/picketd/picket/cluster/pki"
)

// maxKeys bounds what a host may say of its keys.
const maxKeys = 16

func hasKey(keys [][]byte, key []byte) bool {
	return slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, key) })
}

func fingerprints(keys [][]byte) []string {
	var all []string
	for _, key := range keys {
		all = append(all, pki.Fingerprint(key))
	}
	return all
}

// keyring is memberlist's, which changes while it is in use. It is nil without encryption. Nothing of it is kept on disk but the
// administrator's file: a copy could win over it.
type keyring struct {
	mu   sync.Mutex // one change at a time
	ring *memberlist.Keyring
}

func newKeyring(keys [][]byte) (*keyring, error) {
	ring, err := memberlist.NewKeyring(keys, keys[0])
	if err != nil {
		return nil, fmt.Errorf("cannot use the gossip keys: %w", err)
	}
	return &keyring{ring: ring}, nil
}

func (k *keyring) fingerprints() []string {
	if k == nil {
		return nil
	}
	return fingerprints(k.ring.GetKeys())
}

// replace makes the ring hold exactly these keys, in this order.
//
// memberlist reads the ring while it changes, and its RemoveKey moves what lies behind the key in the very memory that is being
// read. So what goes is brought to the end first, by using what stays, last one first; for an instant a key may encrypt that is
// not the first, and a packet may be lost.
func (k *keyring) replace(keys [][]byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, key := range keys {
		if err := k.ring.AddKey(key); err != nil {
			return fmt.Errorf("cannot use the gossip keys: %w", err)
		}
	}
	if slices.EqualFunc(k.ring.GetKeys(), keys, bytes.Equal) {
		return nil
	}
	for _, key := range slices.Backward(keys) {
		if err := k.ring.UseKey(key); err != nil {
			return fmt.Errorf("cannot use the gossip keys: %w", err)
		}
	}
	for _, key := range slices.Backward(slices.Clone(k.ring.GetKeys())) {
		if hasKey(keys, key) {
			continue
		}
		if err := k.ring.RemoveKey(key); err != nil {
			return fmt.Errorf("cannot drop a gossip key: %w", err)
		}
	}
	return nil
}
