package cluster

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/picketd/picket/cluster/pki"
)

// withRogue is a fleet of three that has an object and a status, and an rogue in it.
func withRogue(t *testing.T, seed uint64, f func(t *testing.T, f *agents, evil *rogue)) {
	t.Helper()
	withRoguePermitted(t, seed, nil, f)
}

// withRoguePermitted is withRogue with a policy of who may write what.
func withRoguePermitted(t *testing.T, seed uint64, permit func(Signer, string) error, f func(t *testing.T, f *agents, evil *rogue)) {
	t.Helper()
	withAgents(t, seed, lossless, func(t *testing.T, fleet *agents) {
		fleet.permit = permit
		hosts := fleet.addMany(3)
		fleet.within(time.Minute, "they meet", fleet.met)
		hosts[0].mustPut("DaemonSet/default/web", "v1")
		hosts[1].say("default/web", "running")
		evil := fleet.rogue("evil", hosts[0])
		defer evil.end()
		fleet.within(time.Minute, "all are alike", func() bool { return alike(fleet.list) })
		time.Sleep(20 * time.Second)
		f(t, fleet, evil)
	})
}

func TestHostileCallers(t *testing.T) {
	withRogue(t, 1, func(t *testing.T, f *agents, evil *rogue) {
		another, err := pki.NewAuthority("fleet", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		issue := func(a *pki.Authority, h pki.Host, at time.Time) tls.Certificate {
			p, err := a.IssueHost(h, at)
			return pair(t, p, err)
		}
		now, honest := time.Now(), f.list[1]
		user, err := f.authority.IssueUser(pki.User{Name: "root", Role: pki.Admin}, now)
		certs := map[string][]tls.Certificate{
			"no certificate":        nil,
			"another authority":     {issue(another, pki.Host{Node: "host-00", Door: true}, now)},
			"expired":               {issue(f.authority, pki.Host{Node: "host-00", Door: true, Validity: time.Hour}, now.Add(-2*time.Hour))},
			"not valid yet":         {issue(f.authority, pki.Host{Node: "host-00", Door: true}, now.Add(3*time.Hour))},
			"a user's certificate":  {pair(t, user, err)},
			"another host's, cut":   {{Certificate: honest.identity().Certificate.Certificate, PrivateKey: evil.identity().Certificate.PrivateKey}},
			"its own is good for X": {evil.identity().Certificate},
		}
		before, rejected := f.snapshot(), honest.r.Stats().Rejected
		digest := honest.r.digest()
		for name, cert := range certs {
			c := evil.client(cert...)
			for _, path := range []string{pathPush, pathCompare, pathBuckets, pathItems, pathFetch} {
				code, answer := post(c, honest, path, digest[:])
				good := strings.HasPrefix(name, "its own")
				if refused := code == 0 || code == http.StatusForbidden; refused == good {
					t.Errorf("%s: %s is answered with %d %q", name, path, code, answer)
				}
			}
			c.CloseIdleConnections()
		}
		if n := honest.r.Stats().Rejected - rejected; n < 10 { // no certificate, and a user's; the others end in the handshake
			t.Errorf("%d were counted", n)
		}
		f.unchanged(before)
	})
}

// A certificate that expires, or whose authority goes, ends also the connection that is kept.
func TestHostileKeptConnections(t *testing.T) {
	withRogue(t, 2, func(t *testing.T, f *agents, evil *rogue) {
		p, err := f.authority.IssueHost(pki.Host{Node: "evil", Validity: time.Minute}, time.Now())
		c, digest := evil.client(pair(t, p, err)), f.list[1].r.digest()
		defer c.CloseIdleConnections()
		if code, answer := post(c, f.list[1], pathCompare, digest[:]); code != http.StatusOK {
			t.Fatalf("%d %s", code, answer)
		}
		time.Sleep(2 * time.Minute)
		if code, answer := post(c, f.list[1], pathCompare, digest[:]); code != http.StatusForbidden {
			t.Errorf("after it expired, on a kept connection: %d %s", code, answer)
		}
	})
}

// A man in the middle shows a valid certificate, but of another host.
func TestHostileServers(t *testing.T) {
	withRogue(t, 3, func(t *testing.T, f *agents, evil *rogue) {
		victim, caller := f.list[2], f.list[1]
		another, err := pki.NewAuthority("fleet", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		host := func(a *pki.Authority, h pki.Host, at time.Time) tls.Certificate {
			p, err := a.IssueHost(h, at)
			return pair(t, p, err)
		}
		user, err := f.authority.IssueUser(pki.User{Name: victim.name, Role: pki.Admin}, time.Now())
		before := f.snapshot()
		_ = victim.server.Close()
		for name, cert := range map[string]tls.Certificate{
			"a plain host's":                 evil.identity().Certificate,
			"one that also has the name":     host(f.authority, pki.Host{Node: "evil", Addresses: []string{victim.name}}, time.Now()),
			"another authority's":            host(another, pki.Host{Node: victim.name, Door: true}, time.Now()),
			"its own, which has expired":     host(f.authority, pki.Host{Node: victim.name, Door: true, Validity: time.Hour}, time.Now().Add(-2*time.Hour)),
			"a user's of the host's name":    pair(t, user, err),
			"its own with another one's key": {Certificate: victim.identity().Certificate.Certificate, PrivateKey: evil.identity().Certificate.PrivateKey},
		} {
			caller.peers.Close()
			told := 0
			middle := serveAt(victim, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13},
				http.HandlerFunc(func(http.ResponseWriter, *http.Request) { told++ }))
			if _, err := caller.peers.post(t.Context(), victim.name, pathCompare, []byte("x"), 100); err == nil {
				t.Errorf("%s: it is believed", name)
			}
			if told > 0 {
				t.Errorf("%s: it was called %d times", name, told)
			}
			_ = middle.Close()
		}
		victim.server = serveAt(victim, victim.serving.TLSConfig(), victim.r)
		f.within(time.Minute, "the victim is reached again", func() bool {
			_, err := caller.peers.post(t.Context(), victim.name, pathCompare, make([]byte, digestSize), maxMessage)
			return err == nil
		})
		time.Sleep(2 * compareEvery)
		f.unchanged(before)
	})
}

func TestHostileMessages(t *testing.T) {
	withRogue(t, 4, func(t *testing.T, f *agents, evil *rogue) {
		honest := f.list[1]
		auth := signs(f, evil.identity().Certificate)
		many := func(n int, one []byte) []byte { return bytes.Repeat(one, n) }
		oversized := appendBytes(nil, many(maxElements+1, appendRecord(nil, record{})))
		status := func(s Status) []byte { return pushOf([]record{statusRecord(forgeStatus(t, auth, s))}) }
		object := func(key string) []byte {
			return pushOf([]record{objectRecord(forge(t, signs(f, f.list[0].identity().Certificate), Object{Key: key, Version: Version{Generation: 7}, Body: []byte("x")}))})
		}
		cases := map[string]struct {
			path string
			body []byte
			code int // StatusOK: taken, and what is in it is refused
		}{
			"nothing":                     {pathPush, nil, 400},
			"a cut-off push":              {pathPush, []byte{200, 1}, 400},
			"too many records":            {pathPush, oversized, 400},
			"too many items":              {pathPush, append(appendBytes(nil, ""), many(maxElements+1, appendItem(nil, item{key: "k"}))...), 400},
			"an unknown set":              {pathPush, pushOf([]record{{set: setCount, key: "k"}}), 400},
			"a length beyond the end":     {pathPush, appendBytes(nil, binary.AppendUvarint([]byte{0}, 1<<62)), 400},
			"a key of 1 MB":               {pathPush, object(strings.Repeat("k", 1<<20)), 400},
			"a key that is not text":      {pathPush, object("DaemonSet/default/\xff"), 200},
			"a key with a NUL":            {pathPush, object("DaemonSet/default/\x00"), 200},
			"a key with a new line":       {pathPush, object("DaemonSet/default/a\nb"), 200},
			"no key":                      {pathPush, object(""), 200},
			"a unit that is not text":     {pathPush, status(Status{Node: "evil", Unit: "\xff", Sequence: 1, Body: []byte("x")}), 200},
			"a unit with a NUL":           {pathPush, status(Status{Node: "evil", Unit: "a\x00b", Sequence: 1, Body: []byte("x")}), 200},
			"a unit of 1,000 bytes":       {pathPush, status(Status{Node: "evil", Unit: strings.Repeat("u", 1000), Sequence: 1, Body: []byte("x")}), 200},
			"a unit of 1 MB":              {pathPush, status(Status{Node: "evil", Unit: strings.Repeat("u", 1<<20), Sequence: 1, Body: []byte("x")}), 400},
			"an enormous sequence":        {pathPush, status(Status{Node: "evil", Sequence: 1<<64 - 1, Body: []byte("x")}), 200},
			"an enormous status":          {pathPush, status(Status{Node: "evil", Sequence: 1, Body: make([]byte, MaxStatus+1)}), 200},
			"a status under another key":  {pathPush, pushOf([]record{{set: setStatuses, key: "evil\x00b", data: forgeStatus(t, auth, Status{Node: "evil", Unit: "a", Sequence: 1, Body: []byte("x")}).encode()}}), 200},
			"a short digest":              {pathCompare, []byte("x"), 400},
			"a long digest":               {pathCompare, make([]byte, 1<<20), 400},
			"buckets of no set":           {pathBuckets, []byte{setCount}, 400},
			"groups that are not there":   {pathBuckets, []byte{0, groupCount}, 400},
			"a thousand groups":           {pathBuckets, make([]byte, 1000), 400},
			"items of no set":             {pathItems, []byte{9, 0, 0, 1}, 400},
			"half a bucket":               {pathItems, []byte{0, 0, 1}, 400},
			"a bucket that is not there":  {pathItems, []byte{0, 0, 0xff, 0xff}, 400},
			"a bucket twice":              {pathItems, []byte{0, 0, 0, 1, 0, 1}, 400},
			"more buckets than there are": {pathItems, make([]byte, 2+2*bucketCount+2), 400},
			"too many keys":               {pathFetch, append([]byte{0}, many(maxElements+1, appendBytes(nil, "k"))...), 400},
			"a million empty keys":        {pathFetch, make([]byte, 1<<20), 400},
			"keys of no set":              {pathFetch, []byte{7}, 400},
			"a path of nobody":            {PeerPath + "other", nil, 400},
		}
		c, before, resources := evil.own(), f.snapshot(), measure()
		defer c.CloseIdleConnections()
		for name, k := range cases {
			was := honest.r.Stats()
			code, answer := post(c, honest, k.path, k.body)
			is := honest.r.Stats()
			if code != k.code || code != 200 && is.Rejected != was.Rejected+1 || code == 200 && is.Refused != was.Refused+1 {
				t.Errorf("%s: answered with %d %.100q, rejected %d, refused %d", name, code, answer, is.Rejected-was.Rejected, is.Refused-was.Refused)
			}
		}
		for name, send := range map[string]func(r *http.Request){
			"beyond the limit":  func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(zeros{}), maxMessage+1 },
			"of no length":      func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(zeros{}), -1 },
			"a GET":             func(r *http.Request) { r.Method = http.MethodGet },
			"shorter than said": func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(strings.NewReader("abc")), 1000 },
		} {
			r, _ := http.NewRequest(http.MethodPost, honest.url(pathPush), http.NoBody)
			send(r)
			if res, err := c.Do(r); err == nil {
				if res.StatusCode < 400 {
					t.Errorf("a message %s is answered with %s", name, res.Status)
				}
				_ = res.Body.Close()
			}
		}
		for i := range 30 { // of what others claim to have no more is remembered than that
			var items []item
			for k := range 1000 {
				items = append(items, item{key: fmt.Sprintf("%d/%d/%s", i, k, strings.Repeat("x", 900)), order: 1<<64 - 1})
			}
			post(c, honest, pathPush, pushOf(nil, items...))
		}
		honest.r.mu.Lock()
		n := len(honest.r.ahead)
		honest.r.mu.Unlock()
		if n > maxAheadKeys {
			t.Errorf("%d keys are remembered", n)
		}
		time.Sleep(time.Minute)
		if n := honest.r.Stats().Behind; n != 0 {
			t.Errorf("a minute later it still believes to be behind by %d", n)
		}
		f.grown(resources, "messages")
		f.unchanged(before)
	})
}

// held is how many requests a host is at.
func held(a *agent) int {
	a.r.gate.mu.Lock()
	defer a.r.gate.mu.Unlock()
	return a.r.gate.count
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

// Replayed news change nothing, and cost no signature.
func TestHostileReplays(t *testing.T) {
	withRogue(t, 5, func(t *testing.T, f *agents, evil *rogue) {
		var old []record
		for i := range 5 {
			old = append(old, objectRecord(f.list[0].mustPut("DaemonSet/default/web", fmt.Sprint("v", i))))
			f.list[1].say("default/web", fmt.Sprint(i))
			st, _ := f.list[1].statuses.Get("host-01", "default/web")
			old = append(old, statusRecord(st))
		}
		f.within(time.Minute, "all are alike", func() bool { return alike(f.list) })
		before, c := f.snapshot(), evil.own()
		defer c.CloseIdleConnections()
		for _, a := range f.list {
			was := a.r.Stats()
			for range 10 {
				if code, answer := post(c, a, pathPush, pushOf(old)); code != 200 {
					t.Errorf("%d %s", code, answer)
				}
			}
			if is := a.r.Stats(); is.Taken != was.Taken || is.Refused != was.Refused || is.Pushes != was.Pushes {
				t.Errorf("%+v became %+v", was, is)
			}
		}
		f.unchanged(before)
	})
}

// Ten thousand requests at once, slow bodies and answers that nobody reads: others are served meanwhile, and afterwards all is as it was.
func TestHostileFloods(t *testing.T) {
	withRogue(t, 6, func(t *testing.T, f *agents, evil *rogue) {
		honest := f.list[1]
		var resources resources
		for _, flood := range []int{10_000, 2_000} { // what is more after the second one than after the first is a leak
			time.Sleep(time.Minute)
			resources = measure()
			c := &http.Client{Transport: &http.Transport{
				TLSClientConfig:   &tls.Config{Certificates: []tls.Certificate{evil.identity().Certificate}, InsecureSkipVerify: true}, //nolint:gosec // it is hostile
				ForceAttemptHTTP2: true, DialContext: evil.host.Dial, MaxConnsPerHost: 40,
			}}
			digest := honest.r.digest()
			var all sync.WaitGroup
			for range flood {
				all.Go(func() { post(c, honest, pathCompare, digest[:]) })
			}
			f.works()
			all.Wait()
			c.CloseIdleConnections()
		}
		func() { // slow bodies
			busy := honest.r.Stats().Busy
			var conns []io.Closer
			for range 100 {
				raw, err := evil.host.Dial(t.Context(), "tcp", honest.host.Addr().String()+":9746")
				if err != nil {
					t.Fatal(err)
				}
				conn := tls.Client(raw, &tls.Config{Certificates: []tls.Certificate{evil.identity().Certificate}, InsecureSkipVerify: true}) //nolint:gosec // it is hostile
				fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nabc", pathPush)
				conns = append(conns, conn)
			}
			time.Sleep(time.Second)
			if n := held(honest); n != maxServingEach {
				t.Errorf("%d slots are held by one host", n)
			}
			if n := honest.r.Stats().Busy - busy; n < 90 {
				t.Errorf("%d were turned away", n)
			}
			f.works()
			time.Sleep(callWithin)
			if n := held(honest); n != 0 {
				t.Errorf("%d slots are held after the time is over", n)
			}
			for _, conn := range conns {
				_ = conn.Close()
			}
		}()
		time.Sleep(time.Minute)
		f.grown(resources, "requests and slow bodies")
		func() { // answers that nobody reads
			f.list[0].mustPut("ConfigMap/default/large", strings.Repeat("x", MaxBody-1000))
			f.within(10*time.Second, "the large object is everywhere", func() bool { return alike(f.list) })
			resources = measure()
			var conns []io.Closer
			body := appendKeys([]byte{setObjects}, []string{"ConfigMap/default/large"})
			for range 20 {
				raw, err := evil.host.Dial(t.Context(), "tcp", honest.host.Addr().String()+":9746")
				if err != nil {
					t.Fatal(err)
				}
				conn := tls.Client(raw, &tls.Config{Certificates: []tls.Certificate{evil.identity().Certificate}, InsecureSkipVerify: true}) //nolint:gosec // it is hostile
				fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", pathFetch, len(body), body)
				conns = append(conns, conn)
			}
			time.Sleep(time.Second)
			if n := held(honest); n != maxServingEach {
				t.Errorf("%d slots are held by one host", n)
			}
			f.works()
			time.Sleep(callWithin + 5*time.Second) // a TLS connection takes 5 s to say that it is closed
			if n := held(honest); n != 0 {
				t.Errorf("%d slots are held after the time is over", n)
			}
			for _, conn := range conns {
				_ = conn.Close()
			}
		}()
		time.Sleep(time.Minute)
		f.grown(resources, "answers that nobody reads")
		f.works()
	})
}
