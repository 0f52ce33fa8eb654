package pki

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// DefaultValidity is how long a certificate of a host or a user is good for when nothing else is said.
const DefaultValidity = 365 * 24 * time.Hour

// Host says what a host's certificate is for.
type Host struct {
	Node string // its name in the fleet
	// Addresses are IPs and DNS names under which others reach it, beside its name and the loopback's, which are always there.
	Addresses []string
	// Door hosts may write objects and forward users' calls.
	Door     bool
	Validity time.Duration // 0: DefaultValidity
}

// User says what a user's certificate is for.
type User struct {
	Name     string // the author of what the user writes
	Role     Role
	Validity time.Duration // 0: DefaultValidity
}

// Pair is a certificate and its key, both PEM.
type Pair struct {
	Cert []byte
	Key  []byte
}

// Leaf is the certificate, to tell what is in it.
func (p Pair) Leaf() (*x509.Certificate, error) {
	block, _ := pem.Decode(p.Cert)
	if block == nil || block.Type != blockCertificate {
		return nil, errors.New("there is no certificate")
	}
	return x509.ParseCertificate(block.Bytes)
}

// IssueHost makes a host's key and certificate.
func (a *Authority) IssueHost(h Host, now time.Time) (Pair, error) {
	return issue(func(public crypto.PublicKey) (*x509.Certificate, error) { return a.hostCertificate(h, public, now) })
}

// IssueUser makes a user's key and certificate.
func (a *Authority) IssueUser(u User, now time.Time) (Pair, error) {
	return issue(func(public crypto.PublicKey) (*x509.Certificate, error) { return a.userCertificate(u, public, now) })
}

func issue(certificate func(crypto.PublicKey) (*x509.Certificate, error)) (Pair, error) {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("cannot make a key: %w", err)
	}
	cert, err := certificate(public)
	if err != nil {
		return Pair{}, err
	}
	encoded, err := keyPEM(key)
	return Pair{Cert: certificatePEM(cert), Key: encoded}, err
}

func (a *Authority) hostCertificate(h Host, public crypto.PublicKey, now time.Time) (*x509.Certificate, error) {
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: h.Node, Organization: []string{GroupHosts}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if h.Door {
		template.Subject.Organization = append(template.Subject.Organization, GroupDoors)
	}
	for _, address := range h.names() {
		if ip, err := netip.ParseAddr(address); err == nil {
			template.IPAddresses = append(template.IPAddresses, ip.AsSlice())
		} else {
			template.DNSNames = append(template.DNSNames, address)
		}
	}
	return a.certify(template, public, h.Validity, now)
}

func (a *Authority) userCertificate(u User, public crypto.PublicKey, now time.Time) (*x509.Certificate, error) {
	if !slices.Contains([]Role{Viewer, Operator, Admin}, u.Role) {
		return nil, fmt.Errorf("cannot make a certificate for user %q: no role %q", u.Name, u.Role)
	}
	return a.certify(&x509.Certificate{
		Subject:     pkix.Name{CommonName: u.Name, Organization: []string{string(u.Role)}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, public, u.Validity, now)
}

// certify completes a template and signs it. No certificate outlives its authority.
func (a *Authority) certify(template *x509.Certificate, public crypto.PublicKey, validity time.Duration, now time.Time) (*x509.Certificate, error) {
	name := template.Subject.CommonName
	if name == "" {
		return nil, errors.New("cannot make a certificate without a name")
	}
	if now.After(a.cert.NotAfter) {
		return nil, fmt.Errorf("cannot make a certificate for %s: the authority expired on %s", name, day(a.cert.NotAfter))
	}
	if validity <= 0 {
		validity = DefaultValidity
	}
	template.NotBefore, template.NotAfter = now.Add(-clockSkew), now.Add(validity)
	if template.NotAfter.After(a.cert.NotAfter) {
		template.NotAfter = a.cert.NotAfter
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.BasicConstraintsValid = true
	cert, err := sign(template, a.cert, public, a.key)
	if err != nil {
		return nil, fmt.Errorf("cannot make a certificate for %s: %w", name, err)
	}
	return cert, nil
}

// names are all names and addresses of the certificate, in canonical form, once each. Wildcard addresses name nothing.
func (h Host) names() []string {
	var names []string
	for _, address := range slices.Concat([]string{h.Node, "localhost", "127.0.0.1", "::1"}, h.Addresses) {
		if ip, err := netip.ParseAddr(address); err == nil {
			if ip.IsUnspecified() {
				continue
			}
			address = ip.Unmap().WithZone("").String()
		}
		if address != "" && !slices.Contains(names, address) {
			names = append(names, address)
		}
	}
	return names
}

// missing are the names that a certificate does not have.
func (h Host) missing(cert *x509.Certificate) []string {
	return slices.DeleteFunc(h.names(), func(name string) bool { return cert.VerifyHostname(name) == nil })
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }
