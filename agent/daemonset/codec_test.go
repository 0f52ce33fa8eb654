package daemonset

import (
	"bytes"
	"encoding/hex"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"
)

const podUID = "8d4841e6-3698-5264-9fab-82ce533b0bcd"

// largest has the longest of everything, and more of what is cut.
func largest() Status {
	return Status{
		View: Digest(bytes.Repeat([]byte{0xff}, 12)), Tag: [4]byte(bytes.Repeat([]byte{0xff}, 4)), Generation: math.MaxInt64, Placed: true, Aside: true, Stuck: true, HasPod: true, Ready: true,
		Available: true, Updated: true, Updating: true, Terminating: true, Phase: corev1.PodUnknown, Revision: "2456789245",
		PodUID: podUID, PodIPs: [2]netip.Addr{netip.MustParseAddr("fd00::ffff:ffff%eth0"), netip.MustParseAddr("255.255.255.255")},
		Restarts: math.MaxInt32, LastRestart: time.Unix(math.MaxInt32*100, 0), ReadyContainers: math.MaxUint16,
		Created: time.Unix(math.MaxUint32, 0), Since: time.Unix(math.MaxUint32, 999), Code: 255, Detail: strings.Repeat("x", 200),
		Node: "host-01", Reason: "a text", Silent: "no word", SilentSince: t0, Unheard: true,
	}
}

func TestLargestStatus(t *testing.T) {
	b := largest().Encode()
	if len(b) != 119 {
		t.Errorf("the largest status has %d bytes; the doc says 119, and %d is the limit", len(b), maxStatus)
	}
	got, err := DecodeStatus(b)
	if err != nil {
		t.Fatal(err)
	}
	want := largest()
	want.Node, want.Reason, want.Silent, want.SilentSince, want.Unheard = "", "", "", time.Time{}, false
	want.PodIPs[0] = netip.MustParseAddr("fd00::ffff:ffff")
	want.Restarts, want.Detail = maxRestarts, strings.Repeat("x", 21)+"…"
	last := time.Unix(math.MaxUint32, 0).UTC()
	want.LastRestart, want.Created, want.Since = last, last, last
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// TestStatusFormat: a host of another version of picketd reads the same bytes the same way.
func TestStatusFormat(t *testing.T) {
	uptodate := Status{
		View: Digest{0xaa}, Tag: [4]byte{3: 0xbb}, Generation: 300, Placed: true, HasPod: true, Ready: true, Available: true, Updated: true,
		Phase: corev1.PodRunning, Revision: "5b8f9", PodUID: podUID, PodIPs: [2]netip.Addr{netip.MustParseAddr("10.88.0.7")},
		Restarts: 2, LastRestart: t0.Add(time.Second), ReadyContainers: 3, Created: t0, Since: t0.Add(time.Minute),
	}
	away := Status{View: uptodate.View, Tag: uptodate.Tag, Generation: 1, Code: CodeTaint, Detail: "dedicated=gpu:NoSchedule"}
	for name, c := range map[string]struct {
		status Status
		want   string
	}{
		"up to date": {uptodate, "01 aa0000000000000000000000000000bb 08bd ac02 00 00 69a42a7c" +
			"8d4841e6369852649fab82ce533b0bcd 0a580007 05 3562386639 02 0003 69a42a40 69a42a41"},
		"not placed": {away, "01 aa0000000000000000000000000000bb 0000 01 07 18 " + hex.EncodeToString([]byte(away.Detail)) + "00000000"},
	} {
		want, err := hex.DecodeString(strings.ReplaceAll(c.want, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		if got := c.status.Encode(); !bytes.Equal(got, want) {
			t.Errorf("%s: got\n%x, want\n%x", name, got, want)
		}
		if got, err := DecodeStatus(want); err != nil || got != c.status {
			t.Errorf("%s: got %v\n%+v, want\n%+v", name, err, got, c.status)
		}
	}
}

// TestEncodeLeavesOut: what cannot be told whole is not told by halves.
func TestEncodeLeavesOut(t *testing.T) {
	v4, other := netip.MustParseAddr("10.88.0.7"), netip.MustParseAddr("10.88.0.8")
	for name, c := range map[string]struct{ give, want Status }{
		"a long revision":          {Status{HasPod: true, PodUID: podUID, Revision: "12345678901"}, Status{HasPod: true, PodUID: podUID}},
		"an odd revision":          {Status{HasPod: true, PodUID: podUID, Revision: "a\x1b[31m"}, Status{HasPod: true, PodUID: podUID}},
		"a phase nobody knows":     {Status{HasPod: true, PodUID: podUID, Phase: "Resting"}, Status{HasPod: true, PodUID: podUID}},
		"a pod that is not there":  {Status{Ready: true, Available: true, Updated: true, Terminating: true, Phase: corev1.PodRunning, PodUID: podUID, Restarts: 1, Created: t0, PodIPs: [2]netip.Addr{v4}}, Status{}},
		"what was before 1970":     {Status{Since: time.Unix(-5, 0), Generation: -1, HasPod: true, PodUID: podUID, Restarts: -1}, Status{HasPod: true, PodUID: podUID}},
		"two of one family":        {Status{HasPod: true, PodUID: podUID, PodIPs: [2]netip.Addr{v4, other}}, Status{HasPod: true, PodUID: podUID, PodIPs: [2]netip.Addr{v4}}},
		"no first address":         {Status{HasPod: true, PodUID: podUID, PodIPs: [2]netip.Addr{{}, v4}}, Status{HasPod: true, PodUID: podUID, PodIPs: [2]netip.Addr{v4}}},
		"IPv4 in IPv6":             {Status{HasPod: true, PodUID: podUID, PodIPs: [2]netip.Addr{netip.MustParseAddr("::ffff:10.88.0.7")}}, Status{HasPod: true, PodUID: podUID, PodIPs: [2]netip.Addr{v4}}},
		"what a terminal executes": {Status{Code: CodeOther, Detail: "a\x1b[31m\n\xff\u202eb"}, Status{Code: CodeOther, Detail: "a?[31m???b"}},
		"a fraction of a second":   {Status{Since: t0.Add(999 * time.Millisecond)}, Status{Since: t0}},
		"what only this host knows": {
			Status{Node: "host-01", Reason: "in full", Silent: "no word", SilentSince: t0, Unheard: true}, Status{},
		},
	} {
		got, err := DecodeStatus(c.give.Encode())
		if err != nil || got != c.want {
			t.Errorf("%s: got %v\n%+v\nwant\n%+v", name, err, got, c.want)
		}
	}
}

func TestDecodeStatusRefuses(t *testing.T) {
	whole := largest().Encode()
	change := func(at int, to byte) []byte {
		b := bytes.Clone(whole)
		b[at] = to
		return b
	}
	small := Status{Generation: 1}.Encode()
	for name, c := range map[string]struct {
		b    []byte
		says string
	}{
		"nothing":             {nil, "0 bytes"},
		"too much":            {make([]byte, maxStatus+1), "121 bytes"},
		"one byte more":       {append(bytes.Clone(whole), 0), "damaged"},
		"a newer format":      {change(0, 2), "format 2"},
		"no format":           {change(0, 0), "format 0"},
		"an unknown bit":      {change(17, whole[17]|0x80), "damaged"},
		"an unknown phase":    {change(17, whole[17]|0x1c), "damaged"},
		"a long number":       {append(bytes.Clone(small[:19]), append([]byte{0x81, 0}, small[20:]...)...), "damaged"},
		"a negative number":   {append(bytes.Clone(small[:19]), append(bytes.Repeat([]byte{0xff}, 9), append([]byte{1}, small[20:]...)...)...), "damaged"},
		"a pod without a uid": {Status{HasPod: true}.Encode(), "damaged"},
		"a command to a tty":  {change(31, 0x1b), "damaged"},
		"a pod's bit without": {append([]byte{1}, append(make([]byte, 16), 0, bitReady, 1, 0, 0, 0, 0, 0, 0)...), "damaged"},
	} {
		if _, err := DecodeStatus(c.b); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want %q", name, err, c.says)
		}
	}
	for n := range len(whole) - 1 {
		if _, err := DecodeStatus(whole[:n+1]); err == nil {
			t.Errorf("the first %d bytes of %d are taken for a status", n+1, len(whole))
		}
	}
}

// drawStatus draws what a planner could say, and worse.
func drawStatus(t *rapid.T) Status {
	is := func(label string) bool { return rapid.Bool().Draw(t, label) }
	when := func(label string) time.Time {
		return rapid.SampledFrom([]time.Time{{}, t0, t0.Add(1500 * time.Millisecond), time.Unix(1, 0), time.Unix(1<<40, 0)}).Draw(t, label)
	}
	ip := func(label string) netip.Addr {
		text := rapid.SampledFrom([]string{"", "10.88.0.7", "0.0.0.0", "fd00::7", "::", "fe80::1%eth0", "::ffff:1.2.3.4"}).Draw(t, label)
		addr, _ := netip.ParseAddr(text)
		return addr
	}
	return Status{
		View: Digest(rapid.SliceOfN(rapid.Byte(), 12, 12).Draw(t, "view")), Tag: [4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "tag")),
		Aside: rapid.Bool().Draw(t, "aside"), Stuck: rapid.Bool().Draw(t, "stuck"), Generation: rapid.Int64().Draw(t, "generation"),
		Placed: is("placed"), HasPod: is("pod"), Ready: is("ready"), Available: is("available"), Updated: is("updated"),
		Updating: is("updating"), Terminating: is("terminating"),
		Phase:    rapid.SampledFrom(append(phases[:], "Resting")).Draw(t, "phase"),
		Revision: rapid.OneOf(rapid.StringMatching("[a-z0-9]{0,12}"), rapid.String()).Draw(t, "revision"),
		PodUID:   types.UID(rapid.SampledFrom([]string{podUID, "{" + podUID + "}", "ffffffff-ffff-ffff-ffff-ffffffffffff"}).Draw(t, "uid")),
		PodIPs:   [2]netip.Addr{ip("first"), ip("second")},
		Restarts: rapid.Int32().Draw(t, "restarts"), ReadyContainers: rapid.Uint16().Draw(t, "containers"),
		LastRestart: when("last"), Created: when("created"), Since: when("since"),
		Code: Code(rapid.Byte().Draw(t, "code")), Detail: rapid.OneOf(rapid.String(), rapid.StringN(0, -1, 40)).Draw(t, "detail"),
	}
}

// TestStatusSurvivesTheWay: whatever a status holds, it fits, it can be read, and reading and telling it again changes nothing.
func TestStatusSurvivesTheWay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		said := drawStatus(t)
		b := said.Encode()
		if len(b) > maxStatus {
			t.Fatalf("%d bytes", len(b))
		}
		heard, err := DecodeStatus(b)
		if err != nil {
			t.Fatalf("%v: %+v", err, said)
		}
		if again := heard.Encode(); !bytes.Equal(again, b) {
			t.Fatalf("heard and told again: %x, was %x", again, b)
		}
		if heard.Placed != said.Placed || heard.HasPod != said.HasPod || heard.View != said.View || heard.Updating != said.Updating || heard.Code != said.Code {
			t.Fatalf("said %+v, heard %+v", said, heard)
		}
		heard.Reason, heard.Node, heard.Silent = "x", "y", "z"
		if !bytes.Equal(heard.Encode(), b) {
			t.Fatal("what is not encoded changes the bytes")
		}
	})
}

// FuzzDecodeStatus: no bytes make it panic, and what it takes is what Encode makes of it.
func FuzzDecodeStatus(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{statusFormat})
	f.Add(Status{}.Encode())
	f.Add(largest().Encode())
	f.Add(Status{HasPod: true}.Encode())
	f.Add(Status{Code: CodeTaint, Detail: "dedicated=gpu:NoSchedule"}.Encode())
	f.Add(Status{HasPod: true, PodUID: podUID, PodIPs: [2]netip.Addr{netip.MustParseAddr("::ffff:1.2.3.4"), netip.MustParseAddr("fd00::1")}}.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := DecodeStatus(b)
		if err != nil {
			return
		}
		if again := s.Encode(); !bytes.Equal(again, b) {
			t.Errorf("%x became %x", b, again)
		}
		if text := s.Explain("web"); text != brief(text, len(text)) || len(text) > 400 {
			t.Errorf("%x says %q", b, text)
		}
	})
}

func BenchmarkStatus(b *testing.B) {
	s := told(crashing, func(s *Status) { s.Revision = "5b8f9d7c6" })
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeStatus(s.Encode()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(s.Encode())), "B/status")
}
