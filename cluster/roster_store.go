package cluster

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go.etcd.io/bbolt"
)

var bucketRoster = []byte("roster") // voice 1, node -> notice, checksum 4

// errOlderCertificate is for a person: an older file was put in the place of a newer one.
var errOlderCertificate = errors.New("this host's certificate is older than one that the fleet knows of it: " +
	"put the newer one in place, or make a new one with picket pki host")

// Authenticator signs for this host and checks what others signed.
type Authenticator interface {
	// Self is this host as its certificate names it now.
	Self() (Signer, error)
	// Sign asks for the message once it is settled whose it is, so that a certificate that is being replaced cannot come between.
	Sign(message func(self Signer, credential []byte) []byte) (signature []byte, err error)
	// Verify says who signed, by the credential that came along. It must not depend on this host's clock.
	Verify(credential, message, signature []byte) (Signer, error)
}

// Signer is a host as its certificate names it.
type Signer struct {
	Node        string
	Door        bool
	Fingerprint [32]byte // of the certificate
	Issued      int64    // the beginning of its validity, Unix seconds
}

// Roster is every host that ever was in the fleet and where it stands: notices, merged to the highest. It is in memory and in a
// bbolt file, and what it returns is on disk. Any goroutine may call its methods.
type Roster struct {
	db    *bbolt.DB
	fleet string
	auth  Authenticator

	writing sync.Mutex // held for a whole change; taken before mu
	at      netip.AddrPort
	api     string // at and api are where this host is; under writing
	mu      sync.RWMutex
	hosts   map[string]word
	digest  [32]byte
	damaged []error
}

// Refusals count notices that were not taken.
type Refusals struct {
	Stale     uint64 // known already, or older than what is known
	Malformed uint64
	Unsigned  uint64 // not signed by whom they must be
}

// OpenRoster reads the roster. Notices on disk that cannot be read are left out: others tell them again. See Damaged.
func OpenRoster(db *bbolt.DB, fleet string, auth Authenticator) (*Roster, error) {
	r := &Roster{db: db, fleet: fleet, auth: auth, hosts: map[string]word{}}
	err := db.Update(func(tx *bbolt.Tx) error {
		bucket, err := tx.CreateBucketIfNotExists(bucketRoster)
		if err != nil {
			return err
		}
		return bucket.ForEach(r.load)
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read the roster in %s: %w", db.Path(), err)
	}
	r.digest = digestOf(r.hosts)
	return r, nil
}

func (r *Roster) load(k, v []byte) error {
	n, err := decodeKept(k, v)
	if err != nil {
		r.damaged = append(r.damaged, fmt.Errorf("the roster's record %q: %w", k, err))
		return nil
	}
	w, _ := r.hosts[n.Node].merge(n)
	r.hosts[n.Node] = w
	return nil
}

func rosterKey(voice int, node string) []byte { return append([]byte{byte(voice)}, node...) }

func encodeKept(key []byte, n Notice) []byte {
	b := encodeNotice(n)
	return binary.BigEndian.AppendUint32(b, recordSum(string(key), b))
}

func decodeKept(key, b []byte) (Notice, error) {
	end := len(b) - sumLength
	if end < 0 || recordSum(string(key), b[:end]) != binary.BigEndian.Uint32(b[end:]) {
		return Notice{}, errors.New("its checksum is wrong")
	}
	r := &fields{rest: b[:end]}
	n, err := takeNotice(r)
	if err == nil && len(r.rest) > 0 {
		err = errors.New("something follows the notice")
	}
	return n, err
}

// Merge takes in what others say. changed are the notices that were new, which are on disk now and worth telling on; refused
// counts the others. After an error nothing has changed.
func (r *Roster) Merge(notices []Notice) (changed []Notice, refused Refusals, err error) {
	r.writing.Lock()
	defer r.writing.Unlock()
	words := map[string]word{}
	for _, n := range notices {
		w, known := words[n.Node]
		if !known {
			w = r.word(n.Node)
		}
		w, added := r.admit(w, n, &refused)
		if added {
			words[n.Node] = w
			changed = append(changed, n)
		}
	}
	if err := r.commit(words); err != nil {
		return nil, refused, err
	}
	return changed, refused, nil
}

// admit merges a notice whose signature is right. What is not new is not worth checking.
func (r *Roster) admit(w word, n Notice, refused *Refusals) (word, bool) {
	if err := n.check(w.highest()); err != nil {
		refused.Malformed++
		return w, false
	}
	merged, added := w.merge(n)
	if !added {
		refused.Stale++
		return w, false
	}
	signer, err := r.auth.Verify(n.Credential, n.signedPart(r.fleet), n.Signature)
	if err == nil {
		err = n.checkSigner(signer)
	}
	if err != nil {
		refused.Unsigned++
		return w, false
	}
	return merged, true
}

// commit makes words durable and then shows them.
func (r *Roster) commit(words map[string]word) error {
	if len(words) == 0 {
		return nil
	}
	err := r.db.Update(func(tx *bbolt.Tx) error {
		for node, w := range words {
			if err := write(tx.Bucket(bucketRoster), node, r.word(node), w); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("cannot write the roster to %s: %w", r.db.Path(), err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.Copy(r.hosts, words)
	r.digest = digestOf(r.hosts)
	return nil
}

// write writes what is new in a word.
func write(bucket *bbolt.Bucket, node string, old, w word) error {
	for voice, n := range w {
		key := rosterKey(voice, node)
		switch {
		case n.Entry == 0 && old[voice].Entry > 0:
			if err := bucket.Delete(key); err != nil {
				return err
			}
		case n.Entry > 0 && n.mark() != old[voice].mark():
			if err := bucket.Put(key, encodeKept(key, n)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Say signs a notice of this host's about node and keeps it. The entry of what is said of this host itself, and of an admission,
// is above all that is known of the host; a reaping or a deletion speaks of the entry that is known. The error is errOlderCertificate
// when others have heard this host with a newer certificate.
func (r *Roster) Say(node string, state RosterState) (Notice, error) {
	r.writing.Lock()
	defer r.writing.Unlock()
	w := r.word(node)
	n := Notice{Node: node, State: state, Entry: w.highest()}
	var self Signer
	signature, err := r.auth.Sign(func(s Signer, credential []byte) []byte {
		self, n.By, n.Credential = s, s.Node, credential
		switch {
		case n.voice() == voiceSelf:
			n.Fingerprint, n.Issued, n.At, n.API = s.Fingerprint, s.Issued, r.at, r.api
			n.Entry++
		case state == RosterMember:
			n.Entry++
		case state == RosterDeleted:
			n.Fingerprint, n.Issued = w[voiceSelf].Fingerprint, max(w[voiceSelf].Issued, w[voiceDoors].Issued)
		}
		return n.signedPart(r.fleet)
	})
	if err == nil {
		n.Signature = signature
		err = errors.Join(n.check(w.highest()), n.checkSigner(self))
	}
	if err == nil && n.voice() == voiceSelf && n.Issued < w[voiceSelf].Issued {
		err = errOlderCertificate
	}
	if err != nil {
		return Notice{}, fmt.Errorf("cannot say that %s is %s: %w", node, state, err)
	}
	merged, added := w.merge(n)
	if !added {
		return w[n.voice()], nil
	}
	return n, r.commit(map[string]word{node: merged})
}

// locate settles where this host says that it is, from its next word on.
func (r *Roster) locate(at netip.AddrPort, api string) {
	r.writing.Lock()
	defer r.writing.Unlock()
	r.at, r.api = at, api
}

func (r *Roster) word(node string) word {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.hosts[node]
}

// Standing returns where a host stands; false when it was never in the fleet.
func (r *Roster) Standing(node string) (Standing, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	w, ok := r.hosts[node]
	return w.standing(node), ok
}

// All returns every host's standing, sorted by name.
func (r *Roster) All() []Standing {
	r.mu.RLock()
	defer r.mu.RUnlock()
	all := make([]Standing, 0, len(r.hosts))
	for _, node := range slices.Sorted(maps.Keys(r.hosts)) {
		all = append(all, r.hosts[node].standing(node))
	}
	return all
}

// Refused says whether a host's certificate, by the beginning of its validity, is one that the host was deleted with or older.
func (r *Roster) Refused(node string, issued time.Time) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	d := r.hosts[node][voiceDoors]
	return d.State == RosterDeleted && d.Entry > 0 && issued.Unix() <= d.Issued
}

// Digest is equal for equal rosters.
func (r *Roster) Digest() [32]byte {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.digest
}

// Damaged lists what could not be read when the roster was opened.
func (r *Roster) Damaged() []error { return r.damaged }

// notices are all, sorted by node and voice.
func (r *Roster) notices() []Notice {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return noticesOf(r.hosts)
}

func noticesOf(hosts map[string]word) []Notice {
	var all []Notice
	for _, node := range slices.Sorted(maps.Keys(hosts)) {
		for _, n := range hosts[node] {
			if n.Entry > 0 {
				all = append(all, n)
			}
		}
	}
	return all
}

func digestOf(hosts map[string]word) [32]byte {
	sum := sha256.New()
	for _, n := range noticesOf(hosts) {
		sum.Write(encodeNotice(n))
	}
	return [32]byte(sum.Sum(nil))
}

// summary is the marks of all notices: what another host needs to see what this one lacks.
func (r *Roster) summary() []byte {
	var b []byte
	for _, n := range r.notices() {
		m := n.mark()
		b = append(b, m[:]...)
	}
	return b
}

// lacking are the notices that a host with this summary does not have.
func (r *Roster) lacking(has map[mark]bool) []Notice {
	return slices.DeleteFunc(r.notices(), func(n Notice) bool { return has[n.mark()] })
}
