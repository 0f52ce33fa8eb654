package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/picketd/picket/cluster/pki"
)

const (
	// peerDial bounds how long a connection to another host may take to stand, peerIdle how long it is kept when nothing moves.
	peerDial = 3 * time.Second
	peerIdle = 5 * time.Minute
	// idlePerHost is how many connections to one host are kept: news, comparisons and forwarded requests do not wait for each other.
	idlePerHost = 3
)

// PeersConfig is how this host reaches others over mTLS.
type PeersConfig struct {
	// Identity is asked every time, so that new certificates are taken up.
	Identity func() *pki.Identity
	Roster   *Roster
	// Address is where a host's API is, host:port; false when that is not known. It need not be true: the certificate decides.
	Address func(node string) (string, bool)
	// Heard notes a sign of life; nil is nobody.
	Heard func(node string, at time.Time)
	// Dial is for tests; nil is the real thing.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Peers are the connections to other hosts' APIs: mutual TLS, bound to the node's name, refused when a host was deleted, and kept.
type Peers struct {
	config PeersConfig
	http   *http.Transport

	mu   sync.Mutex
	used *pki.Identity // of the connections that are kept
}

// NewPeers connects to nobody yet.
func NewPeers(config PeersConfig) *Peers {
	if config.Dial == nil {
		config.Dial = (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext
	}
	p := &Peers{config: config}
	p.http = &http.Transport{
		DialTLSContext: p.dial, MaxIdleConnsPerHost: idlePerHost, IdleConnTimeout: peerIdle, DisableCompression: true,
		ForceAttemptHTTP2: false, MaxResponseHeaderBytes: 64 << 10,
	}
	return p
}

// Close ends the connections that are not in use.
func (p *Peers) Close() { p.http.CloseIdleConnections() }

// Caller tells which host shows a certificate. The connection it came with was verified with the fleet's authorities.
func (p *Peers) Caller(cert *x509.Certificate) (Signer, error) {
	by, err := signerOf(cert)
	if err != nil {
		return Signer{}, err
	}
	if p.config.Roster.Refused(by.Node, cert.NotBefore) {
		return Signer{}, fmt.Errorf("%s was deleted from the fleet: picket admit %s, or a new certificate, takes it back", by.Node, by.Node)
	}
	if p.config.Heard != nil {
		p.config.Heard(by.Node, time.Now())
	}
	return by, nil
}

// Transport sends requests to a host's API, whatever their scheme and host.
func (p *Peers) Transport(node string) (http.RoundTripper, error) {
	if s, ok := p.config.Roster.Standing(node); ok && s.State == RosterDeleted {
		return nil, fmt.Errorf("%s was deleted from the fleet", node)
	}
	if _, ok := p.config.Address(node); !ok {
		return nil, fmt.Errorf("the address of %s is not known: it was not heard since this agent started", node)
	}
	return peerTransport{peers: p, node: node}, nil
}

type peerTransport struct {
	peers *Peers
	node  string
}

func (t peerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	t.peers.renew()
	r = r.Clone(r.Context())
	r.URL.Scheme, r.URL.Host = "https", t.node
	res, err := t.peers.http.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if t.peers.config.Heard != nil {
		t.peers.config.Heard(t.node, time.Now())
	}
	return res, nil
}

// renew drops kept connections when this host has a new identity: they stand for the old one.
func (p *Peers) renew() {
	id := p.config.Identity()
	p.mu.Lock()
	changed := p.used != nil && p.used != id
	p.used = id
	p.mu.Unlock()
	if changed {
		p.http.CloseIdleConnections()
	}
}

// dial connects to a node, which is the host of the URL.
func (p *Peers) dial(ctx context.Context, network, hostPort string) (net.Conn, error) {
	node, _, err := net.SplitHostPort(hostPort)
	if err != nil {
		return nil, err
	}
	address, ok := p.config.Address(node)
	if !ok {
		return nil, fmt.Errorf("the address of %s is not known", node)
	}
	ctx, cancel := context.WithTimeout(ctx, peerDial)
	defer cancel()
	raw, err := p.config.Dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, p.tlsConfig(node))
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("%s at %s: %w", node, address, err), raw.Close())
	}
	return conn, nil
}

func (p *Peers) tlsConfig(node string) *tls.Config {
	id := p.config.Identity()
	return &tls.Config{
		Certificates: []tls.Certificate{id.Certificate}, RootCAs: id.Authorities, ServerName: node, MinVersion: tls.VersionTLS13,
		NextProtos: []string{"http/1.1"}, // connections are upgraded
		VerifyConnection: func(state tls.ConnectionState) error {
			cert := state.PeerCertificates[0]
			by, err := signerOf(cert)
			switch {
			case err != nil:
				return err
			case by.Node != node: // names are not all that a certificate may be valid for
				return fmt.Errorf("it is %s, not %s", by.Node, node)
			case p.config.Roster.Refused(node, cert.NotBefore):
				return fmt.Errorf("%s was deleted from the fleet", node)
			}
			return nil
		},
	}
}

// post sends a message to a host and returns its answer, of at most limit bytes.
func (p *Peers) post(ctx context.Context, node, path string, body []byte, limit int64) ([]byte, error) {
	t, err := p.Transport(node)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+node+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header["User-Agent"] = nil // fewer bytes
	res, err := t.RoundTrip(r)
	if err != nil {
		return nil, fmt.Errorf("cannot call %s: %w", node, err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, limit+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("cannot read what %s answers: %w", node, err)
	case res.StatusCode/100 != 2:
		return nil, fmt.Errorf("%s answers %s: %.200s", node, res.Status, answer)
	case int64(len(answer)) > limit:
		return nil, fmt.Errorf("%s answers more than %d bytes", node, limit)
	}
	return answer, nil
}
