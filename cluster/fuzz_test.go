package cluster

import (
	"bytes"
	"encoding/binary"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// What is read of others' bytes is written as the same bytes, or is nothing.

func FuzzObject(f *testing.F) {
	for _, o := range []Object{
		{Key: "web", Version: Version{Generation: 1, Hash: hashOf("x")}, Birth: 1, Body: []byte("x"), Author: "a", Origin: "b", Credential: []byte("c"), Signature: []byte("s")},
		{Key: "web", Version: Version{Generation: 9}, Deleted: true, Past: [][32]byte{hashOf("x")}, Time: time.UnixMilli(-1).UTC()},
	} {
		f.Add(o.Key, encode(o))
	}
	f.Fuzz(func(t *testing.T, key string, b []byte) {
		if end := len(b) - sumLength; end >= headLength+sumLength { // or nothing gets beyond the checksums
			binary.BigEndian.PutUint32(b[headLength:], recordSum(key, b[:headLength]))
			binary.BigEndian.PutUint32(b[end:], recordSum(key, b[:end]))
		}
		o, err := decode(key, b)
		if err != nil {
			return
		}
		if again, err := decode(key, encode(o)); err != nil || imprintOf(again) != imprintOf(o) {
			t.Fatalf("%+v became %+v: %v", o, again, err)
		}
	})
}

func FuzzStatus(f *testing.F) {
	f.Add(Status{Node: "host-01", Unit: "default/web", Sequence: 7, Body: []byte("ready"), Signature: []byte("s")}.encode())
	f.Add(Status{Node: "host-01", Sequence: maxSequence}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeStatus(b)
		if err != nil {
			return
		}
		if again, err := decodeStatus(s.encode()); err != nil || !bytes.Equal(again.encode(), s.encode()) || len(s.Body) > MaxStatus || s.Sequence > maxSequence {
			t.Fatalf("%+v became %+v: %v", s, again, err)
		}
	})
}

func FuzzLists(f *testing.F) {
	f.Add(appendRecord(appendRecord(nil, record{set: 1, key: "a", data: []byte("x")}), record{}))
	f.Add(appendItem(nil, item{key: "a", order: 1<<64 - 1, imprint: imprint{1}}))
	f.Add(appendKeys(nil, []string{"a", "", "b"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if list, err := decodeRecords(b); err == nil {
			for _, r := range list {
				if len(list) > maxElements || r.set >= setCount || len(r.key) > maxKey {
					t.Fatalf("%d records, %+v", len(list), r)
				}
			}
		}
		if list, err := decodeItems(b); err == nil {
			for _, i := range list {
				if len(list) > maxElements || i.key == "" || len(i.key) > maxKey {
					t.Fatalf("%d items, %+v", len(list), i)
				}
			}
		}
		if list, err := decodeKeys(b); err == nil && len(list) > maxElements {
			t.Fatalf("%d keys", len(list))
		}
	})
}

// fuzzed is an agent with a few objects and statuses, alone in its fleet.
func fuzzed(f *testing.F) *agent {
	f.Helper()
	fleet := newAgents(f, 1)
	a := fleet.add("host-00", true)
	f.Cleanup(a.stop)
	for _, key := range []string{"DaemonSet/default/web", "DaemonSet/default/db", "ConfigMap/default/web"} {
		a.mustPut(key, strings.Repeat(key, 100))
		a.say(key, "ready")
	}
	return a
}

// Whatever others ask or tell, nothing that is not signed is taken, and answers are bounded.
func FuzzRequests(f *testing.F) {
	a := fuzzed(f)
	digest := a.r.digest()
	status := a.statuses.Of("host-00")[0]
	web, _ := a.store.Get("DaemonSet/default/web")
	paths := []string{pathPush, pathCompare, pathBuckets, pathItems, pathFetch, "other"}
	f.Add(byte(0), pushOf([]record{objectRecord(web), statusRecord(status)}, itemOf(web), item{key: "new", order: 9}))
	f.Add(byte(1), digest[:])
	f.Add(byte(1), make([]byte, digestSize))
	f.Add(byte(2), []byte{setObjects, 0, 1, groupCount - 1})
	f.Add(byte(3), append(appendBytes([]byte{setStatuses}, "after"), 0, 1, 15, 255))
	f.Add(byte(4), appendKeys([]byte{setObjects}, []string{web.Key, "ConfigMap/default/web"}))
	f.Add(byte(4), appendKeys([]byte{setStatuses}, []string{status.id().key()}))
	f.Fuzz(func(t *testing.T, path byte, body []byte) {
		answer, _ := a.r.answer("host-00", paths[int(path)%len(paths)], body)
		if len(answer) > maxMessage {
			t.Errorf("the answer has %d bytes", len(answer))
		}
		if a.r.digest() != digest {
			t.Fatal("it changed what is here")
		}
	})
}

// answersOf are canned answers, by path.
type answersOf struct {
	bodies map[string][]byte
	calls  int
}

func (a *answersOf) RoundTrip(r *http.Request) (*http.Response, error) {
	a.calls++
	_, _ = io.Copy(io.Discard, r.Body)
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(bytes.NewReader(a.bodies[r.URL.Path])), Request: r}, nil
}

// Whatever another host answers, comparing ends after a bounded number of calls and takes nothing that is not signed.
func FuzzAnswers(f *testing.F) {
	a := fuzzed(f)
	digest := a.r.digest()
	canned := &answersOf{}
	a.peers.http.RegisterProtocol("https", canned)
	a.peers.config.Address = func(string) (string, bool) { return "", true }
	full, err := a.r.answerCompare(make([]byte, digestSize))
	if err != nil {
		f.Fatal(err)
	}
	for i := 1; i < len(full); i += 1 + groupCount*sumSize {
		full[i]++ // the first group of every set differs
	}
	one := full[:1+groupCount*sumSize]
	buckets := bytes.Repeat([]byte{1}, groupSize*sumSize)
	key := "DaemonSet/default/0"
	for i := 0; bucketOf(key) >= groupSize; i++ {
		key = "DaemonSet/default/" + strings.Repeat("x", i)
	}
	items := func(all byte, i ...item) []byte {
		b := []byte{all}
		for _, i := range i {
			b = appendItem(b, i)
		}
		return b
	}
	web, _ := a.store.Get("DaemonSet/default/web")
	f.Add(full, buckets, items(1, item{key: key, order: 3}), appendRecord(nil, record{set: setObjects, key: key, data: encode(web)}), []byte{})
	f.Add(one, buckets, items(0, item{key: key, order: 3}), appendRecord(nil, record{set: setObjects, key: key, data: []byte("x")}), []byte("x"))
	f.Add(one, buckets, items(1), []byte{}, appendKeys(nil, []string{web.Key, web.Key}))
	f.Add([]byte{}, []byte{}, []byte{}, []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, compare, buckets, items, fetch, push []byte) {
		canned.calls = 0
		canned.bodies = map[string][]byte{pathCompare: compare, pathBuckets: buckets, pathItems: items, pathFetch: fetch, pathPush: push}
		_, _, _ = a.r.compare(t.Context(), "host-99")
		_ = a.r.push("host-99", []element{{setObjects, web.Key}, {setStatuses, "host-00\x00" + web.Key}})
		if canned.calls > 40 {
			t.Errorf("%d calls", canned.calls)
		}
		if a.r.digest() != digest {
			t.Fatal("it changed what is here")
		}
	})
}
