package cluster

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/picketd/picket/cluster/pki"
	"go.etcd.io/bbolt"
	"pgregory.net/rapid"
)

// plainKeys is an Authenticator whose credential is "door|node|issued|" and a public key; it believes all of it.
type plainKeys struct {
	mu   sync.Mutex
	self Signer
	key  ed25519.PrivateKey
}

func newPlainKeys(node string, door bool, salt string) *plainKeys {
	seed := sha256.Sum256([]byte(node + salt))
	k := &plainKeys{key: ed25519.NewKeyFromSeed(seed[:])}
	k.self, _ = plainSigner(k.credential(node, door))
	return k
}

func (k *plainKeys) credential(node string, door bool) []byte {
	return fmt.Appendf(nil, "%t|%s|%d|%s", door, node, k.self.Issued, k.key.Public())
}

// issue makes it a certificate of that time.
func (k *plainKeys) issue(at int64) {
	k.self.Issued = at
	k.self, _ = plainSigner(k.credential(k.self.Node, k.self.Door))
}

func plainSigner(credential []byte) (Signer, error) {
	parts := bytes.SplitN(credential, []byte("|"), 4) // the key may hold bars
	if len(parts) != 4 {
		return Signer{}, errors.New("no credential")
	}
	issued, err := strconv.ParseInt(string(parts[2]), 10, 64)
	return Signer{Node: string(parts[1]), Door: string(parts[0]) == "true", Fingerprint: sha256.Sum256(credential), Issued: issued}, err
}

// become is a new certificate in the place of the one there was.
func (k *plainKeys) become(o *plainKeys) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.self, k.key = o.self, o.key
}

func (k *plainKeys) Self() (Signer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.self, nil
}

func (k *plainKeys) Sign(message func(Signer, []byte) []byte) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return ed25519.Sign(k.key, message(k.self, k.credential(k.self.Node, k.self.Door))), nil
}

func (k *plainKeys) Verify(credential, message, signature []byte) (Signer, error) {
	s, err := plainSigner(credential)
	if err != nil {
		return Signer{}, err
	}
	key := bytes.SplitN(credential, []byte("|"), 4)[3]
	if len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, message, signature) {
		return Signer{}, errors.New("the signature is wrong")
	}
	return s, nil
}

func openRosterDB(t testing.TB) *bbolt.DB {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(t.TempDir(), "state.db"), 0o600, &bbolt.Options{NoSync: true, NoFreelistSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func openRoster(t *testing.T, db *bbolt.DB, auth Authenticator) *Roster {
	t.Helper()
	r, err := OpenRoster(db, "fleet", auth)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func newRoster(t *testing.T, auth Authenticator) *Roster { return openRoster(t, openRosterDB(t), auth) }

func say(t *testing.T, r *Roster, node string, state RosterState) Notice {
	t.Helper()
	n, err := r.Say(node, state)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func mergeAll(t *testing.T, r *Roster, notices ...Notice) Refusals {
	t.Helper()
	_, refused, err := r.Merge(notices)
	if err != nil {
		t.Fatal(err)
	}
	return refused
}

// drawNotice makes notices about one host, from few values so that they collide.
func drawNotice(t *rapid.T) Notice {
	n := Notice{
		Node:  "a",
		Entry: rapid.Uint64Range(1, 4).Draw(t, "entry"),
		State: RosterState(rapid.IntRange(0, int(RosterDeleted)).Draw(t, "state")),
		By:    rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "by"),
	}
	if n.State == RosterLeft {
		n.By = "a"
	}
	switch {
	case n.voice() == voiceSelf:
		n.Issued = rapid.Int64Range(1, 3).Draw(t, "issued")
	case n.State == RosterDeleted:
		n.Issued = int64(n.Entry) // a later deletion speaks of no older certificate
	}
	n.Signature = rapid.SliceOfN(rapid.ByteRange(0, 1), 0, 2).Draw(t, "signature")
	return n
}

func fold(w word, notices ...Notice) word {
	for _, n := range notices {
		w, _ = w.merge(n)
	}
	return w
}

// foldWords merges all that another host has.
func foldWords(a, b word) word { return fold(a, b[:]...) }

func encodeWord(w word) string {
	var s string
	for _, n := range w {
		s += string(encodeNotice(n)) + "\n"
	}
	return s
}

func TestRosterMergeIsAJoin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) word {
			return fold(word{}, rapid.SliceOfN(rapid.Custom(drawNotice), 0, 5).Draw(t, name)...)
		}
		a, b, c := draw("a"), draw("b"), draw("c")
		if encodeWord(foldWords(a, b)) != encodeWord(foldWords(b, a)) {
			t.Fatal("not commutative")
		}
		if encodeWord(foldWords(foldWords(a, b), c)) != encodeWord(foldWords(a, foldWords(b, c))) {
			t.Fatal("not associative")
		}
		if encodeWord(foldWords(a, a)) != encodeWord(a) {
			t.Fatal("not idempotent")
		}
		if own, former := a[voiceSelf], a[voiceFormer]; former.Entry > 0 && (former.place().Compare(own.place()) <= 0 || former.Issued >= own.Issued) {
			t.Fatalf("%+v is kept beside %+v", former, own)
		}
		for _, n := range foldWords(a, b) {
			if _, changed := foldWords(a, b).merge(n); changed {
				t.Fatal("what is known changes something")
			}
		}
	})
}

func TestRosterMergeTakesTheHigherEntryAndState(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// Without deletions and admissions the standing is simply the highest notice.
		notices := rapid.SliceOfN(rapid.Custom(drawNotice).Filter(func(n Notice) bool { return n.voice() != voiceDoors }), 1, 8).Draw(t, "notices")
		highest := slices.MaxFunc(notices, func(a, b Notice) int {
			return Standing{Entry: a.Entry, State: a.State}.Compare(Standing{Entry: b.Entry, State: b.State})
		})
		got := fold(word{}, notices...).standing("a")
		if got.Entry != highest.Entry || got.State != highest.State {
			t.Fatalf("%+v of %+v", got, notices)
		}
	})
}

// A host's word is that of its newest certificate, whatever was said with older ones and in which order it came.
func TestRosterTakesTheWordOfTheNewestCertificate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		notices := rapid.SliceOfN(rapid.Custom(drawNotice).Filter(func(n Notice) bool { return n.voice() == voiceSelf }), 1, 8).Draw(t, "notices")
		newest := slices.MaxFunc(notices, func(a, b Notice) int {
			return cmp.Or(cmp.Compare(a.Issued, b.Issued), cmp.Compare(a.Entry, b.Entry), cmp.Compare(a.State, b.State))
		})
		got := fold(word{}, notices...)[voiceSelf]
		if got.Issued != newest.Issued || got.Entry != newest.Entry || got.State != newest.State {
			t.Fatalf("%+v of %+v", got, notices)
		}
	})
}

func TestRosterOnlyGrows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		admits := func(n Notice) bool { return n.voice() == voiceDoors && n.State == RosterMember }
		notices := rapid.SliceOfN(rapid.Custom(drawNotice).Filter(func(n Notice) bool { return !admits(n) }), 1, 8).Draw(t, "notices")
		var w word
		for _, n := range notices {
			next, _ := w.merge(n)
			before, after := w.standing("a"), next.standing("a")
			ended := before.State == RosterDeleted && after.State != RosterDeleted
			// Whoever has the certificate with which the host was deleted said so.
			stolen := next.formerIsRefused() && next[voiceFormer].Entry == before.Entry
			if after.Entry < before.Entry && !stolen || after.Compare(before) < 0 && !ended && !stolen {
				t.Fatalf("%+v came after %+v", after, before)
			}
			w = next
		}
	})
}

func TestRosterStandings(t *testing.T) {
	self := func(entry uint64, state RosterState, issued int64) Notice {
		return Notice{Node: "a", By: "a", Entry: entry, State: state, Issued: issued}
	}
	other := func(entry uint64, state RosterState, issued int64) Notice {
		return Notice{Node: "a", By: "b", Entry: entry, State: state, Issued: issued}
	}
	for _, test := range []struct {
		name    string
		notices []Notice
		entry   uint64
		state   RosterState
	}{
		{"a member", []Notice{self(1, RosterMember, 1)}, 1, RosterMember},
		{"reaped", []Notice{self(1, RosterMember, 1), other(1, RosterReaped, 0)}, 1, RosterReaped},
		{"back after reaping", []Notice{self(1, RosterMember, 1), other(1, RosterReaped, 0), self(2, RosterMember, 1)}, 2, RosterMember},
		{"left beats reaped", []Notice{self(2, RosterLeft, 1), other(2, RosterReaped, 0)}, 2, RosterLeft},
		{"deleted", []Notice{self(2, RosterMember, 1), other(2, RosterDeleted, 1)}, 2, RosterDeleted},
		{"deleted beats left", []Notice{self(2, RosterLeft, 1), other(2, RosterDeleted, 1)}, 2, RosterDeleted},
		{"it cannot admit itself", []Notice{self(2, RosterMember, 1), other(2, RosterDeleted, 1), self(3, RosterMember, 1)}, 3, RosterDeleted},
		{"reaping does not admit it", []Notice{self(2, RosterMember, 1), other(2, RosterDeleted, 1), other(9, RosterReaped, 0), self(10, RosterMember, 1)}, 10, RosterDeleted},
		{"a door does", []Notice{self(2, RosterMember, 1), other(2, RosterDeleted, 1), other(3, RosterMember, 0)}, 3, RosterMember},
		{"a new certificate does", []Notice{self(2, RosterMember, 1), other(2, RosterDeleted, 1), self(3, RosterMember, 2)}, 3, RosterMember},
		{"an older certificate does not", []Notice{self(2, RosterMember, 2), other(2, RosterDeleted, 2), self(3, RosterMember, 1)}, 3, RosterDeleted},
		{"a new certificate with an old entry does not", []Notice{self(2, RosterMember, 2), other(2, RosterDeleted, 1)}, 2, RosterDeleted},
		{"the old certificate cannot take that back", []Notice{self(2, RosterMember, 1), other(2, RosterDeleted, 1), self(3, RosterMember, 2), self(9, RosterMember, 1)}, 3, RosterMember},
		{"nor say that it left", []Notice{other(2, RosterDeleted, 1), self(3, RosterMember, 2), self(9, RosterLeft, 1)}, 3, RosterMember},
		{"a new certificate on an empty disk", []Notice{self(7, RosterMember, 1), self(1, RosterMember, 2)}, 7, RosterMember},
		{"and it left before", []Notice{self(7, RosterLeft, 1), self(1, RosterMember, 2)}, 7, RosterLeft},
	} {
		t.Run(test.name, func(t *testing.T) {
			for i := range test.notices { // in any order
				rotated := slices.Concat(test.notices[i:], test.notices[:i])
				if got := fold(word{}, rotated...).standing("a"); got.Entry != test.entry || got.State != test.state {
					t.Errorf("(%d, %s), want (%d, %s)", got.Entry, got.State, test.entry, test.state)
				}
			}
		})
	}
}

func TestRosterIsOnDiskBeforeItIsTold(t *testing.T) {
	db := openRosterDB(t)
	a, b := newPlainKeys("a", true, ""), newPlainKeys("b", false, "")
	r, elsewhere := openRoster(t, db, a), newRoster(t, b)
	mine := say(t, r, "a", RosterMember)
	changed, _, err := r.Merge([]Notice{say(t, elsewhere, "b", RosterMember)})
	if err != nil || len(changed) != 1 {
		t.Fatal(changed, err)
	}
	again := openRoster(t, db, a)
	if again.Digest() != r.Digest() || len(again.All()) != 2 || again.word("a")[voiceSelf].Entry != mine.Entry {
		t.Errorf("the disk has %+v", again.All())
	}
	// A database that takes no writes any more: nothing is told that is not kept.
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	before := r.All()
	if changed, _, err := r.Merge([]Notice{say(t, elsewhere, "b", RosterLeft)}); err == nil || len(changed) > 0 || !slices.Equal(r.All(), before) {
		t.Errorf("changed %v, error %v", changed, err)
	}
	if _, err := r.Say("a", RosterLeft); err == nil || !slices.Equal(r.All(), before) {
		t.Errorf("error %v", err)
	}
}

func TestTrap8RosterTakesOnlyWhatIsSignedByWhomItMustBe(t *testing.T) {
	door, plain := newPlainKeys("door", true, ""), newPlainKeys("plain", false, "")
	r := newRoster(t, door)
	other := newRoster(t, plain)
	victim := newRoster(t, newPlainKeys("victim", false, ""))
	mergeAll(t, other, say(t, victim, "victim", RosterMember))
	mergeAll(t, r, say(t, victim, "victim", RosterMember))

	if _, err := other.Say("victim", RosterDeleted); err == nil {
		t.Error("a plain host signed a deletion")
	}
	forged := say(t, other, "plain", RosterMember)
	sign := func(n Notice) Notice {
		if n.By == "" {
			n.By = "plain"
		}
		n.Credential = forged.Credential
		n.Signature, _ = plain.Sign(func(Signer, []byte) []byte { return n.signedPart("fleet") })
		return n
	}
	impostor := sign(Notice{Node: "victim", By: "victim", Entry: 9, State: RosterMember, Fingerprint: plain.self.Fingerprint})
	tampered := forged
	tampered.Entry++
	otherFleet := forged
	otherFleet.Entry++
	otherFleet.Signature, _ = plain.Sign(func(Signer, []byte) []byte { return otherFleet.signedPart("another") })
	borrowed := sign(Notice{Node: "plain", Entry: 9, State: RosterMember, Fingerprint: [32]byte{1}})
	for name, n := range map[string]Notice{
		"deletion by a plain host":       sign(Notice{Node: "victim", Entry: 2, State: RosterDeleted}),
		"admission by a plain host":      sign(Notice{Node: "victim", Entry: 2, State: RosterMember}),
		"in the name of another":         impostor,
		"changed after it was signed":    tampered,
		"of another fleet":               otherFleet,
		"another certificate than shown": borrowed,
	} {
		before := r.Digest()
		if refused := mergeAll(t, r, n); refused.Unsigned != 1 || r.Digest() != before {
			t.Errorf("%s: %+v", name, refused)
		}
	}
	for name, n := range map[string]Notice{
		"that another left": sign(Notice{Node: "victim", Entry: 2, State: RosterLeft}),
		"entry 0":           sign(Notice{Node: "victim", State: RosterReaped}),
		"far ahead":         sign(Notice{Node: "victim", Entry: 1 << 40, State: RosterReaped}),
		"no such state":     sign(Notice{Node: "victim", Entry: 2, State: 9}),
	} {
		if refused := mergeAll(t, r, n); refused.Malformed != 1 {
			t.Errorf("%s: %+v", name, refused)
		}
	}
	if refused := mergeAll(t, r, forged); refused != (Refusals{}) {
		t.Errorf("its own word is good: %+v", refused)
	}
	if refused := mergeAll(t, r, forged); refused.Stale != 1 {
		t.Errorf("a replay: %+v", refused)
	}
}

func TestRosterWithRealCertificates(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	authority, err := pki.NewAuthority("fleet", now)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := pki.NewAuthority("fleet", now)
	if err != nil {
		t.Fatal(err)
	}
	host := func(a *pki.Authority, name string, door bool) Authenticator {
		t.Helper()
		dir := t.TempDir()
		pair, err := a.IssueHost(pki.Host{Node: name, Door: door}, now)
		if err == nil {
			err = errors.Join(a.Write(dir), pki.WritePair(filepath.Join(dir, pki.FileHost), filepath.Join(dir, pki.FileHostKey), pair))
		}
		if err != nil {
			t.Fatal(err)
		}
		id, err := pki.ReadIdentity(dir, now)
		if err != nil {
			t.Fatal(err)
		}
		return Certificates(func() *pki.Identity { return id })
	}
	a, b := newRoster(t, host(authority, "a", true)), newRoster(t, host(authority, "b", false))
	n := say(t, b, "b", RosterMember)
	t.Logf("a notice with a certificate has %d bytes", len(encodeNotice(n)))
	if len(encodeNotice(n)) > maxBroadcast("a-cluster-name-of-thirty-bytes") {
		t.Errorf("%d bytes do not fit into a packet", len(encodeNotice(n)))
	}
	if refused := mergeAll(t, a, n); refused != (Refusals{}) {
		t.Errorf("%+v", refused)
	}
	if refused := mergeAll(t, b, say(t, a, "b", RosterDeleted)); refused != (Refusals{}) {
		t.Errorf("a door deletes: %+v", refused)
	}
	if s, _ := b.Standing("b"); s.State != RosterDeleted || !b.Refused("b", now.Add(-24*time.Hour)) || b.Refused("b", now.Add(time.Hour)) {
		t.Errorf("%+v", s)
	}
	if _, err := b.Say("a", RosterDeleted); err == nil {
		t.Error("b is no door")
	}
	c := newRoster(t, host(stranger, "c", true))
	if refused := mergeAll(t, a, say(t, c, "c", RosterMember)); refused.Unsigned != 1 {
		t.Errorf("another authority: %+v", refused)
	}
}

// A host that was deleted and has a new certificate is out of reach of whoever has the old one.
func TestRosterOfAHostWhoseOldCertificateWasStolen(t *testing.T) {
	old, renewed, door := newPlainKeys("a", false, "old"), newPlainKeys("a", false, "new"), newPlainKeys("door", true, "")
	old.issue(1)
	renewed.issue(2)
	here, there, thief := newRoster(t, door), newRoster(t, renewed), newRoster(t, old)
	mergeAll(t, here, say(t, thief, "a", RosterMember))
	mergeAll(t, there, append(here.notices(), say(t, here, "a", RosterDeleted))...)
	mergeAll(t, here, say(t, there, "a", RosterMember))
	before, _ := here.Standing("a")
	for range 5 {
		n := say(t, thief, "a", RosterMember)
		mergeAll(t, here, n)
		mergeAll(t, there, n)
	}
	if s, _ := here.Standing("a"); s != before || s.State != RosterMember || s.Fingerprint != renewed.self.Fingerprint {
		t.Errorf("%+v became %+v", before, s)
	}
	if here.Digest() != there.Digest() {
		t.Error("two hosts disagree")
	}
	reopened := openRoster(t, here.db, door)
	if reopened.Digest() != here.Digest() || len(reopened.Damaged()) > 0 {
		t.Errorf("the disk has something else: %v", reopened.Damaged())
	}
	mergeAll(t, here, say(t, there, "a", RosterMember)) // above all it has heard: what the thief said is gone
	reopened = openRoster(t, here.db, door)
	if n := len(here.notices()); n != 2 || reopened.Digest() != here.Digest() {
		t.Errorf("%d notices, and %d on disk", n, len(reopened.notices()))
	}
	// The other way round: what the fleet knows is newer than what this host has.
	mergeAll(t, thief, here.notices()...)
	digest := thief.Digest()
	if _, err := thief.Say("a", RosterMember); !errors.Is(err, errOlderCertificate) || thief.Digest() != digest {
		t.Errorf("it spoke with an older certificate: %v", err)
	}
}

func TestDamagedNoticesAreLeftOutAndHeardAgain(t *testing.T) {
	db := openRosterDB(t)
	auth := newPlainKeys("a", false, "")
	r := openRoster(t, db, auth)
	n := say(t, r, "a", RosterMember)
	damage := func(tx *bbolt.Tx) error {
		v := slices.Clone(tx.Bucket(bucketRoster).Get(rosterKey(voiceSelf, "a")))
		v[5] ^= 1
		return tx.Bucket(bucketRoster).Put(rosterKey(voiceSelf, "a"), v)
	}
	if err := db.Update(damage); err != nil {
		t.Fatal(err)
	}
	again := openRoster(t, db, auth)
	if len(again.Damaged()) != 1 || len(again.All()) != 0 {
		t.Fatalf("%v, %+v", again.Damaged(), again.All())
	}
	mergeAll(t, again, n)
	if last := openRoster(t, db, auth); len(last.Damaged()) != 0 || last.Digest() != r.Digest() {
		t.Error("it was heard again and not kept")
	}
}

func TestSummariesFindWhatIsMissing(t *testing.T) {
	a, b := newRoster(t, newPlainKeys("a", true, "")), newRoster(t, newPlainKeys("b", true, ""))
	say(t, a, "a", RosterMember)
	say(t, b, "b", RosterMember)
	mergeAll(t, b, say(t, a, "a", RosterMember))
	exchange := func(from, to *Roster) int {
		marks, err := decodeMarks(to.summary())
		if err != nil {
			t.Fatal(err)
		}
		notices := from.lacking(marks)
		mergeAll(t, to, notices...)
		return len(notices)
	}
	if n := exchange(b, a); n != 1 || a.Digest() != b.Digest() {
		t.Errorf("%d notices, %x and %x", n, a.Digest(), b.Digest())
	}
	if n := exchange(a, b) + exchange(b, a); n != 0 {
		t.Errorf("%d notices between equal rosters", n)
	}
}

func FuzzDecodeNotices(f *testing.F) {
	n := Notice{Node: "a", Entry: 300, State: RosterLeft, By: "a", Credential: []byte("c"), Signature: []byte("s")}
	f.Add(encodeNotice(n))
	f.Add(append(encodeNotice(n), encodeNotice(n)...))
	f.Add([]byte{noticeFormat})
	f.Fuzz(func(t *testing.T, b []byte) {
		notices, err := decodeNotices(b)
		if err != nil {
			return
		}
		var again []byte
		for _, n := range notices {
			again = append(again, encodeNotice(n)...)
		}
		// Varints may have been longer than they need to be; what is read is the same.
		if len(again) > len(b) {
			t.Fatalf("%x grew to %x", b, again)
		}
		if repeated, err := decodeNotices(again); err != nil || len(repeated) != len(notices) {
			t.Fatalf("%x: %v", again, err)
		}
	})
}
