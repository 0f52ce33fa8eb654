package cluster

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Paths of what agents ask each other. They are served beside the API, for other hosts' agents alone.
const (
	PeerPath = "/picket/v1/"

	pathPush    = PeerPath + "push"
	pathCompare = PeerPath + "compare"
	pathBuckets = PeerPath + "buckets"
	pathItems   = PeerPath + "items"
	pathFetch   = PeerPath + "fetch"
)

const (
	// maxServing bounds the requests of other hosts that are answered at one time, maxServingEach those of one host: an honest one
	// has one with news and one that compares, and may have forgotten as many when it was started again.
	maxServing     = 32
	maxServingEach = 4
	// maxHeld bounds the bytes of messages that are held meanwhile. Of those one host has at most one largest message.
	maxHeld = 4 * maxMessage
)

// ServeHTTP answers other hosts' agents. The connection must have come with a client certificate that was verified with the
// fleet's authorities; whose it is, and whether that host was deleted, is looked at here.
func (r *Replication) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.stats.served.Add(1)
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(callWithin)) // a recorder in a test has none
	from, err := r.caller(req)
	if err != nil {
		r.stats.rejected.Add(1)
		refuse(w, err, http.StatusForbidden)
		return
	}
	size := req.ContentLength
	if size < 0 || size > maxMessage {
		r.stats.rejected.Add(1)
		refuse(w, fmt.Errorf("a message says its length, which is at most %d bytes", maxMessage), http.StatusRequestEntityTooLarge)
		return
	}
	if !r.gate.enter(from.Node, size) {
		r.stats.busy.Add(1)
		refuse(w, errors.New("too many requests"), http.StatusTooManyRequests)
		return
	}
	defer r.gate.leave(from.Node, size)
	answer, err := r.read(w, req, from.Node)
	if err != nil {
		r.stats.rejected.Add(1)
		r.log.Debug("another host's request is refused", "host", from.Node, "path", req.URL.Path, "err", err)
		refuse(w, err, http.StatusBadRequest)
		return
	}
	reply(w, answer)
}

// refuse answers with an error and ends the connection: what remains of the request's body is not worth reading.
func refuse(w http.ResponseWriter, err error, code int) {
	if code != http.StatusTooManyRequests {
		w.Header().Set("Connection", "close")
	}
	http.Error(w, err.Error(), code)
}

func (r *Replication) read(w http.ResponseWriter, req *http.Request, from string) ([]byte, error) {
	body := make([]byte, req.ContentLength)
	if _, err := io.ReadFull(req.Body, body); err != nil {
		return nil, fmt.Errorf("cannot read the message: %w", err)
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	return r.answer(from, req.URL.Path, body)
}

// reply sends an answer to a host that may read slowly, or not at all.
func reply(w http.ResponseWriter, answer []byte) {
	w.Header()["Date"] = nil // fewer bytes
	w.Header()["Content-Type"] = nil
	w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
	within := http.NewResponseController(w)
	_ = within.SetWriteDeadline(time.Now().Add(callWithin))
	if _, err := w.Write(answer); err == nil && within.Flush() == nil {
		_ = within.SetWriteDeadline(time.Time{})
	}
}

func (r *Replication) caller(req *http.Request) (Signer, error) {
	if req.TLS == nil || len(req.TLS.VerifiedChains) == 0 || req.Method != http.MethodPost {
		return Signer{}, fmt.Errorf("%s is for other hosts' agents", req.URL.Path)
	}
	return r.config.Peers.Caller(req.TLS.VerifiedChains[0][0])
}

func (r *Replication) answer(from, path string, body []byte) ([]byte, error) {
	switch path {
	case pathPush:
		return r.receivePush(from, body)
	case pathCompare:
		return r.answerCompare(body)
	case pathBuckets:
		return r.answerBuckets(body)
	case pathItems:
		return r.answerItems(body)
	case pathFetch:
		return r.answerFetch(body)
	}
	return nil, fmt.Errorf("%s is not served", path)
}

// gate bounds what is served at one time, such that no host can keep others out.
type gate struct {
	mu    sync.Mutex
	count int
	bytes int64
	hosts map[string]load
}

type load struct {
	count int
	bytes int64
}

func (g *gate) enter(node string, bytes int64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.hosts[node]
	if g.count >= maxServing || l.count >= maxServingEach || g.bytes+bytes > maxHeld || l.bytes+bytes > maxMessage {
		return false
	}
	g.count, g.bytes = g.count+1, g.bytes+bytes
	g.hosts[node] = load{l.count + 1, l.bytes + bytes}
	return true
}

func (g *gate) leave(node string, bytes int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.count, g.bytes = g.count-1, g.bytes-bytes
	l := load{g.hosts[node].count - 1, g.hosts[node].bytes - bytes}
	if g.hosts[node] = l; l.count == 0 {
		delete(g.hosts, node)
	}
}
