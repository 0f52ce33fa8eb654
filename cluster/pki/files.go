package pki

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

const (
	blockCertificate = "CERTIFICATE"
	blockKey         = "PRIVATE KEY"

	// maxFileSize bounds what is read of one file; a certificate has about 700 bytes.
	maxFileSize = 1 << 20
	// forbiddenMode are the bits a key file may not have. A group of the administrator's choice may read it.
	forbiddenMode = 0o027
)

func certificatePEM(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: blockCertificate, Bytes: cert.Raw})
}

func keyPEM(key ed25519.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("cannot encode a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: blockKey, Bytes: der}), nil
}

// readCertificates reads all certificates of a file; there is at least one.
func readCertificates(path string) ([]*x509.Certificate, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != blockCertificate {
			return nil, fmt.Errorf("%s holds a %s where only certificates belong", path, block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s holds a certificate that cannot be read: %w", path, err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("%s holds no certificate in PEM form (-----BEGIN %s-----)", path, blockCertificate)
	}
	return certs, nil
}

// readKey reads a key that nobody else can.
func readKey(path string) (ed25519.PrivateKey, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	if err := checkSecret(path); err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != blockKey {
		return nil, fmt.Errorf("%s holds no unencrypted PKCS #8 key in PEM form (-----BEGIN %s-----)", path, blockKey)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s holds a key that cannot be read: %w", path, err)
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s holds a %T; only ed25519 keys are used here", path, parsed)
	}
	return key, nil
}

// checkSecret refuses a file that others can read or change.
func checkSecret(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&forbiddenMode != 0 {
		return fmt.Errorf("%s has mode %04o: others can read or change the key; chmod 600 it, and make a new one if it was not meant to be read", path, mode)
	}
	return nil
}

func isKeyOf(cert *x509.Certificate, key ed25519.PrivateKey) bool {
	public, ok := cert.PublicKey.(ed25519.PublicKey)
	return ok && public.Equal(key.Public())
}

func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a file", path)
	case info.Size() > maxFileSize:
		return nil, fmt.Errorf("%s has %d bytes: that is no certificate or key", path, info.Size())
	}
	return os.ReadFile(path)
}

func writeKey(path string, key ed25519.PrivateKey) error {
	data, err := keyPEM(key)
	if err != nil {
		return err
	}
	return writeFile(path, data, 0o600)
}

// WritePair writes a key, mode 0600, and then its certificate, each atomically.
func WritePair(certPath, keyPath string, p Pair) error {
	if err := writeFile(keyPath, p.Key, 0o600); err != nil {
		return err
	}
	return writeFile(certPath, p.Cert, 0o644)
}

// writeFile replaces a file or leaves it as it was, also when the power fails. The content never has a wider mode than its own,
// and a write that was cut off leaves at most one file, which the next write of that name takes.
func writeFile(path string, data []byte, mode os.FileMode) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("cannot write %s: %w", path, err)
		}
	}()
	hidden := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err := os.Remove(hidden); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(hidden, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = bytes.NewReader(data).WriteTo(f)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err == nil {
		err = os.Rename(hidden, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(hidden))
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
