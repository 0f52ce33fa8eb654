package pki

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Serving is a host's identity on its listeners. It takes up new files without a restart: every handshake looks whether they
// have changed, which costs three stats.
type Serving struct {
	dir    string
	now    func() time.Time
	report func(error)

	mu     sync.Mutex
	id     *Identity
	config *tls.Config // made from id
	seen   []os.FileInfo
}

// NewServing reads the identity in dir. One that is not valid now is served all the same, and reported: clients refuse it, but
// the host's unix socket and its pods do not depend on it. Later files that cannot be used leave the present identity in place;
// report, which may be called from any goroutine, hears why, once for each change, and hears nil when new files were taken up.
func NewServing(dir string, now func() time.Time, report func(error)) (*Serving, error) {
	s := &Serving{dir: dir, now: now, report: report}
	var err error
	s.seen = s.look()
	s.id, err = ReadIdentity(dir, now())
	switch {
	case errors.Is(err, ErrNotNow):
		s.tell(fmt.Errorf("clients will refuse this host: %w", err))
	case err != nil:
		return nil, fmt.Errorf("cannot use the certificates of this host: %w", err)
	}
	s.config = s.configOf(s.id)
	return s, nil
}

// Identity is the present one; it is not changed any more.
func (s *Serving) Identity() *Identity {
	s.refresh()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.id
}

// TLSConfig is for a server: TLS 1.3, and client certificates, when there are any, verified with the fleet's authorities.
func (s *Serving) TLSConfig() *tls.Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	config := s.config.Clone()
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		s.refresh()
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.config, nil
	}
	return config
}

func (s *Serving) configOf(id *Identity) *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{id.Certificate},
		ClientCAs:    id.Authorities,
		ClientAuth:   tls.VerifyClientCertIfGiven,
		MinVersion:   tls.VersionTLS13,
		NextProtos:   []string{"h2", "http/1.1"},
		Time:         s.now,
		// A resumed session would outlive the authority its certificate was checked with.
		SessionTicketsDisabled: true,
	}
}

// refresh reads the files again when they have changed since they were last read.
func (s *Serving) refresh() {
	if changed, err := s.reread(); changed {
		s.tell(err)
	}
}

func (s *Serving) tell(err error) {
	if s.report != nil {
		s.report(err)
	}
}

func (s *Serving) reread() (changed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.look()
	if same(now, s.seen) {
		return false, nil
	}
	s.seen = now
	id, err := ReadIdentity(s.dir, s.now())
	if err != nil {
		return true, fmt.Errorf("new certificates are not used: %w", err)
	}
	s.id, s.config = id, s.configOf(id)
	return true, nil
}

// look describes the files; nil stands for one that cannot be looked at.
func (s *Serving) look() []os.FileInfo {
	var infos []os.FileInfo
	for _, name := range []string{FileCA, FileHost, FileHostKey} {
		info, err := os.Stat(filepath.Join(s.dir, name))
		if err != nil {
			info = nil
		}
		infos = append(infos, info)
	}
	return infos
}

func same(a, b []os.FileInfo) bool {
	for i := range a {
		if (a[i] == nil) != (b[i] == nil) {
			return false
		}
		if a[i] != nil && (!os.SameFile(a[i], b[i]) || a[i].Size() != b[i].Size() || !a[i].ModTime().Equal(b[i].ModTime()) || a[i].Mode() != b[i].Mode()) {
			return false
		}
	}
	return true
}
