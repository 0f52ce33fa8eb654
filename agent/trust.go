package agent

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/picketd/picket/cluster/pki"
)

// renewEvery is how often a host with an authority of its own looks whether its certificates must be renewed.
const renewEvery = 24 * time.Hour

// trust is which certificates this host serves its API with: those the administrator put into api.pki, or, for a host that has
// none, those of an authority of its own in <dataDir>/pki.
type trust struct {
	cfg     Config
	host    pki.Host
	own     string // directory of the host's own authority; "" when the administrator's certificates are used
	serving *pki.Serving
	now     func() time.Time

	mu     sync.Mutex
	tell   func(reason string, err error) // nil until the loop can be told
	untold []trouble
}

type trouble struct {
	reason string
	err    error
}

// newTrust reads the certificates, or makes them at the first start of a host that has none, together with an administrator's
// kubeconfig in <dataDir>/kubeconfig.
func newTrust(cfg Config, log *slog.Logger, addresses []string) (*trust, error) {
	t := &trust{cfg: cfg, now: time.Now, host: pki.Host{Node: cfg.Node.Name, Door: true, Addresses: addresses}}
	dir := cfg.API.PKI
	switch _, err := os.Stat(cfg.hostCert()); {
	case errors.Is(err, fs.ErrNotExist):
		t.own = filepath.Join(cfg.DataDir, "pki")
		dir = t.own
		if err := t.renew(); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, fmt.Errorf("api.pki: cannot look for this host's certificate: %w", err)
	}
	var err error
	t.serving, err = pki.NewServing(dir, t.now, func(err error) {
		if err != nil {
			t.trouble("InvalidCertificate", err)
			return
		}
		log.Info("new certificates are in use", "directory", dir)
	})
	if err != nil {
		return nil, err
	}
	if named := t.serving.Identity().Node(); named != cfg.Node.Name {
		return nil, fmt.Errorf("api.pki: %s is the certificate of %s, but node.name is %s: copy this host's own certificate there, or make one with picket pki host %[3]s",
			cfg.hostCert(), named, cfg.Node.Name)
	}
	return t, nil
}

// trouble is told by the loop, as soon as there is one. Safe for concurrent use.
func (t *trust) trouble(reason string, err error) {
	t.mu.Lock()
	tell := t.tell
	if tell == nil {
		t.untold = append(t.untold, trouble{reason, err})
	}
	t.mu.Unlock()
	if tell != nil {
		tell(reason, err)
	}
}

// tellTo has troubles told from now on, those of before too.
func (t *trust) tellTo(tell func(reason string, err error)) {
	t.mu.Lock()
	untold := t.untold
	t.tell, t.untold = tell, nil
	t.mu.Unlock()
	for _, u := range untold {
		tell(u.reason, u.err)
	}
}

func (t *trust) identity() *pki.Identity { return t.serving.Identity() }

func (t *trust) tlsConfig() *tls.Config { return t.serving.TLSConfig() }

// renew makes what is missing of the host's own certificates, renews what runs out, and writes the kubeconfig that goes with them.
func (t *trust) renew() error {
	start, err := pki.FirstStart(t.own, t.cfg.Cluster.Name, t.host, t.now())
	if err != nil {
		return err
	}
	if start.Stale != "" {
		t.trouble("CertificateNotRenewed", errors.New(start.Stale))
	}
	if len(start.Admin.Cert) == 0 {
		return nil
	}
	text := pki.Kubeconfig("https://"+t.server(), start.CA, start.Admin, t.cfg.Cluster.Name, pki.AdminName)
	path := filepath.Join(t.cfg.DataDir, "kubeconfig")
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, text) {
		return nil
	}
	if err := writeFile(path, text, false); err != nil {
		return fmt.Errorf("cannot write the administrator's kubeconfig: %w", err)
	}
	return nil
}

// server is under which address a user on this host or another reaches the API.
func (t *trust) server() string {
	if t.cfg.API.Advertise != "" {
		return t.cfg.API.Advertise
	}
	host, port, err := net.SplitHostPort(t.cfg.API.Listen)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
		host = t.host.Addresses[0]
	}
	return net.JoinHostPort(host, port)
}

// keepFresh renews the host's own certificates, and warns of an administrator's that runs out, until ctx ends.
func (t *trust) keepFresh(ctx context.Context) {
	timer := time.NewTicker(renewEvery)
	defer timer.Stop()
	for {
		t.warn()
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			if t.own == "" {
				continue
			}
			if err := t.renew(); err != nil {
				t.trouble("CertificateNotRenewed", err)
			}
		}
	}
}

// warnBefore is how long before a certificate of the administrator's expires this is said, every day.
const warnBefore = 30 * 24 * time.Hour

func (t *trust) warn() {
	host, authority := t.identity().Expiry()
	for _, c := range []struct {
		file string
		end  time.Time
	}{{pki.FileHost, host}, {pki.FileCA, authority}} {
		if left := c.end.Sub(t.now()); left < warnBefore && t.own == "" {
			t.trouble("CertificateExpires", fmt.Errorf("%s expires on %s: make a new one with picket pki and copy it there; no restart is needed",
				filepath.Join(t.cfg.API.PKI, c.file), c.end.UTC().Format(time.DateOnly)))
		}
	}
}
