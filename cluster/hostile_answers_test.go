package cluster

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"testing"
	"time"
)

// A member answers honest hosts as it likes. Whatever that is, it is called a bounded number of times, the others do not wait for it,
// and nothing of it is kept.
func TestHostileAnswers(t *testing.T) {
	everyGroup := func() []byte {
		b := []byte{setObjects}
		for range groupCount {
			b = append(b, fmt.Sprintf("%016x", rand.Uint64())...)
		}
		return b
	}
	// claims make an honest host ask on: all is different.
	claims := func(then func(w http.ResponseWriter, path string, body []byte)) func(w http.ResponseWriter, path string, body []byte) {
		return func(w http.ResponseWriter, path string, body []byte) {
			switch path {
			case pathCompare:
				_, _ = w.Write(everyGroup())
			case pathBuckets:
				_, _ = w.Write(bytes.Repeat([]byte{byte(1 + rand.N(255))}, (len(body)-1)*groupSize*sumSize))
			default:
				then(w, path, body)
			}
		}
	}
	// Made-up items are listed in order and in a bucket that was asked for; a page has them all, or one.
	var chain []string
	for i := 0; len(chain) < 300; i++ {
		if key := fmt.Sprintf("ConfigMap/default/%d", i); bucketOf(key) == 77 {
			chain = append(chain, key)
		}
	}
	slices.Sort(chain)
	page := func(w http.ResponseWriter, body []byte, all byte) {
		after := string((&fields{rest: body[1:]}).bytes())
		answer := []byte{all}
		for _, key := range chain {
			if key > after && (all == 1 || len(answer) == 1) {
				answer = appendItem(answer, item{key: key, order: 1<<64 - 1})
			}
		}
		_, _ = w.Write(answer)
	}
	endless := func(w http.ResponseWriter, _ string, _ []byte) {
		for range 20 << 20 / 4096 {
			if _, err := w.Write(make([]byte, 4096)); err != nil {
				return
			}
		}
	}
	answers := map[string]func(w http.ResponseWriter, path string, body []byte){
		"an error":        func(w http.ResponseWriter, _ string, _ []byte) { http.Error(w, "no", 500) },
		"noise":           func(w http.ResponseWriter, _ string, _ []byte) { _, _ = w.Write([]byte("noise")) },
		"without end":     endless,
		"after 9 seconds": func(http.ResponseWriter, string, []byte) { time.Sleep(9 * time.Second) },
		"never":           func(http.ResponseWriter, string, []byte) { time.Sleep(40 * time.Second) },
		"a redirection": func(w http.ResponseWriter, _ string, _ []byte) {
			w.Header().Set("Location", "https://host-00/")
			w.WriteHeader(302)
		},
		"sums without end":             claims(endless),
		"the same set again and again": func(w http.ResponseWriter, _ string, _ []byte) { _, _ = w.Write(bytes.Repeat(everyGroup(), 5)) },
		"items that are not listed further": claims(func(w http.ResponseWriter, path string, body []byte) {
			_, _ = w.Write([]byte{0})
		}),
		"items in no order": claims(func(w http.ResponseWriter, path string, body []byte) {
			keys := []string{"a", "b"}
			slices.SortFunc(keys, func(a, b string) int { return compareKeys(b, a) })
			_, _ = w.Write(appendItem(appendItem([]byte{1}, item{key: keys[0], order: 9}), item{key: keys[1], order: 9}))
		}),
		"pages without end and wrong records": claims(func(w http.ResponseWriter, path string, body []byte) {
			if path == pathItems {
				page(w, body, 0)
			} else if keys, err := decodeKeys(body[1:]); err == nil {
				var answer []byte
				for _, key := range keys {
					answer = appendRecord(answer, record{set: setObjects, key: key, data: []byte("x")})
				}
				_, _ = w.Write(answer)
			}
		}),
		"items that it does not send": claims(func(w http.ResponseWriter, path string, body []byte) {
			if path == pathItems {
				page(w, body, 1)
			}
		}),
		"pages without end": claims(func(w http.ResponseWriter, path string, body []byte) {
			if path == pathItems {
				page(w, body, 0)
			}
		}),
		"records that nobody asked for": claims(func(w http.ResponseWriter, path string, body []byte) {
			if path == pathItems {
				page(w, body, 1)
			} else {
				_, _ = w.Write(appendRecord(nil, record{set: setObjects, key: "other", data: []byte("x")}))
			}
		}),
		"one wrong record at a time": claims(func(w http.ResponseWriter, path string, body []byte) {
			if path == pathItems {
				page(w, body, 1)
			} else if keys, err := decodeKeys(body[1:]); err == nil && len(keys) > 0 {
				_, _ = w.Write(appendRecord(nil, record{set: setObjects, key: keys[0], data: []byte("x")}))
			}
		}),
		"that it lacks everything": claims(func(w http.ResponseWriter, path string, body []byte) {
			if path == pathItems {
				_, _ = w.Write([]byte{1})
			}
		}),
		"that it wants what was not offered": func(w http.ResponseWriter, path string, body []byte) {
			if path == pathPush {
				_, _ = w.Write(appendKeys(nil, slices.Repeat([]string{"DaemonSet/default/web"}, 1000)))
			}
		},
	}
	withRogue(t, 30, func(t *testing.T, f *agents, evil *rogue) {
		before, resources := f.snapshot(), measure()
		for name, answer := range answers {
			evil.answers(answer)
			evil.takeCalls()
			const minutes = 2
			for range minutes {
				for range 12 { // its digest is always another one
					time.Sleep(5 * time.Second)
					var d [digestSize]byte
					_ = evil.m.Broadcast("digest", append(append([]byte{kindDigest}, append(d[:8], fmt.Sprintf("%024x", rand.Uint64())...)...), evil.name...))
				}
			}
			total, calls := evil.takeCalls()
			t.Logf("answering %s, it is called %d times a minute by each: %v", name, total/minutes/len(f.list), calls)
			if total > 60*minutes*len(f.list) || name == "items in no order" && calls[pathFetch] > 0 {
				t.Errorf("answering %s, it is called too often", name)
			}
			before2 := f.snapshot()
			for host, d := range before {
				if before2[host] != d {
					t.Errorf("answering %s, it changed %s", name, host)
				}
			}
			f.works()
			before = f.snapshot()
		}
		evil.answers(nil)
		time.Sleep(2 * time.Minute)
		f.grown(resources, "answers")
	})
}

// Names that nobody of the fleet has are cheap for whoever has the gossip key. News travels between hosts of the roster.
func TestHostileMembersWithoutCertificates(t *testing.T) {
	withRogue(t, 31, func(t *testing.T, f *agents, _ *rogue) {
		strangers := newAgents(t, 1)
		strangers.net = f.net
		defer func() {
			for _, a := range strangers.list {
				a.stop()
			}
		}()
		for i := range 20 {
			strangers.add(fmt.Sprintf("fake-%02d", i), true, f.list[0])
		}
		time.Sleep(20 * time.Second)
		before := f.snapshot()
		heard := len(f.list[1].m.others())
		was := f.list[1].r.Stats()
		for range 60 {
			time.Sleep(time.Second)
			for _, fake := range strangers.list {
				fake.r.tellDigest()
			}
		}
		is := f.list[1].r.Stats()
		t.Logf("of %d that are heard, %d are neighbours; %d comparisons and %d failed calls in a minute", heard, len(f.list[1].r.neighbours()), is.Rounds-was.Rounds, is.FailedCalls-was.FailedCalls)
		if is.Rounds-was.Rounds > 20 || len(f.list[1].r.hosts) > 4 {
			t.Errorf("%d comparisons in a minute with %d hosts", is.Rounds-was.Rounds, len(f.list[1].r.hosts))
		}
		f.unchanged(before)
		key := f.list[0].mustPut("ConfigMap/default/soon", "x").Key
		took := f.within(time.Second, "news is passed on directly", func() bool { return f.everyone(func(a *agent) bool { return a.has(key, "x") }) })
		if took > 100*time.Millisecond {
			t.Errorf("news took %s", took)
		}
	})
}
