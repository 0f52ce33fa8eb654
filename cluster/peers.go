package cluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"syscall"
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
	trust  *certificates

	mu         sync.Mutex
	used       *pki.Identity // of the connections that are kept
	identities int           // how many there have been
}

// NewPeers connects to nobody yet.
func NewPeers(config PeersConfig) *Peers {
	if config.Dial == nil {
		config.Dial = (&net.Dialer{KeepAliveConfig: keepAlive, Control: giveUpOnSilence}).DialContext
	}
	p := &Peers{config: config, trust: &certificates{identity: config.Identity, trusted: map[[sha256.Size]byte]trusted{}}}
	p.http = &http.Transport{
		DialTLSContext: p.dial, MaxIdleConnsPerHost: idlePerHost, IdleConnTimeout: peerIdle, DisableCompression: true,
		ForceAttemptHTTP2: false, MaxResponseHeaderBytes: 64 << 10,
	}
	return p
}

// A host that lost its power answers nothing: a followed log or a command on a connection to it must end, and not wait the quarter of
// an hour that TCP tries. Silence is found by probing while nothing is sent, and by what is sent and not confirmed.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 5 * time.Second, Count: 3}

const silence = 15 * time.Second

func giveUpOnSilence(_, _ string, c syscall.RawConn) error {
	const tcpUserTimeout = 0x12 // TCP_USER_TIMEOUT of linux/tcp.h, in milliseconds; package syscall has no name for it
	var err error
	if e := c.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(silence.Milliseconds()))
	}); e != nil {
		return e
	}
	return err
}

// Close ends the connections that are not in use.
func (p *Peers) Close() { p.http.CloseIdleConnections() }

// Caller tells which host shows a certificate. The connection it came with was verified with the fleet's authorities, but it may have
// been kept for long: what has expired since, or was signed by an authority that the fleet has no more, is refused too.
func (p *Peers) Caller(cert *x509.Certificate) (Signer, error) {
	t, err := p.trust.trust(cert.Raw)
	if err == nil {
		err = p.current(cert, t.signer.Node)
	}
	if err != nil {
		return Signer{}, err
	}
	if p.config.Heard != nil {
		p.config.Heard(t.signer.Node, time.Now())
	}
	return t.signer, nil
}

// current refuses certificates whose time is over, and those of hosts that were deleted.
func (p *Peers) current(cert *x509.Certificate, node string) error {
	switch {
	case time.Now().After(cert.NotAfter):
		return fmt.Errorf("the certificate of %s expired on %s", node, cert.NotAfter.UTC().Format(time.DateOnly))
	case p.config.Roster.Refused(node, cert.NotBefore):
		return fmt.Errorf("%s was deleted from the fleet: picket admit %s, or a new certificate, takes it back", node, node)
	}
	return nil
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
	identity := t.peers.renew()
	r = r.Clone(r.Context())
	// The port, which means nothing to dial, keeps connections apart that stand for different identities of this host.
	r.URL.Scheme, r.URL.Host = "https", net.JoinHostPort(t.node, strconv.Itoa(identity))
	if r.Host == "" {
		r.Host = t.node
	}
	res, err := t.peers.http.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if t.peers.config.Heard != nil {
		t.peers.config.Heard(t.node, time.Now())
	}
	return res, nil
}

// renew drops kept connections when this host has a new identity: they stand for the old one. It returns which identity it is, from 1.
func (p *Peers) renew() int {
	id := p.config.Identity()
	p.mu.Lock()
	changed := p.used != id
	if changed {
		p.used = id
		p.identities++
	}
	identities := p.identities
	p.mu.Unlock()
	if changed {
		p.http.CloseIdleConnections()
	}
	return identities
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
	cert := conn.ConnectionState().PeerCertificates[0]
	return peerConn{Conn: conn, current: func() error { return p.current(cert, node) }}, nil
}

// peerConn is a connection to a host that ends when the host is deleted or its certificate expires.
type peerConn struct {
	*tls.Conn
	current func() error
}

func (c peerConn) Write(b []byte) (int, error) {
	if err := c.current(); err != nil {
		return 0, errors.Join(err, c.Close())
	}
	return c.Conn.Write(b)
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
			}
			return p.current(cert, node)
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
