package cluster

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net/netip"
)

// RosterState is where a host stands in the fleet; the later ones win at the same entry (ROLLOUT.md, Vocabulary).
type RosterState uint8

// The states of hosts.
const (
	RosterMember RosterState = iota
	RosterReaped
	RosterLeft
	RosterDeleted
)

func (s RosterState) String() string {
	if int(s) < len(rosterStates) {
		return rosterStates[s]
	}
	return fmt.Sprintf("state %d", uint8(s))
}

var rosterStates = [...]string{"member", "reaped", "left", "deleted"}

// Notice is one signed word about a host. Which host may say what:
//
//   - member, left: the host itself;
//   - reaped: any host, about any; the host says member again when it hears of it;
//   - deleted, and member about another host, which is an admission: doors.
type Notice struct {
	Node  string
	Entry uint64
	State RosterState
	// Fingerprint is of the host's certificate, by its own word; in a deletion, of the one it had. Else it is zero.
	Fingerprint [32]byte
	// Issued is the beginning of that certificate's validity, in Unix seconds by the clock of whoever made it. A deletion refuses
	// all certificates of the host that are not newer.
	Issued int64
	// At is where the host is reached by gossip and API, host:port, where its API is, by its own word.
	At         netip.AddrPort
	API        string
	By         string // the node that signed
	Credential []byte // what others check the signature with: the signer's certificate
	Signature  []byte
}

// The voices about a host are kept apart, so that none of them can take back what only another may. What a host said with an older
// certificate is another voice too, which is kept while it is above what the host says with its newest.
const (
	voiceSelf = iota
	voicePeers
	voiceDoors
	voiceFormer
	voices
)

// voice is voiceSelf for all that a host says of itself: a word tells former ones apart.
func (n Notice) voice() int {
	switch {
	case n.State == RosterReaped:
		return voicePeers
	case n.State == RosterDeleted, n.State == RosterMember && n.By != n.Node:
		return voiceDoors
	}
	return voiceSelf
}

// above is a total order: the higher entry, the higher state, and then any order that all hosts share.
func (n Notice) above(o Notice) bool {
	if c := cmp.Or(cmp.Compare(n.Entry, o.Entry), cmp.Compare(n.State, o.State)); c != 0 {
		return c > 0
	}
	return bytes.Compare(encodeNotice(n), encodeNotice(o)) > 0
}

// outdates orders what a host says of itself: first the newer certificate, so that whoever has an old one cannot outbid it.
func (n Notice) outdates(o Notice) bool {
	if n.Issued != o.Issued && n.Entry > 0 && o.Entry > 0 {
		return n.Issued > o.Issued
	}
	return n.above(o)
}

// word is the highest notice of every voice about one host. An entry of 0 is no notice.
type word [voices]Notice

// merge takes in a notice. It is pure, commutative, associative and idempotent.
func (w word) merge(n Notice) (word, bool) {
	v := n.voice()
	switch {
	case n.Entry == 0:
		return w, false
	case v == voiceSelf:
		return w.mergeSelf(n)
	case !n.above(w[v]):
		return w, false
	}
	w[v] = n
	return w, true
}

// mergeSelf keeps two of all that a host has said of itself: the last with its newest certificate, and the highest, unless it is no
// higher than that.
func (w word) mergeSelf(n Notice) (word, bool) {
	self, former := w[voiceSelf], w[voiceFormer]
	switch {
	case n.outdates(self):
		w[voiceSelf] = n
		if self.precedes(former) {
			w[voiceFormer] = self
		}
	case n.precedes(former) && n.place().Compare(self.place()) > 0:
		w[voiceFormer] = n
	default:
		return w, false
	}
	if w[voiceFormer].place().Compare(w[voiceSelf].place()) <= 0 {
		w[voiceFormer] = Notice{}
	}
	return w, true
}

func (n Notice) place() Standing { return Standing{Entry: n.Entry, State: n.State} }

// precedes orders former words: the higher entry and state, and of equals the newer certificate.
func (n Notice) precedes(o Notice) bool {
	if c := n.place().Compare(o.place()); c != 0 {
		return c > 0
	}
	return n.outdates(o)
}

// highest is the highest entry that anybody spoke of.
func (w word) highest() uint64 {
	var entry uint64
	for _, n := range w {
		entry = max(entry, n.Entry)
	}
	return entry
}

// Standing is what a roster says of one host.
type Standing struct {
	Node  string
	Entry uint64
	State RosterState
	// Fingerprint is of the host's certificate, by its own word; while it is deleted, of the one it had.
	Fingerprint [32]byte
}

// Compare orders the standings of one host. Merging never takes one down, but that
//
//   - the end of a deletion may leave another state at the same entry, when whoever ended it had not heard all; the host then raises
//     its entry;
//   - what was said with a certificate after the host was deleted with it counts no more once the host is back with a newer one: the
//     entry may fall to what the host itself says, which is above that of the deletion. Only whoever has the old certificate says such
//     things, and it changes nothing again.
func (s Standing) Compare(o Standing) int {
	return cmp.Or(cmp.Compare(s.Entry, o.Entry), cmp.Compare(s.State, o.State))
}

// standing is the highest notice; a deletion holds until a door admits the host or it comes with a newer certificate.
func (w word) standing(node string) Standing {
	s := Standing{Node: node, Fingerprint: w[voiceSelf].Fingerprint}
	for v, n := range w {
		if v == voiceFormer && w.formerIsRefused() {
			continue
		}
		if n.Entry > 0 && n.State != RosterDeleted && s.Compare(n.place()) < 0 {
			s.Entry, s.State = n.Entry, n.State
		}
	}
	if d := w[voiceDoors]; d.State == RosterDeleted && w.deletionHolds() {
		s.Entry, s.State, s.Fingerprint = max(s.Entry, d.Entry), RosterDeleted, d.Fingerprint
	}
	return s
}

func (w word) deletionHolds() bool {
	self, d := w[voiceSelf], w[voiceDoors]
	return self.Entry <= d.Entry || self.Issued <= d.Issued
}

// formerIsRefused says whether the former word is of a certificate that the host was deleted with, and the host has come back with a
// newer one.
func (w word) formerIsRefused() bool {
	d := w[voiceDoors]
	return d.State == RosterDeleted && !w.deletionHolds() && w[voiceFormer].Issued <= d.Issued
}

// Bounds of what a notice may hold. A DNS name has at most 253 bytes, an ed25519 host certificate about 500.
const (
	maxNameLength       = 253
	maxAPILength        = maxNameLength + len(":65535")
	maxCredentialLength = 4096
	maxSignatureLength  = 128
)

// check refuses what no host can have said, whoever signed it. known is the highest entry so far.
func (n Notice) check(known uint64) error {
	switch {
	case n.Node == "" || len(n.Node) > maxNameLength || n.By == "" || len(n.By) > maxNameLength:
		return errors.New("it has no name, or one that is too long")
	case len(n.API) > maxAPILength:
		return errors.New("its API has an address that is too long")
	case n.State > RosterDeleted:
		return fmt.Errorf("it has %s", n.State)
	case n.Entry == 0:
		return errors.New("it has entry 0")
	case n.Entry > known && n.Entry-known > maxAhead:
		return fmt.Errorf("its entry %d is more than 2^32 above %d, which is known", n.Entry, known)
	case n.State == RosterLeft && n.By != n.Node:
		return fmt.Errorf("%s says that %s has left", n.By, n.Node)
	}
	return nil
}

// checkSigner refuses what the signer may not say.
func (n Notice) checkSigner(s Signer) error {
	switch {
	case s.Node != n.By:
		return fmt.Errorf("it is signed by %s, not by %s", s.Node, n.By)
	case n.voice() == voiceSelf && (s.Fingerprint != n.Fingerprint || s.Issued != n.Issued):
		return errors.New("it is signed with another certificate than it speaks of")
	case n.voice() == voiceDoors && !s.Door:
		return fmt.Errorf("%s is no door and says that %s is %s", n.By, n.Node, n.State)
	}
	return nil
}
