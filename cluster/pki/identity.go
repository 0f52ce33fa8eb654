package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Identity is what a host shows and whom it trusts.
type Identity struct {
	Certificate tls.Certificate // with its Leaf
	Authorities *x509.CertPool

	authorities []*x509.Certificate
}

// ErrNotNow is a certificate that is fine but for the time: expired, or not valid yet.
var ErrNotNow = errors.New("the certificate is not valid at this time")

// ReadIdentity reads ca.crt, host.crt and host.key and checks that they go together and are valid now. An error says which
// file is wrong, why, and what helps; it is fs.ErrNotExist when a file is not there. With ErrNotNow there is an identity too.
func ReadIdentity(dir string, now time.Time) (*Identity, error) {
	authorities, pool, err := readAuthorities(dir)
	if err != nil {
		return nil, err
	}
	cert, err := readPair(filepath.Join(dir, FileHost), filepath.Join(dir, FileHostKey))
	if err != nil {
		return nil, err
	}
	id := &Identity{Certificate: cert, Authorities: pool, authorities: authorities}
	err = id.check(dir, now)
	if err != nil && !errors.Is(err, ErrNotNow) {
		return nil, err
	}
	return id, err
}

// Node is the host's name in its certificate.
func (id *Identity) Node() string { return id.Certificate.Leaf.Subject.CommonName }

// Door says whether the host may write objects and forward users' calls.
func (id *Identity) Door() bool {
	return slices.Contains(id.Certificate.Leaf.Subject.Organization, GroupDoors)
}

// AuthorityCertificates are the authorities, each as it is signed (DER).
func (id *Identity) AuthorityCertificates() [][]byte {
	var list [][]byte
	for _, ca := range id.authorities {
		list = append(list, ca.Raw)
	}
	return list
}

// Expiry tells when the host's certificate and the last of the authorities end.
func (id *Identity) Expiry() (host, authority time.Time) {
	for _, ca := range id.authorities {
		if ca.NotAfter.After(authority) {
			authority = ca.NotAfter
		}
	}
	return id.Certificate.Leaf.NotAfter, authority
}

func readAuthorities(dir string) ([]*x509.Certificate, *x509.CertPool, error) {
	path := filepath.Join(dir, FileCA)
	certs, err := readCertificates(path)
	if err != nil {
		return nil, nil, err
	}
	pool := x509.NewCertPool()
	for _, cert := range certs {
		if !cert.IsCA {
			return nil, nil, fmt.Errorf("%s holds the certificate of %q, which is no authority: it must hold the fleet's authorities only", path, cert.Subject.CommonName)
		}
		pool.AddCert(cert)
	}
	return certs, pool, nil
}

// readPair reads a certificate, with intermediates if there are any, and its key.
func readPair(certPath, keyPath string) (tls.Certificate, error) {
	certs, err := readCertificates(certPath)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := readKey(keyPath)
	if err != nil {
		return tls.Certificate{}, err
	}
	if !isKeyOf(certs[0], key) {
		return tls.Certificate{}, fmt.Errorf("%s is not the key of %s: put back the two files that were made together", keyPath, certPath)
	}
	pair := tls.Certificate{PrivateKey: key, Leaf: certs[0]}
	for _, cert := range certs {
		pair.Certificate = append(pair.Certificate, cert.Raw)
	}
	return pair, nil
}

func (id *Identity) check(dir string, now time.Time) error {
	path := filepath.Join(dir, FileHost)
	leaf := id.Certificate.Leaf
	if !slices.Contains(leaf.Subject.Organization, GroupHosts) || leaf.Subject.CommonName == "" {
		return fmt.Errorf("%s is no host's certificate: its subject %q lacks O=%s or a name", path, leaf.Subject, GroupHosts)
	}
	if err := verify(leaf, id.Authorities, now, x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth); err != nil {
		return fmt.Errorf("%s %w", path, err)
	}
	return nil
}

// verify checks one certificate; the error goes on from the name of its file. What is wrong with the time comes last.
func verify(cert *x509.Certificate, pool *x509.CertPool, now time.Time, usages ...x509.ExtKeyUsage) error {
	within := now
	if now.After(cert.NotAfter) {
		within = cert.NotAfter
	} else if now.Before(cert.NotBefore) {
		within = cert.NotBefore
	}
	for _, usage := range usages {
		_, err := cert.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: within, KeyUsages: []x509.ExtKeyUsage{usage}})
		var unknown x509.UnknownAuthorityError
		var invalid x509.CertificateInvalidError
		switch {
		case errors.As(err, &unknown):
			return fmt.Errorf("was signed by %q, which is not an authority in %s beside it: it belongs to another fleet, or %s is an old one", cert.Issuer.CommonName, FileCA, FileCA)
		case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
			return timeError("was signed by %q, whose own certificate in %s is not valid on %s: set this host's clock, or make a new authority", cert.Issuer.CommonName, FileCA, day(now))
		case err != nil:
			return fmt.Errorf("is not good for this: %w", err)
		}
	}
	switch {
	case within.Before(now):
		return timeError("expired on %s (it is %s now): make a new one with the fleet's ca.key", day(cert.NotAfter), day(now))
	case within.After(now):
		return timeError("is not valid before %s (it is %s now): set this host's clock", cert.NotBefore.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}

// notNow is an ErrNotNow in words of its own.
type notNow string

func timeError(format string, args ...any) error { return notNow(fmt.Sprintf(format, args...)) }

func (e notNow) Error() string        { return string(e) }
func (e notNow) Is(target error) bool { return target == ErrNotNow }

// exists tells a missing file from one that cannot be looked at.
func exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
