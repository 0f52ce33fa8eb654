package agent

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
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
	trouble func(reason string, err error)
}

// newTrust reads the certificates, or makes them at the first start of a host that has none, together with an administrator's
// kubeconfig in <dataDir>/kubeconfig.
func newTrust(cfg Config, l *loop) (*trust, error) {
	t := &trust{cfg: cfg, now: l.now, trouble: l.trouble, host: pki.Host{Node: cfg.Node.Name, Door: true}}
	for _, a := range l.node.addresses {
		t.host.Addresses = append(t.host.Addresses, a.Address)
	}
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
	t.serving, err = pki.NewServing(dir, l.now, func(err error) {
		if err != nil {
			l.trouble("InvalidCertificate", err)
			return
		}
		l.log.Info("new certificates are in use", "directory", dir)
	})
	return t, err
}

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

// keepFresh renews the host's own certificates until ctx ends.
func (t *trust) keepFresh(ctx context.Context) {
	if t.own == "" {
		return
	}
	timer := time.NewTicker(renewEvery)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			if err := t.renew(); err != nil {
				t.trouble("CertificateNotRenewed", err)
			}
		}
	}
}
