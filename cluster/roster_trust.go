package cluster

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"github.com/picketd/picket/cluster/pki"
)

// Certificates is the Authenticator of a host with an identity: the credential is the host's certificate. identity is asked every
// time, so that new files are taken up.
func Certificates(identity func() *pki.Identity) Authenticator { return certificates{identity} }

type certificates struct{ identity func() *pki.Identity }

func (c certificates) Self() (Signer, error) { return signerOf(c.identity().Certificate.Leaf) }

func (c certificates) Sign(message func(Signer, []byte) []byte) ([]byte, error) {
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
func (c certificates) Verify(credential, message, signature []byte) (Signer, error) {
	cert, err := x509.ParseCertificate(credential)
	if err != nil {
		return Signer{}, fmt.Errorf("cannot read the signer's certificate: %w", err)
	}
	_, err = cert.Verify(x509.VerifyOptions{
		Roots: c.identity().Authorities, CurrentTime: cert.NotAfter, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return Signer{}, fmt.Errorf("the signer's certificate is not of this fleet: %w", err)
	}
	key, ok := cert.PublicKey.(ed25519.PublicKey)
	if !ok || !ed25519.Verify(key, message, signature) {
		return Signer{}, errors.New("the signature is wrong")
	}
	return signerOf(cert)
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
