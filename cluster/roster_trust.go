package cluster

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/picketd/picket/cluster/pki"
)

// Certificates is the Authenticator of a host with an identity: the credential is the host's certificate. identity is asked every
// time, so that new files are taken up.
func Certificates(identity func() *pki.Identity) Authenticator {
	return &certificates{identity: identity, trusted: map[[sha256.Size]byte]trusted{}}
}

type certificates struct {
	identity func() *pki.Identity

	mu      sync.Mutex
	of      *pki.Identity // whose authorities they were checked with
	trusted map[[sha256.Size]byte]trusted
}

// trusted is a certificate of the fleet: that its authority has signed it is half of what a signature costs to check.
type trusted struct {
	signer Signer
	key    ed25519.PublicKey
}

// maxTrusted bounds them: a fleet of 5,000 fits.
const maxTrusted = 8192

func (c *certificates) Self() (Signer, error) { return signerOf(c.identity().Certificate.Leaf) }

func (c *certificates) Sign(message func(Signer, []byte) []byte) ([]byte, error) {
	pair := c.identity().Certificate
	key, ok := pair.PrivateKey.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("the host's key is a %T, not ed25519", pair.PrivateKey)
	}
	self, err := signerOf(pair.Leaf)
	if err != nil {
		return nil, err
	}
	return ed25519.Sign(key, message(self, pair.Leaf.Raw)), nil
}

// Verify takes certificates that have expired: what was signed stays signed, and no clock is to decide about it.
func (c *certificates) Verify(credential, message, signature []byte) (Signer, error) {
	t, err := c.trust(credential)
	if err != nil {
		return Signer{}, err
	}
	if !ed25519.Verify(t.key, message, signature) {
		return Signer{}, errors.New("the signature is wrong")
	}
	return t.signer, nil
}

// trust reads a certificate that an authority of the fleet has signed.
func (c *certificates) trust(credential []byte) (trusted, error) {
	id, sum := c.identity(), sha256.Sum256(credential)
	c.mu.Lock()
	if c.of != id || len(c.trusted) >= maxTrusted {
		c.of = id
		clear(c.trusted)
	}
	known, ok := c.trusted[sum]
	c.mu.Unlock()
	if ok {
		return known, nil
	}
	cert, err := x509.ParseCertificate(credential)
	if err != nil {
		return trusted{}, fmt.Errorf("cannot read the signer's certificate: %w", err)
	}
	_, err = cert.Verify(x509.VerifyOptions{
		Roots: id.Authorities, CurrentTime: cert.NotAfter, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return trusted{}, fmt.Errorf("the signer's certificate is not of this fleet: %w", err)
	}
	key, ok := cert.PublicKey.(ed25519.PublicKey)
	if !ok {
		return trusted{}, fmt.Errorf("the signer's key is a %T, not ed25519", cert.PublicKey)
	}
	signer, err := signerOf(cert)
	if err != nil {
		return trusted{}, err
	}
	t := trusted{signer: signer, key: key}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of == id {
		c.trusted[sum] = t
	}
	return t, nil
}

func signerOf(cert *x509.Certificate) (Signer, error) {
	subject := cert.Subject
	if subject.CommonName == "" || !slices.Contains(subject.Organization, pki.GroupHosts) {
		return Signer{}, fmt.Errorf("%q is no host", subject)
	}
	return Signer{
		Node: subject.CommonName, Door: slices.Contains(subject.Organization, pki.GroupDoors),
		Fingerprint: sha256.Sum256(cert.Raw), Issued: cert.NotBefore.Unix(),
	}, nil
}

// credential is what a host's own notice was signed with: its certificate.
func (r *Roster) credential(node string) ([]byte, bool) {
	own := r.word(node)[voiceSelf]
	return own.Credential, own.Entry > 0
}
