package daemonset

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// maxStatus is what an encoded status may have, in bytes (ARCHITECTURE.md, State). The largest there can be has 119.
const maxStatus = 120

// statusFormat is the first byte of an encoded status. A field that is added is another format; a code is not, see Code.
const statusFormat = 1

const (
	// maxRevision is the length of a revision's hash, ten digits at most. A longer name, which nothing here makes, does not travel:
	// a part of it might be another revision's, and none is known for what it is.
	maxRevision = 10
	// maxRestarts fits into four bytes and takes a container in back-off 2,500 years.
	maxRestarts = 1<<28 - 1
)

// Bits of an encoded status. Those of a pod are 0 without one.
const (
	bitPlaced = 1 << iota
	bitUpdating
	bitPod
	bitReady
	bitAvailable
	bitUpdated
	bitTerminating
	bitFirstIP
	bitFirstIP6
	bitSecondIP   // of the other family
	bitPhase      // the first of three, an index of phases
	bitAfterPhase = bitPhase << 3
	bitAside      = bitAfterPhase
	bitStuck      = bitAside << 1
)

var phases = [...]corev1.PodPhase{"", corev1.PodPending, corev1.PodRunning, corev1.PodSucceeded, corev1.PodFailed, corev1.PodUnknown}

// Encode is the status as it travels: at most maxStatus bytes, equal for statuses that say the same. Times are whole seconds, from
// 1970 to 2106; of what is too long or has no place there the rest is told.
//
//	format 1, view 12, tag 4, bits 2, generation 1-9, code 1, detail 1+24, since 4,
//	and of a pod: uid 16, addresses 0-20, revision 1+10, restarts 1-4, ready containers 2, created 4, last restart 4
func (s Status) Encode() []byte {
	b := append(make([]byte, 0, maxStatus), statusFormat)
	b = append(b, s.View[:]...)
	b = append(b, s.Tag[:]...)
	b = binary.BigEndian.AppendUint16(b, s.bits())
	b = binary.AppendUvarint(b, uint64(max(s.Generation, 0)))
	b = append(b, byte(s.Code))
	b = appendText(b, brief(s.Detail, maxDetail))
	b = appendTime(b, s.Since)
	if !s.HasPod {
		return b
	}
	id, _ := uuid.Parse(string(s.PodUID)) // every pod has one, see NewPod
	b = append(b, id[:]...)
	for _, ip := range addresses(s.PodIPs[:]) {
		b = append(b, ip.AsSlice()...)
	}
	b = appendText(b, encodable(s.Revision))
	b = binary.AppendUvarint(b, uint64(min(max(s.Restarts, 0), maxRestarts)))
	b = binary.BigEndian.AppendUint16(b, s.ReadyContainers)
	b = appendTime(b, s.Created)
	return appendTime(b, s.LastRestart)
}

func (s Status) bits() uint16 {
	bits := bit(s.Placed, bitPlaced) | bit(s.Updating, bitUpdating) | bit(s.Aside, bitAside) | bit(s.Stuck, bitStuck)
	if !s.HasPod {
		return bits
	}
	bits |= bitPod | bit(s.Ready, bitReady) | bit(s.Available, bitAvailable) | bit(s.Updated, bitUpdated) | bit(s.Terminating, bitTerminating)
	ips := addresses(s.PodIPs[:])
	bits |= bit(ips[0].IsValid(), bitFirstIP) | bit(ips[0].Is6(), bitFirstIP6) | bit(ips[1].IsValid(), bitSecondIP)
	return bits | uint16(max(slices.Index(phases[:], s.Phase), 0)*bitPhase)
}

func bit(set bool, mask uint16) uint16 {
	if set {
		return mask
	}
	return 0
}

// encodable is the revision if it can be one.
func encodable(revision string) string {
	odd := func(r rune) bool { return r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') }
	if len(revision) > maxRevision || strings.ContainsFunc(revision, odd) {
		return ""
	}
	return revision
}

func appendText(b []byte, text string) []byte { return append(append(b, byte(len(text))), text...) }

// appendTime writes seconds since 1970; 0 is no time.
func appendTime(b []byte, t time.Time) []byte {
	return binary.BigEndian.AppendUint32(b, uint32(min(max(t.Unix(), 0), math.MaxUint32)))
}

// DecodeStatus reads what Encode wrote. Anything else is an error: a newer format, what is cut short or too long, bytes that Encode
// would write another way, and a pod without a uid, which has no name. Node and Reason, and what only the reader knows, are left zero.
func DecodeStatus(b []byte) (Status, error) {
	switch {
	case len(b) == 0 || len(b) > maxStatus:
		return Status{}, fmt.Errorf("cannot read a status of %d bytes", len(b))
	case b[0] != statusFormat:
		return Status{}, fmt.Errorf("cannot read a status of format %d: this version of picketd knows format %d", b[0], statusFormat)
	}
	r := reader{b[1:]}
	s := r.status()
	if s.HasPod && s.PodUID == "" || !bytes.Equal(s.Encode(), b) {
		return Status{}, errors.New("cannot read a status: it is damaged")
	}
	return s, nil
}

// reader takes an encoded status apart. It does not complain: whether the bytes were a status shows when they are written again.
type reader struct{ rest []byte }

func (r *reader) status() Status {
	var s Status
	s.View, s.Tag = Digest(r.take(len(s.View))), [4]byte(r.take(len(s.Tag)))
	bits := binary.BigEndian.Uint16(r.take(2))
	s.Placed, s.Updating, s.HasPod = bits&bitPlaced != 0, bits&bitUpdating != 0, bits&bitPod != 0
	s.Aside, s.Stuck = bits&bitAside != 0, bits&bitStuck != 0
	s.Generation = int64(r.uvarint() & math.MaxInt64)
	s.Code, s.Detail = Code(r.take(1)[0]), r.text()
	s.Since = r.time()
	if s.HasPod {
		r.pod(&s, bits)
	}
	return s
}

func (r *reader) pod(s *Status, bits uint16) {
	s.Ready, s.Available, s.Updated = bits&bitReady != 0, bits&bitAvailable != 0, bits&bitUpdated != 0
	s.Terminating = bits&bitTerminating != 0
	if phase := int(bits % bitAfterPhase / bitPhase); phase < len(phases) {
		s.Phase = phases[phase]
	}
	if id := uuid.UUID(r.take(16)); id != (uuid.UUID{}) {
		s.PodUID = types.UID(id.String())
	}
	six := bits&bitFirstIP6 != 0
	if bits&bitFirstIP != 0 {
		s.PodIPs[0] = r.ip(six)
	}
	if bits&bitSecondIP != 0 {
		s.PodIPs[1] = r.ip(!six)
	}
	s.Revision = r.text()
	s.Restarts = int32(r.uvarint() & maxRestarts)
	s.ReadyContainers = binary.BigEndian.Uint16(r.take(2))
	s.Created, s.LastRestart = r.time(), r.time()
}

// take returns n bytes, zeros when there are fewer.
func (r *reader) take(n int) []byte {
	if len(r.rest) < n {
		return make([]byte, n)
	}
	taken := r.rest[:n]
	r.rest = r.rest[n:]
	return taken
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	r.rest = r.rest[max(n, 0):]
	return v
}

func (r *reader) text() string { return string(r.take(int(r.take(1)[0]))) }

func (r *reader) ip(six bool) netip.Addr {
	if six {
		return netip.AddrFrom16([16]byte(r.take(16)))
	}
	return netip.AddrFrom4([4]byte(r.take(4)))
}

func (r *reader) time() time.Time {
	seconds := binary.BigEndian.Uint32(r.take(4))
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(int64(seconds), 0).UTC()
}
