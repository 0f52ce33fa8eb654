package cluster

import (
	"fmt"
	"io"
	"net/http"
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

// maxServing bounds the requests of other hosts that are answered at one time: each may hold a message in memory.
const maxServing = 32

// ServeHTTP answers other hosts' agents. The connection must have come with a client certificate that was verified with the
// fleet's authorities; whose it is, and whether that host was deleted, is looked at here.
func (r *Replication) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.stats.served.Add(1)
	from, err := r.caller(req)
	if err != nil {
		r.stats.rejected.Add(1)
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	select {
	case r.serving <- struct{}{}:
		defer func() { <-r.serving }()
	default:
		r.stats.busy.Add(1)
		http.Error(w, "too many requests", http.StatusTooManyRequests)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxMessage))
	var answer []byte
	if err == nil {
		answer, err = r.answer(from.Node, req.URL.Path, body)
	}
	if err != nil {
		r.stats.rejected.Add(1)
		r.log.Debug("another host's request is refused", "host", from.Node, "path", req.URL.Path, "err", err)
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header()["Date"] = nil // fewer bytes
	w.Header()["Content-Type"] = nil
	_, _ = w.Write(answer)
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
