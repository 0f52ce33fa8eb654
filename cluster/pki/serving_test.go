package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is a time that the test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) set(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = now
}

// reports is what a Serving told.
type reports struct {
	mu  sync.Mutex
	all []error
}

func (r *reports) add(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, err)
}

func (r *reports) take() []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.all
	r.all = nil
	return all
}

type served struct {
	*Serving
	dir       string
	authority *Authority
	clock     *clock
	reports   *reports
}

func serve(t *testing.T) served {
	t.Helper()
	s := served{dir: t.TempDir(), authority: newAuthority(t), clock: &clock{now: epoch}, reports: &reports{}}
	writeHost(t, s.dir, s.authority, issueHost(t, s.authority, host, epoch))
	var err error
	if s.Serving, err = NewServing(s.dir, s.clock.Now, s.reports.add); err != nil {
		t.Fatal(err)
	}
	return s
}

// client is a TLS client that trusts an authority and shows a pair, if it has a certificate.
func (s served) client(t *testing.T, trusts *Authority, shows Pair) *tls.Config {
	t.Helper()
	config := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "host-01", Time: s.clock.Now, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	config.RootCAs.AddCert(trusts.cert)
	if shows.Cert != nil {
		pair, err := tls.X509KeyPair(shows.Cert, shows.Key)
		if err != nil {
			t.Fatal(err)
		}
		// Whatever the server asks for, this one is shown.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	return config
}

// handshake connects and returns what the server and the client learnt of each other.
func handshake(t *testing.T, server, client *tls.Config) (seen, shown tls.ConnectionState, err error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Error(err)
		return seen, shown, err
	}
	defer listener.Close()
	done := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			defer conn.Close()
			served := tls.Server(conn, server)
			_, err = served.Write([]byte("."))
			seen = served.ConnectionState()
		}
		done <- err
	}()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Error(err)
		return seen, shown, err
	}
	calling := tls.Client(conn, client)
	_, err = calling.Read(make([]byte, 1)) // with TLS 1.3 a client hears of a refusal when it reads
	shown = calling.ConnectionState()
	_ = conn.Close()
	return seen, shown, errors.Join(<-done, err)
}

func TestHandshakes(t *testing.T) {
	s := serve(t)
	other := newAuthority(t)
	user := func(a *Authority, role Role, validity time.Duration, now time.Time) Pair {
		return issueUser(t, a, User{Name: "ana", Role: role, Validity: validity}, now)
	}
	for name, c := range map[string]struct {
		trusts  *Authority
		shows   Pair
		change  func(*tls.Config)
		refused string
		groups  []string
	}{
		"viewer":           {shows: user(s.authority, Viewer, 0, epoch), groups: []string{"picket:viewers"}},
		"operator":         {shows: user(s.authority, Operator, 0, epoch), groups: []string{"picket:operators"}},
		"admin":            {shows: user(s.authority, Admin, 0, epoch), groups: []string{"picket:admins"}},
		"another host":     {shows: issueHost(t, s.authority, Host{Node: "host-02", Door: true}, epoch), groups: []string{GroupDoors, GroupHosts}},
		"no certificate":   {},
		"another fleet's":  {shows: user(other, Admin, 0, epoch), refused: "unknown certificate authority"},
		"expired":          {shows: user(s.authority, Admin, time.Hour, epoch.Add(-2*time.Hour)), refused: "expired"},
		"not yet valid":    {shows: user(s.authority, Admin, 0, epoch.Add(48*time.Hour)), refused: "expired"}, // Go's word for both
		"distrusts us":     {trusts: other, refused: "unknown authority"},
		"another name":     {change: func(c *tls.Config) { c.ServerName = "host-02" }, refused: "host-02"},
		"an address":       {change: func(c *tls.Config) { c.ServerName = "10.0.0.5" }},
		"an old TLS":       {change: func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, refused: "protocol version"},
		"HTTP/2 is spoken": {change: func(c *tls.Config) { c.NextProtos = []string{"h2"} }},
	} {
		t.Run(name, func(t *testing.T) {
			if c.trusts == nil {
				c.trusts = s.authority
			}
			config := s.client(t, c.trusts, c.shows)
			if c.change != nil {
				c.change(config)
			}
			seen, shown, err := handshake(t, s.TLSConfig(), config)
			if c.refused != "" {
				if err == nil || !strings.Contains(err.Error(), c.refused) {
					t.Errorf("error %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if shown.PeerCertificates[0].Subject.CommonName != "host-01" || len(config.NextProtos) > 0 && seen.NegotiatedProtocol != "h2" {
				t.Errorf("the client sees %s, speaks %q", shown.PeerCertificates[0].Subject, seen.NegotiatedProtocol)
			}
			if len(c.groups) == 0 {
				if len(seen.VerifiedChains) > 0 {
					t.Error("nobody is verified")
				}
				return
			}
			if got := slices.Sorted(slices.Values(seen.VerifiedChains[0][0].Subject.Organization)); !slices.Equal(got, c.groups) {
				t.Errorf("the server sees %v", got)
			}
		})
	}
}

// A user's certificate must not pass for a host's server.
func TestUserIsNoServer(t *testing.T) {
	s := serve(t)
	p := issueUser(t, s.authority, User{Name: "host-01", Role: Admin}, epoch)
	pair, err := tls.X509KeyPair(p.Cert, p.Key)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := handshake(t, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13}, s.client(t, s.authority, Pair{})); err == nil {
		t.Error("a client takes a user for a server")
	}
}

func TestServingTakesUpNewFiles(t *testing.T) {
	s := serve(t)
	server := s.TLSConfig()
	serial := func() string {
		t.Helper()
		_, shown, err := handshake(t, server, s.client(t, s.authority, Pair{}))
		if err != nil {
			t.Fatal(err)
		}
		return shown.PeerCertificates[0].SerialNumber.String()
	}
	first := serial()
	if again := serial(); again != first || len(s.reports.take()) > 0 {
		t.Error("unchanged files were taken up")
	}

	s.clock.set(epoch.Add(time.Hour))
	writeHost(t, s.dir, s.authority, issueHost(t, s.authority, host, s.clock.Now()))
	second := serial()
	if got := s.reports.take(); second == first || len(got) != 1 || got[0] != nil {
		t.Errorf("new files: serial changed %t, reports %v", second != first, got)
	}
	if end, _ := s.Identity().Expiry(); !end.Equal(s.clock.Now().Add(DefaultValidity)) {
		t.Errorf("the certificate in use ends on %s", end)
	}

	for name, spoil := range map[string]func() error{
		"half a pair": func() error {
			return writeFile(filepath.Join(s.dir, FileHostKey), issueHost(t, s.authority, host, epoch).Key, 0o600)
		},
		"garbage":       func() error { return os.WriteFile(filepath.Join(s.dir, FileHost), []byte("garbage"), 0o644) },
		"no file":       func() error { return os.Remove(filepath.Join(s.dir, FileHost)) },
		"another fleet": func() error { return writeFile(filepath.Join(s.dir, FileCA), newAuthority(t).CertificatePEM(), 0o644) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if serial() != second {
				t.Errorf("%s: the certificate changed", name)
			}
		}
		if got := s.reports.take(); len(got) != 1 || got[0] == nil || !strings.Contains(got[0].Error(), s.dir) {
			t.Errorf("%s: reports %v", name, got)
		}
	}
	writeHost(t, s.dir, s.authority, issueHost(t, s.authority, host, s.clock.Now()))
	if third := serial(); third == second {
		t.Error("repaired files were not taken up")
	}
	if got := s.reports.take(); len(got) != 1 || got[0] != nil {
		t.Errorf("repaired: reports %v", got)
	}
}

// When the fleet changes its authority, hosts trust both for a while, and then the old one no more: at once, also for clients
// that have been here before.
func TestServingChangesAuthorities(t *testing.T) {
	s := serve(t)
	server := s.TLSConfig()
	old, young := s.authority, newAuthority(t)
	oldUser := s.client(t, old, issueUser(t, old, User{Name: "ana", Role: Admin}, epoch))
	newUser := s.client(t, old, issueUser(t, young, User{Name: "ben", Role: Admin}, epoch))
	try := func(stage string, config *tls.Config, welcome bool) {
		t.Helper()
		if _, _, err := handshake(t, server, config); (err == nil) != welcome {
			t.Errorf("%s: %v", stage, err)
		}
	}
	try("before, the old", oldUser, true)
	try("before, the new", newUser, false)
	if err := writeFile(filepath.Join(s.dir, FileCA), slices.Concat(old.CertificatePEM(), young.CertificatePEM()), 0o644); err != nil {
		t.Fatal(err)
	}
	try("between, the old", oldUser, true)
	try("between, the new", newUser, true)
	writeHost(t, s.dir, young, issueHost(t, young, host, epoch))
	for _, config := range []*tls.Config{oldUser, newUser} {
		config.RootCAs.AddCert(young.cert)
	}
	try("after, the old", oldUser, false)
	try("after, the new", newUser, true)
}

// A certificate that expires while it is served is served on: clients refuse it with better words than a closed port has.
func TestServingOutlivesItsCertificate(t *testing.T) {
	s := serve(t)
	server := s.TLSConfig()
	s.clock.set(epoch.Add(DefaultValidity + time.Hour))
	if _, _, err := handshake(t, server, s.client(t, s.authority, Pair{})); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("a client says %v", err)
	}
	if got := s.reports.take(); len(got) > 0 {
		t.Errorf("reports %v", got)
	}
	// So does an agent that starts with it, but it says so.
	again, err := NewServing(s.dir, s.clock.Now, s.reports.add)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.reports.take(); len(got) != 1 || !errors.Is(got[0], ErrNotNow) {
		t.Errorf("reports %v", got)
	}
	writeHost(t, s.dir, s.authority, issueHost(t, s.authority, host, s.clock.Now()))
	if _, _, err := handshake(t, again.TLSConfig(), s.client(t, s.authority, Pair{})); err != nil {
		t.Error(err)
	}
}

func TestServingNeedsAnIdentity(t *testing.T) {
	dir := t.TempDir()
	if _, err := NewServing(dir, time.Now, nil); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), filepath.Join(dir, FileCA)) {
		t.Errorf("%v", err)
	}
}

func TestServingConcurrently(t *testing.T) {
	s := serve(t)
	server := s.TLSConfig()
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for range 20 {
				if _, _, err := handshake(t, server, s.client(t, s.authority, Pair{})); err != nil {
					t.Error(err)
				}
				_ = s.Identity().Node()
			}
		})
	}
	for range 10 {
		writeHost(t, s.dir, s.authority, issueHost(t, s.authority, host, epoch))
	}
	clients.Wait()
}

func BenchmarkUnchangedFiles(b *testing.B) {
	dir := b.TempDir()
	if _, err := FirstStart(dir, "prod", host, epoch); err != nil {
		b.Fatal(err)
	}
	s, err := NewServing(dir, func() time.Time { return epoch }, nil)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s.refresh()
	}
}
