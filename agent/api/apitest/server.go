package apitest

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/picketd/picket/agent/api"
)

// Organizations of the roles.
const (
	Viewers   = "picket:viewers"
	Operators = "picket:operators"
	Admins    = "picket:admins"
	Hosts     = "picket:hosts"
	Doors     = "picket:doors"
)

// Host is a running API server.
type Host struct {
	Cache   *api.Cache
	Backend *Backend
	// URL is that of the TLS listener, Socket the path of the unix socket.
	URL    string
	Socket string

	authority *Authority
	cancel    context.CancelFunc
	done      chan error
}

// Start serves an empty cache on a loopback port and a unix socket until the test ends.
func Start(t testing.TB, configure ...func(*api.Options)) *Host {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return StartOn(t, listener, NewAuthority(t), api.NewCache(Versions(1)), configure...)
}

// StartOn serves a cache on a listener, with the certificates of an earlier host: another agent, or the same one after a restart.
func StartOn(t testing.TB, listener net.Listener, ca *Authority, cache *api.Cache, configure ...func(*api.Options)) *Host {
	t.Helper()
	h := &Host{
		Cache: cache, Backend: &Backend{Cache: cache}, URL: "https://" + listener.Addr().String(), authority: ca,
		Socket: filepath.Join(t.TempDir(), "picket.sock"), done: make(chan error, 1),
	}
	options := api.Options{
		Cache: cache, Backend: h.Backend, NodeName: "host-01", Version: "v0.1.0-test",
		TLSConfig: ca.ServerTLS(t),
	}
	for _, c := range configure {
		c(&options)
	}
	server, err := api.New(options)
	if err != nil {
		t.Fatal(err)
	}
	socket, err := api.ListenSocket(h.Socket)
	if err != nil {
		t.Fatal(err)
	}
	var ctx context.Context
	ctx, h.cancel = context.WithCancel(context.Background())
	go func() { h.done <- server.Serve(ctx, listener, socket) }()
	t.Cleanup(func() { h.Stop(t) })
	return h
}

// Stop ends the server and waits for it. It may be called again.
func (h *Host) Stop(t testing.TB) {
	t.Helper()
	if h.cancel == nil {
		return
	}
	h.cancel()
	h.cancel = nil
	if err := <-h.done; err != nil {
		t.Errorf("the API server ended with %v", err)
	}
}

// Authority is what signed this host's certificates, for StartOn.
func (h *Host) Authority() *Authority { return h.authority }

// Config is a client's configuration with a certificate for user in organizations; without organizations there is none.
func (h *Host) Config(t testing.TB, user string, organizations ...string) *rest.Config {
	t.Helper()
	config := &rest.Config{Host: h.URL, TLSClientConfig: rest.TLSClientConfig{CAData: h.authority.pem}, QPS: -1}
	if len(organizations) > 0 {
		cert := h.authority.issue(t, user, x509.ExtKeyUsageClientAuth, organizations...)
		config.CertData, config.KeyData = encode(t, cert)
	}
	return config
}

// Kubeconfig writes a kubeconfig file with a certificate and returns its path.
func (h *Host) Kubeconfig(t testing.TB, user string, organizations ...string) string {
	t.Helper()
	config := h.Config(t, user, organizations...)
	file := clientcmdapi.NewConfig()
	file.Clusters["picket"] = &clientcmdapi.Cluster{Server: h.URL, CertificateAuthorityData: config.CAData}
	file.AuthInfos[user] = &clientcmdapi.AuthInfo{ClientCertificateData: config.CertData, ClientKeyData: config.KeyData}
	file.Contexts["picket"] = &clientcmdapi.Context{Cluster: "picket", AuthInfo: user}
	file.CurrentContext = "picket"
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*file, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// Authority is a certificate authority of one test.
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	pool *x509.CertPool
	pem  []byte
}

// epoch is before the time that testing/synctest begins with.
var epoch = time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)

// NewAuthority makes a certificate authority.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: epoch, NotAfter: epoch.AddDate(100, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a := &Authority{cert: cert, key: key, pool: x509.NewCertPool(), pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
	a.pool.AddCert(cert)
	return a
}

// ServerTLS is the configuration of a server at 127.0.0.1.
func (a *Authority) ServerTLS(t testing.TB) *tls.Config {
	t.Helper()
	return &tls.Config{
		Certificates: []tls.Certificate{a.issue(t, "host-01", x509.ExtKeyUsageServerAuth, Hosts)},
		ClientCAs:    a.pool, ClientAuth: tls.VerifyClientCertIfGiven, MinVersion: tls.VersionTLS13,
	}
}

// ClientTLS is the configuration of a client.
func (a *Authority) ClientTLS(t testing.TB, user string, organizations ...string) *tls.Config {
	t.Helper()
	return &tls.Config{RootCAs: a.pool, Certificates: []tls.Certificate{a.issue(t, user, x509.ExtKeyUsageClientAuth, organizations...)}, MinVersion: tls.VersionTLS13}
}

func (a *Authority) issue(t testing.TB, name string, usage x509.ExtKeyUsage, organizations ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name, Organization: organizations},
		NotBefore: epoch, NotAfter: epoch.AddDate(100, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{name},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func encode(t testing.TB, c tls.Certificate) (cert, key []byte) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}
