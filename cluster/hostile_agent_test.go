package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/picketd/picket/cluster/pki"
)

// rogue is a member of the fleet with a certificate of its own, of a plain host if nothing else is said, whose agent does what it
// likes: it is in the gossip and in the roster, calls others with any certificate, and answers as it is told to.
type rogue struct {
	*agent
	http *http.Server

	mu     sync.Mutex
	answer func(w http.ResponseWriter, path string, body []byte)
	calls  map[string]int // by path, since they were last taken
}

func (f *agents) rogue(name string, seeds ...*agent) *rogue {
	f.t.Helper()
	a := f.add(name, false, seeds...)
	f.within(time.Minute, "all see the rogue", f.met)
	f.list = slices.DeleteFunc(f.list, func(b *agent) bool { return b == a })
	a.r.Close()
	_ = a.server.Close()
	e := &rogue{agent: a, calls: map[string]int{}}
	e.serve(a.serving.TLSConfig())
	return e
}

// serve answers at the agent's address; it may be called again, with another certificate.
func (e *rogue) serve(config *tls.Config) {
	e.http = serveAt(e.agent, config, e)
}

// serveAt serves at a host's address what answers there, in place of its agent.
func serveAt(a *agent, config *tls.Config, handler http.Handler) *http.Server {
	listener, err := a.host.Listen(apiPort)
	if err != nil {
		a.f.t.Fatal(err)
	}
	server := &http.Server{Handler: handler, TLSConfig: config, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	go func() { _ = server.ServeTLS(listener, "", "") }()
	return server
}

func (e *rogue) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	e.mu.Lock()
	e.calls[r.URL.Path]++
	answer := e.answer
	e.mu.Unlock()
	if answer != nil {
		answer(w, r.URL.Path, body)
	}
}

func (e *rogue) answers(f func(w http.ResponseWriter, path string, body []byte)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.answer = f
}

func (e *rogue) takeCalls() (total int, calls map[string]int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	calls, e.calls = e.calls, map[string]int{}
	for _, n := range calls {
		total += n
	}
	return total, calls
}

func (e *rogue) end() {
	_ = e.http.Close()
	if err := e.m.Close(); err != nil {
		e.f.t.Error(err)
	}
	e.r = nil
}

// client calls others with a certificate; it trusts whoever answers.
func (e *rogue) client(certs ...tls.Certificate) *http.Client {
	return &http.Client{Transport: &http.Transport{
		ForceAttemptHTTP2: false, DisableCompression: true, MaxIdleConnsPerHost: 100,
		DialTLSContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			raw, err := e.host.Dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			conn := tls.Client(raw, &tls.Config{Certificates: certs, InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}) //nolint:gosec // it is hostile
			if err := conn.HandshakeContext(ctx); err != nil {
				return nil, errors.Join(err, raw.Close())
			}
			return conn, nil
		},
	}}
}

func (e *rogue) own() *http.Client { return e.client(e.identity().Certificate) }

func (a *agent) url(path string) string {
	return fmt.Sprintf("https://%s:%d%s", a.host.Addr(), apiPort, path)
}

// post sends a body and says what was answered; 0 is no answer at all.
func post(c *http.Client, to *agent, path string, body []byte) (code int, answer string) {
	res, err := c.Post(to.url(path), "", bytes.NewReader(body))
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err.Error()
	}
	return res.StatusCode, string(text)
}

// pushOf is the body of a push.
func pushOf(records []record, items ...item) []byte {
	var news []byte
	for _, r := range records {
		news = appendRecord(news, r)
	}
	b := appendBytes(nil, news)
	for _, i := range items {
		b = appendItem(b, i)
	}
	return b
}

func objectRecord(o Object) record { return record{set: setObjects, key: o.Key, data: encode(o)} }

func statusRecord(s Status) record {
	return record{set: setStatuses, key: s.id().key(), data: s.encode()}
}

// pair makes a key and a certificate as others use them.
func pair(t testing.TB, p pki.Pair, err error) tls.Certificate {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(p.Cert, p.Key)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// signs makes an Authenticator of a certificate.
func signs(f *agents, cert tls.Certificate) Authenticator {
	id := *f.list[0].identity()
	id.Certificate = cert
	return Certificates(func() *pki.Identity { return &id })
}

// forge signs an object without asking anybody.
func forge(t testing.TB, auth Authenticator, o Object) Object {
	t.Helper()
	anything := &Seal{Fleet: "fleet", Auth: auth, Permit: func(Signer, string) error { return nil }}
	if o.Birth == 0 {
		o.Birth = 1
	}
	o.Time = displayTime(time.Now())
	if err := anything.sign(&o); err != nil {
		t.Fatal(err)
	}
	return o
}

// forgeStatus signs a status with any certificate.
func forgeStatus(t testing.TB, auth Authenticator, s Status) Status {
	t.Helper()
	var err error
	if s.Signature, err = auth.Sign(func(Signer, []byte) []byte { return s.signedPart("fleet") }); err != nil {
		t.Fatal(err)
	}
	return s
}

// snapshot is what a fleet has, to see that nothing of it changes.
func (f *agents) snapshot() map[string][digestSize]byte {
	all := map[string][digestSize]byte{}
	for _, a := range f.list {
		all[a.name] = a.r.digest()
	}
	return all
}

// unchanged says that all is as it was, and that the hosts still work together: the next apply is everywhere at once.
func (f *agents) unchanged(before map[string][digestSize]byte) {
	f.t.Helper()
	for _, a := range f.list {
		if a.r.digest() != before[a.name] {
			f.t.Errorf("%s has something else than before: objects %v, statuses %v", a.name, keysOf(a.store.All()), a.statuses.All())
		}
	}
	f.works()
}

var applied int

func (f *agents) works() {
	f.t.Helper()
	applied++
	key, content := "ConfigMap/default/after", fmt.Sprint(applied)
	f.list[applied%len(f.list)].mustPut(key, content)
	f.within(3*time.Second, "an apply is everywhere", func() bool { return f.everyone(func(a *agent) bool { return a.has(key, content) }) })
}

func keysOf(objects []Object) (keys []string) {
	for _, o := range objects {
		keys = append(keys, o.Key)
	}
	return keys
}

// resources are goroutines and the heap; growth is looked at when all that ends by itself has ended.
type resources struct {
	goroutines int
	heap       uint64
}

func measure() resources {
	goruntime.GC()
	goruntime.GC()
	var m goruntime.MemStats
	goruntime.ReadMemStats(&m)
	return resources{goruntime.NumGoroutine(), m.HeapAlloc}
}

// grown complains about more than 20 goroutines or 8 MiB more than before.
func (f *agents) grown(before resources, what string) {
	f.t.Helper()
	now := measure()
	heap := int64(now.heap) - int64(before.heap)
	f.t.Logf("%s: %d goroutines and %d KiB more than before", what, now.goroutines-before.goroutines, heap>>10)
	if now.goroutines > before.goroutines+20 || heap > 8<<20 {
		f.t.Errorf("%s: grew by too much", what)
		if now.goroutines > before.goroutines+20 {
			b := make([]byte, 1<<20)
			f.t.Log(strings.Join(strings.SplitN(string(b[:goruntime.Stack(b, true)]), "\n\n", 40), "\n\n"))
		}
	}
}
