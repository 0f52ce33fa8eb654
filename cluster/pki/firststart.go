package pki

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// AdminName is the user of the certificate that FirstStart makes.
const AdminName = "admin"

// Start is how FirstStart left the directory.
type Start struct {
	CA    []byte // PEM
	Admin Pair   // empty when it is not there and cannot be made
	// Made names the files that were made or renewed this time.
	Made []string
	// Stale says why host.crt should be renewed though it cannot, because ca.key is not there.
	Stale string
}

// FirstStart makes dir a working directory of certificates for a host that has nobody else's: an authority of its own, a host
// certificate and an administrator's. It may be called at any time, and should be every day: it does only what is missing,
// finishes what a crash interrupted, and renews what has less than a third of its time left, and host.crt also when the node's
// name or addresses are no longer in it. Without ca.key it changes nothing. An existing authority is never replaced, whatever
// its name; files that do not go together are an error when they could only be repaired by replacing it.
func FirstStart(dir, cluster string, host Host, now time.Time) (Start, error) {
	var s Start
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return s, fmt.Errorf("cannot make the directory of certificates: %w", err)
	}
	authority, err := ownAuthority(dir, cluster, now, &s)
	if err != nil {
		return s, fmt.Errorf("cannot prepare certificates: %w", err)
	}
	if authority == nil {
		err = s.leaveAsIs(dir, host, now)
	} else {
		err = s.complete(dir, authority, host, now)
	}
	if err != nil {
		return s, fmt.Errorf("cannot prepare certificates: %w", err)
	}
	if s.CA, err = readFile(filepath.Join(dir, FileCA)); err != nil {
		return s, fmt.Errorf("cannot prepare certificates: %w", err)
	}
	return s, nil
}

// ownAuthority reads the authority or makes it; nil when it is there but its key is not. A key without a certificate is a start
// that was interrupted: nothing was signed with it.
func ownAuthority(dir, cluster string, now time.Time, s *Start) (*Authority, error) {
	hasCert, err := exists(filepath.Join(dir, FileCA))
	if err != nil {
		return nil, err
	}
	hasKey, err := exists(filepath.Join(dir, FileCAKey))
	if err != nil {
		return nil, err
	}
	var authority *Authority
	switch {
	case hasCert && hasKey:
		return ReadAuthority(dir)
	case hasCert:
		return nil, nil
	case hasKey:
		key, err := readKey(filepath.Join(dir, FileCAKey))
		if err != nil {
			return nil, err
		}
		authority, err = authorityOf(key, cluster, now)
		if err != nil {
			return nil, err
		}
	default:
		if found, err := exists(filepath.Join(dir, FileHost)); err != nil {
			return nil, err
		} else if found {
			return nil, fmt.Errorf("%s is there, %s is not: put the fleet's %s beside it, or remove it", filepath.Join(dir, FileHost), FileCA, FileCA)
		}
		if authority, err = NewAuthority(cluster, now); err != nil {
			return nil, err
		}
	}
	s.Made = append(s.Made, FileCA, FileCAKey)
	return authority, authority.Write(dir)
}

// leaveAsIs only looks: the authority's key is elsewhere.
func (s *Start) leaveAsIs(dir string, host Host, now time.Time) error {
	id, err := ReadIdentity(dir, now)
	if err != nil && !errors.Is(err, ErrNotNow) {
		return err
	}
	s.Stale = whyRenew(id.Certificate.Leaf, id.Authorities, host, now)
	pair := [2]string{filepath.Join(dir, FileAdmin), filepath.Join(dir, FileAdminKey)}
	if _, err := readPair(pair[0], pair[1]); err == nil {
		return s.readAdmin(pair[0], pair[1])
	}
	return nil
}

// complete makes the host's and the administrator's certificates what they should be.
func (s *Start) complete(dir string, a *Authority, host Host, now time.Time) error {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	err := s.ensure(dir, FileHost, FileHostKey,
		func(cert *x509.Certificate) bool { return whyRenew(cert, pool, host, now) == "" },
		func(public crypto.PublicKey) (*x509.Certificate, error) { return a.hostCertificate(host, public, now) })
	if err != nil {
		return err
	}
	user := User{Name: AdminName, Role: Admin}
	err = s.ensure(dir, FileAdmin, FileAdminKey,
		func(cert *x509.Certificate) bool {
			return verify(cert, pool, now, x509.ExtKeyUsageClientAuth) == nil && !nearExpiry(cert, now)
		},
		func(public crypto.PublicKey) (*x509.Certificate, error) { return a.userCertificate(user, public, now) })
	if err != nil {
		return err
	}
	return s.readAdmin(filepath.Join(dir, FileAdmin), filepath.Join(dir, FileAdminKey))
}

func (s *Start) readAdmin(certPath, keyPath string) (err error) {
	if s.Admin.Cert, err = readFile(certPath); err != nil {
		return err
	}
	s.Admin.Key, err = readFile(keyPath)
	return err
}

// ensure keeps a pair that is good, renews the certificate of a key that is good, or makes both. The key comes first: a crash
// in between leaves a pair that does not match, and that is made anew.
func (s *Start) ensure(dir, certFile, keyFile string, good func(*x509.Certificate) bool, certificate func(crypto.PublicKey) (*x509.Certificate, error)) error {
	certPath, keyPath := filepath.Join(dir, certFile), filepath.Join(dir, keyFile)
	var pair tls.Certificate
	pair, err := readPair(certPath, keyPath)
	if err == nil && good(pair.Leaf) {
		return nil
	}
	if key, err := readKey(keyPath); err == nil {
		cert, err := certificate(key.Public())
		if err != nil {
			return err
		}
		s.Made = append(s.Made, certFile)
		return writeFile(certPath, certificatePEM(cert), 0o644)
	}
	fresh, err := issue(certificate)
	if err != nil {
		return err
	}
	s.Made = append(s.Made, certFile, keyFile)
	return WritePair(certPath, keyPath, fresh)
}

// whyRenew says what is wrong with a host's certificate, "" when nothing is.
func whyRenew(cert *x509.Certificate, pool *x509.CertPool, host Host, now time.Time) string {
	if err := verify(cert, pool, now, x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth); err != nil {
		return FileHost + " " + err.Error()
	}
	if cert.Subject.CommonName != host.Node {
		return fmt.Sprintf("%s is for node %q, this is %q", FileHost, cert.Subject.CommonName, host.Node)
	}
	if missing := host.missing(cert); len(missing) > 0 {
		return fmt.Sprintf("%s does not name %s", FileHost, strings.Join(missing, ", "))
	}
	if nearExpiry(cert, now) {
		return fmt.Sprintf("%s expires on %s", FileHost, day(cert.NotAfter))
	}
	return ""
}

func nearExpiry(cert *x509.Certificate, now time.Time) bool {
	return cert.NotAfter.Sub(now) < cert.NotAfter.Sub(cert.NotBefore)/3
}
