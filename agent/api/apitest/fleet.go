package apitest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/picketd/picket/agent/api"
	"github.com/picketd/picket/cluster/pki"
)

// Fleet is hosts in one process that reach each other's API over mTLS, with certificates as `picket pki` makes them.
type Fleet struct {
	mu      sync.Mutex
	members map[string]*member
	// Asked are the calls of Admit ("admit NODE") and Leave ("leave NODE") so far.
	asked []string
}

type member struct {
	*Host
	certificate tls.Certificate
	address     string
	cut         bool
	deleted     bool
}

// StartFleet serves an empty cache for each host until the test ends.
func StartFleet(t testing.TB, hosts []pki.Host, configure ...func(*api.Options)) *Fleet {
	t.Helper()
	dir := t.TempDir()
	authority, keys, err := pki.Init(dir, "prod", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ca := readAuthority(t, dir)
	f := &Fleet{members: map[string]*member{}}
	for i, host := range hosts {
		pair, err := authority.IssueHost(host, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		at := t.TempDir()
		if err := (pki.HostKit{CA: authority.TrustedPEM(), Pair: pair, Gossip: keys}).Write(at, false); err != nil {
			t.Fatal(err)
		}
		f.start(t, host, ca, at, uint16(i+1), configure)
	}
	return f
}

func (f *Fleet) start(t testing.TB, host pki.Host, ca *Authority, dir string, prefix uint16, configure []func(*api.Options)) {
	t.Helper()
	serving, err := pki.NewServing(dir, time.Now, func(err error) { t.Errorf("the certificates of %s: %v", host.Node, err) })
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &member{certificate: serving.Identity().Certificate, address: listener.Addr().String()}
	f.mu.Lock()
	f.members[host.Node] = m
	f.mu.Unlock()
	m.Host = StartOn(t, listener, ca, api.NewCache(Versions(prefix)), slices.Concat([]func(*api.Options){func(o *api.Options) {
		o.NodeName, o.TLSConfig, o.Fleet = host.Node, serving.TLSConfig(), &view{fleet: f, self: host.Node, authorities: ca.pool}
		o.Door = func() bool { return serving.Identity().Door() }
	}}, configure)...)
}

// readAuthority reads an authority that picket pki made, to issue certificates that it would not.
func readAuthority(t testing.TB, dir string) *Authority {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, pki.FileCA))
	if err != nil {
		t.Fatal(err)
	}
	secret, err := os.ReadFile(filepath.Join(dir, pki.FileCAKey))
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(text, secret)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(pair.Leaf)
	block, _ := pem.Decode(text)
	return &Authority{cert: pair.Leaf, key: pair.PrivateKey.(crypto.Signer), pool: pool, pem: pem.EncodeToMemory(block)}
}

// Host is the host of a name.
func (f *Fleet) Host(node string) *Host { return f.member(node).Host }

func (f *Fleet) member(node string) *member {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.members[node]
}

// Cut keeps the other hosts from reaching one.
func (f *Fleet) Cut(node string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.members[node].cut = true
}

// Delete has every host refuse one.
func (f *Fleet) Delete(node string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.members[node].deleted = true
}

// Asked are the calls so far: "admit NODE", "leave NODE".
func (f *Fleet) Asked() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.asked)
}

func (f *Fleet) ask(what, node string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, what+" "+node)
}

// Transport reaches to's API with from's certificate, for requests that from's agent would not make.
func (f *Fleet) Transport(t testing.TB, from, to string) http.RoundTripper {
	t.Helper()
	v := &view{fleet: f, self: from, authorities: f.Host(from).authority.pool}
	transport, err := v.Transport(to)
	if err != nil {
		t.Fatal(err)
	}
	return transport
}

// view is the fleet as one host sees it.
type view struct {
	fleet       *Fleet
	self        string
	authorities *x509.CertPool
}

func (v *view) Peer(cert *x509.Certificate) (node string, door bool, err error) {
	node = cert.Subject.CommonName
	if !slices.Contains(cert.Subject.Organization, pki.GroupHosts) {
		return "", false, fmt.Errorf("%q is no host", node)
	}
	if m := v.fleet.member(node); m != nil {
		v.fleet.mu.Lock()
		defer v.fleet.mu.Unlock()
		if m.deleted && bytes.Equal(m.certificate.Leaf.Raw, cert.Raw) {
			return "", false, fmt.Errorf("%s was deleted from the fleet", node)
		}
	}
	return node, slices.Contains(cert.Subject.Organization, pki.GroupDoors), nil
}

func (v *view) Transport(node string) (http.RoundTripper, error) {
	m := v.fleet.member(node)
	if m == nil {
		return nil, fmt.Errorf("%s is not known", node)
	}
	self := v.fleet.member(v.self)
	return &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			v.fleet.mu.Lock()
			cut := m.cut
			v.fleet.mu.Unlock()
			if cut {
				return nil, errors.New("the link is cut")
			}
			return (&net.Dialer{}).DialContext(ctx, network, m.address)
		},
		TLSClientConfig:   &tls.Config{Certificates: []tls.Certificate{self.certificate}, RootCAs: v.authorities, ServerName: node, MinVersion: tls.VersionTLS13},
		DisableKeepAlives: true, DisableCompression: true,
	}, nil
}

func (v *view) Admit(_ context.Context, node string) error {
	if m := v.fleet.member(node); m == nil || !m.deleted {
		return fmt.Errorf("%s was not deleted", node)
	}
	v.fleet.ask("admit", node)
	return nil
}

func (v *view) Leave(context.Context) error {
	v.fleet.ask("leave", v.self)
	return nil
}
