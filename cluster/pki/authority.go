package pki

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"path/filepath"
	"time"
)

const (
	authorityValidity = 20 * 365 * 24 * time.Hour
	// clockSkew is how far the clock of a host that checks a new certificate may be behind.
	clockSkew = time.Hour
	// authoritySkew is as much for the authority itself: a first start may be one with a clock that is set back afterwards, and
	// host certificates can be made anew, the authority cannot.
	authoritySkew = 365 * 24 * time.Hour
)

// Authority signs the certificates of one fleet.
type Authority struct {
	cert *x509.Certificate
	key  ed25519.PrivateKey
	// trusted are all authorities of the ca.crt it was read from, itself among them.
	trusted []*x509.Certificate
}

// NewAuthority makes an authority that is valid for 20 years. Its name is the fleet's.
func NewAuthority(cluster string, now time.Time) (*Authority, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("cannot make the authority's key: %w", err)
	}
	return authorityOf(key, cluster, now)
}

func authorityOf(key ed25519.PrivateKey, cluster string, now time.Time) (*Authority, error) {
	if cluster == "" {
		return nil, errors.New("cannot make an authority for a fleet without a name")
	}
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: cluster},
		NotBefore: now.Add(-authoritySkew), NotAfter: now.Add(authorityValidity),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	cert, err := sign(template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("cannot make the authority's certificate: %w", err)
	}
	return &Authority{cert: cert, key: key, trusted: []*x509.Certificate{cert}}, nil
}

// ReadAuthority reads ca.crt and ca.key. Of several authorities in ca.crt it is the one the key belongs to. The error is
// fs.ErrNotExist when one of the files is not there.
func ReadAuthority(dir string) (*Authority, error) {
	key, err := readKey(filepath.Join(dir, FileCAKey))
	if err != nil {
		return nil, err
	}
	certs, err := readCertificates(filepath.Join(dir, FileCA))
	if err != nil {
		return nil, err
	}
	for _, cert := range certs {
		if cert.IsCA && isKeyOf(cert, key) {
			return &Authority{cert: cert, key: key, trusted: certs}, nil
		}
	}
	return nil, fmt.Errorf("%s is not the key of an authority in %s: put back the two files that were made together", filepath.Join(dir, FileCAKey), filepath.Join(dir, FileCA))
}

// Write writes ca.key and then ca.crt, so that a half-finished Write leaves a key that can be finished and nothing that is trusted.
func (a *Authority) Write(dir string) error {
	if err := writeKey(filepath.Join(dir, FileCAKey), a.key); err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, FileCA), certificatePEM(a.cert), 0o644)
}

// CertificatePEM is the authority's own certificate.
func (a *Authority) CertificatePEM() []byte { return certificatePEM(a.cert) }

// TrustedPEM is the content of ca.crt for others: while authorities change, they trust the others in it too.
func (a *Authority) TrustedPEM() []byte {
	var text []byte
	for _, cert := range a.trusted {
		text = append(text, certificatePEM(cert)...)
	}
	return text
}

// Expiry is when the authority ends, and everything it has signed with it.
func (a *Authority) Expiry() time.Time { return a.cert.NotAfter }

// Name is the fleet's.
func (a *Authority) Name() string { return a.cert.Subject.CommonName }

// sign makes a certificate of a template and reads it back: what is returned is what others will see.
func sign(template, parent *x509.Certificate, public crypto.PublicKey, key ed25519.PrivateKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}
