package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

var host = Host{Node: "host-01", Addresses: []string{"10.0.0.5", "host-01.lan", "0.0.0.0", "fe80::1%eth0"}, Door: true}

func newAuthority(t *testing.T) *Authority {
	t.Helper()
	a, err := NewAuthority("prod", epoch)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func issueHost(t *testing.T, a *Authority, h Host, now time.Time) Pair {
	t.Helper()
	p, err := a.IssueHost(h, now)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func issueUser(t *testing.T, a *Authority, u User, now time.Time) Pair {
	t.Helper()
	p, err := a.IssueUser(u, now)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// writeHost writes what a host of an authority that is elsewhere has.
func writeHost(t *testing.T, dir string, a *Authority, p Pair) {
	t.Helper()
	if err := errors.Join(WritePair(filepath.Join(dir, FileHost), filepath.Join(dir, FileHostKey), p), writeFile(filepath.Join(dir, FileCA), a.CertificatePEM(), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func parse(t *testing.T, certPEM []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(certPEM)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestCertificatesSayWhatTheyAreFor(t *testing.T) {
	a := newAuthority(t)
	ca := parse(t, a.CertificatePEM())
	if !ca.IsCA || a.Name() != "prod" || ca.NotAfter.Before(epoch.AddDate(10, 0, 0)) || ca.PublicKeyAlgorithm != x509.Ed25519 {
		t.Errorf("the authority is %+v", ca)
	}
	cert := parse(t, issueHost(t, a, host, epoch).Cert)
	if cert.Subject.CommonName != "host-01" || !slices.Equal(slices.Sorted(slices.Values(cert.Subject.Organization)), []string{GroupDoors, GroupHosts}) || cert.IsCA || cert.PublicKeyAlgorithm != x509.Ed25519 {
		t.Errorf("the host is %s", cert.Subject)
	}
	for _, name := range []string{"host-01", "localhost", "127.0.0.1", "::1", "10.0.0.5", "host-01.lan", "fe80::1"} {
		if err := cert.VerifyHostname(name); err != nil {
			t.Errorf("as %s: %v", name, err)
		}
	}
	for _, name := range []string{"host-02", "0.0.0.0", "10.0.0.6"} {
		if cert.VerifyHostname(name) == nil {
			t.Errorf("the certificate is good for %s", name)
		}
	}
	plain := host
	plain.Door = false
	if cert := parse(t, issueHost(t, a, plain, epoch).Cert); !slices.Equal(cert.Subject.Organization, []string{GroupHosts}) {
		t.Errorf("a plain host is %s", cert.Subject)
	}
	user := parse(t, issueUser(t, a, User{Name: "ana", Role: Operator, Validity: time.Hour}, epoch).Cert)
	if user.Subject.CommonName != "ana" || !slices.Equal(user.Subject.Organization, []string{"picket:operators"}) || !slices.Equal(user.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) || !user.NotAfter.Equal(epoch.Add(time.Hour)) {
		t.Errorf("the user is %s until %s", user.Subject, user.NotAfter)
	}
	if late := parse(t, issueHost(t, a, host, ca.NotAfter.Add(-time.Hour)).Cert); !late.NotAfter.Equal(ca.NotAfter) {
		t.Errorf("a certificate ends on %s, its authority on %s", late.NotAfter, ca.NotAfter)
	}
}

func TestIssueRefuses(t *testing.T) {
	a := newAuthority(t)
	_, noNode := a.IssueHost(Host{}, epoch)
	_, badName := a.IssueHost(Host{Node: "knöten"}, epoch)
	_, noUser := a.IssueUser(User{Role: Admin}, epoch)
	_, noRole := a.IssueUser(User{Name: "ana"}, epoch)
	_, hostRole := a.IssueUser(User{Name: "ana", Role: GroupDoors}, epoch)
	_, noFleet := NewAuthority("", epoch)
	_, expired := a.IssueUser(User{Name: "ana", Role: Admin}, epoch.Add(2*authorityValidity))
	for name, err := range map[string]error{"no node": noNode, "a name no certificate takes": badName, "no user": noUser, "no role": noRole, "a host's role": hostRole, "no fleet": noFleet, "an expired authority": expired} {
		if err == nil || !strings.HasPrefix(err.Error(), "cannot make") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for word, want := range map[string]Role{"viewer": Viewer, "operator": Operator, "admin": Admin} {
		if role, err := ParseRole(word); role != want || err != nil {
			t.Errorf("%s is %s: %v", word, role, err)
		}
	}
	if _, err := ParseRole("root"); err == nil {
		t.Error("root is a role")
	}
}

func TestAuthorityIsReadAsItWasWritten(t *testing.T) {
	dir := t.TempDir()
	if _, err := ReadAuthority(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty directory: %v", err)
	}
	a := newAuthority(t)
	if err := a.Write(dir); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, FileCAKey)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("ca.key has mode %v: %v", info.Mode(), err)
	}
	// While authorities change, hosts trust two; the key says which one signs.
	other := newAuthority(t)
	if err := writeFile(filepath.Join(dir, FileCA), slices.Concat(other.CertificatePEM(), a.CertificatePEM()), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := ReadAuthority(dir)
	if err != nil || !bytes.Equal(got.CertificatePEM(), a.CertificatePEM()) {
		t.Fatalf("read another authority: %v", err)
	}
	writeHost(t, dir, a, issueHost(t, got, host, epoch))
	id, err := ReadIdentity(dir, epoch)
	if err != nil || id.Node() != "host-01" || !id.Door() {
		t.Errorf("the host's identity is %+v: %v", id, err)
	}
	if hostEnd, caEnd := id.Expiry(); !hostEnd.Equal(epoch.Add(DefaultValidity)) || !caEnd.Equal(epoch.Add(authorityValidity)) {
		t.Errorf("they end on %s and %s", hostEnd, caEnd)
	}
}

// Every error names the file and says what is wrong with it.
func TestIdentityErrors(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	good := issueHost(t, a, host, epoch)
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecDER, err := x509.MarshalPKCS8PrivateKey(ecKey)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, data []byte, mode os.FileMode) func(string) error {
		return func(dir string) error { return writeFile(filepath.Join(dir, name), data, mode) }
	}
	for name, c := range map[string]struct {
		spoil func(dir string) error
		now   time.Time
		file  string
		words string
	}{
		"no ca.crt":            {spoil: func(dir string) error { return os.Remove(filepath.Join(dir, FileCA)) }, file: FileCA, words: "no such file"},
		"no host.key":          {spoil: func(dir string) error { return os.Remove(filepath.Join(dir, FileHostKey)) }, file: FileHostKey, words: "no such file"},
		"empty certificate":    {spoil: write(FileHost, nil, 0o644), file: FileHost, words: "no certificate in PEM form"},
		"damaged certificate":  {spoil: write(FileHost, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}), 0o644), file: FileHost, words: "cannot be read"},
		"key as certificate":   {spoil: write(FileHost, good.Key, 0o644), file: FileHost, words: "holds a PRIVATE KEY"},
		"certificate as key":   {spoil: write(FileHostKey, good.Cert, 0o600), file: FileHostKey, words: "no unencrypted PKCS #8 key"},
		"damaged key":          {spoil: write(FileHostKey, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}), 0o600), file: FileHostKey, words: "cannot be read"},
		"another kind of key":  {spoil: write(FileHostKey, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: ecDER}), 0o600), file: FileHostKey, words: "ed25519"},
		"another key":          {spoil: write(FileHostKey, issueHost(t, a, host, epoch).Key, 0o600), file: FileHostKey, words: "not the key of"},
		"readable key":         {spoil: write(FileHostKey, good.Key, 0o644), file: FileHostKey, words: "chmod 600"},
		"another fleet":        {spoil: write(FileCA, other.CertificatePEM(), 0o644), file: FileHost, words: "another fleet"},
		"a host as authority":  {spoil: write(FileCA, good.Cert, 0o644), file: FileCA, words: "no authority"},
		"expired":              {now: epoch.Add(DefaultValidity + time.Second), file: FileHost, words: "expired on 2027-01-02"},
		"not yet valid":        {now: epoch.Add(-2 * time.Hour), file: FileHost, words: "clock"},
		"a user's certificate": {spoil: func(dir string) error { return writeUserAsHost(t, dir, a) }, file: FileHost, words: "no host's certificate"},
		"a directory": {spoil: func(dir string) error {
			_ = os.Remove(filepath.Join(dir, FileCA))
			return os.Mkdir(filepath.Join(dir, FileCA), 0o755)
		}, file: FileCA, words: "is not a file"},
		"something much larger": {spoil: write(FileCA, make([]byte, maxFileSize+1), 0o644), file: FileCA, words: "no certificate"},
	} {
		dir := t.TempDir()
		writeHost(t, dir, a, good)
		if c.spoil != nil {
			if err := c.spoil(dir); err != nil {
				t.Fatal(err)
			}
		}
		now := epoch
		if !c.now.IsZero() {
			now = c.now
		}
		id, err := ReadIdentity(dir, now)
		if timeOnly := !c.now.IsZero(); errors.Is(err, ErrNotNow) != timeOnly || (id != nil) != timeOnly {
			t.Errorf("%s: identity %v, error %v", name, id, err)
		}
		if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, c.file)) || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func writeUserAsHost(t *testing.T, dir string, a *Authority) error {
	p := issueUser(t, a, User{Name: "ana", Role: Admin}, epoch)
	return WritePair(filepath.Join(dir, FileHost), filepath.Join(dir, FileHostKey), p)
}

func TestExpiredAuthority(t *testing.T) {
	a := newAuthority(t)
	dir := t.TempDir()
	// A certificate that says it outlives its authority, as only another tool makes them.
	longer := *a.cert
	longer.NotAfter = a.cert.NotAfter.AddDate(5, 0, 0)
	p, err := (&Authority{cert: &longer, key: a.key}).IssueHost(host, a.cert.NotAfter)
	if err != nil {
		t.Fatal(err)
	}
	writeHost(t, dir, a, p)
	id, err := ReadIdentity(dir, a.cert.NotAfter.Add(time.Hour))
	if id == nil || !errors.Is(err, ErrNotNow) || !strings.Contains(err.Error(), `"prod"`) || !strings.Contains(err.Error(), "new authority") {
		t.Errorf("%v", err)
	}
}

func TestGroupMayReadAKey(t *testing.T) {
	a, dir := newAuthority(t), t.TempDir()
	writeHost(t, dir, a, issueHost(t, a, host, epoch))
	for mode, allowed := range map[os.FileMode]bool{0o600: true, 0o400: true, 0o640: true, 0o660: false, 0o604: false, 0o601: false} {
		if err := os.Chmod(filepath.Join(dir, FileHostKey), mode); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadIdentity(dir, epoch); (err == nil) != allowed {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
}

// snapshot is every file of a directory.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = string(data)
	}
	return files
}

func start(t *testing.T, dir string, h Host, now time.Time) Start {
	t.Helper()
	s, err := FirstStart(dir, "prod", h, now)
	if err != nil {
		t.Fatal(err)
	}
	checkStart(t, dir, s, h, now)
	return s
}

// checkStart checks that everything in the directory verifies.
func checkStart(t *testing.T, dir string, s Start, h Host, now time.Time) {
	t.Helper()
	id, err := ReadIdentity(dir, now)
	if err != nil {
		t.Fatal(err)
	}
	if id.Node() != h.Node || len(h.missing(id.Certificate.Leaf)) > 0 || !bytes.Equal(s.CA, []byte(snapshot(t, dir)[FileCA])) {
		t.Errorf("the host's certificate is for %s, lacks %v", id.Node(), h.missing(id.Certificate.Leaf))
	}
	if _, err := tls.X509KeyPair(s.Admin.Cert, s.Admin.Key); err != nil {
		t.Errorf("the administrator's: %v", err)
	}
	admin := parse(t, s.Admin.Cert)
	if err := verify(admin, id.Authorities, now, x509.ExtKeyUsageClientAuth); err != nil || !slices.Contains(admin.Subject.Organization, string(Admin)) {
		t.Errorf("the administrator is %s: %v", admin.Subject, err)
	}
}

var allFiles = []string{FileCAKey, FileCA, FileHostKey, FileHost, FileAdminKey, FileAdmin} // in the order they are written

func TestFirstStart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data", "pki")
	s := start(t, dir, host, epoch)
	before := snapshot(t, dir)
	if names := slices.Sorted(maps.Keys(before)); !slices.Equal(names, slices.Sorted(slices.Values(allFiles))) || !slices.Equal(slices.Sorted(slices.Values(s.Made)), names) {
		t.Errorf("there are %v, made were %v", names, s.Made)
	}
	for _, name := range allFiles {
		if info, _ := os.Stat(filepath.Join(dir, name)); strings.HasSuffix(name, ".key") && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
	}
	if info, _ := os.Stat(dir); info.Mode().Perm() != 0o700 {
		t.Errorf("the directory has mode %v", info.Mode())
	}
	if s = start(t, dir, host, epoch.Add(DefaultValidity/2)); len(s.Made) > 0 || !maps.Equal(snapshot(t, dir), before) {
		t.Errorf("a second start made %v", s.Made)
	}
}

func TestFirstStartRenews(t *testing.T) {
	moved, renamed := host, host
	moved.Addresses = append(slices.Clone(moved.Addresses), "10.9.9.9")
	renamed.Node = "host-02"
	fewer := Host{Node: host.Node}
	for name, c := range map[string]struct {
		host Host
		now  time.Time
		made []string
	}{
		"an address more":   {moved, epoch, []string{FileHost}},
		"an address fewer":  {fewer, epoch, nil},
		"another name":      {renamed, epoch, []string{FileHost}},
		"near expiry":       {host, epoch.Add(DefaultValidity * 3 / 4), []string{FileHost, FileAdmin}},
		"expired":           {host, epoch.Add(DefaultValidity * 2), []string{FileHost, FileAdmin}},
		"a clock set back":  {host, epoch.Add(-30 * time.Minute), nil},
		"set back far":      {host, epoch.Add(-100 * 24 * time.Hour), []string{FileHost, FileAdmin}},
		"the day after all": {host, epoch.Add(24 * time.Hour), nil},
	} {
		dir := t.TempDir()
		start(t, dir, host, epoch)
		before := snapshot(t, dir)
		s := start(t, dir, c.host, c.now)
		if !slices.Equal(s.Made, c.made) {
			t.Errorf("%s: made were %v", name, s.Made)
		}
		for file, content := range snapshot(t, dir) {
			if changed := content != before[file]; changed != slices.Contains(c.made, file) {
				t.Errorf("%s: %s changed %t", name, file, changed)
			}
		}
		// Without the authority's key it can only say so.
		dir = t.TempDir()
		start(t, dir, host, epoch)
		if err := os.Remove(filepath.Join(dir, FileCAKey)); err != nil {
			t.Fatal(err)
		}
		before = snapshot(t, dir)
		s, err := FirstStart(dir, "prod", c.host, c.now)
		if !maps.Equal(snapshot(t, dir), before) || len(s.Made) > 0 {
			t.Errorf("%s: without ca.key it made %v", name, s.Made)
		}
		if renew := len(c.made) > 0; err != nil || renew == (s.Stale == "") || len(s.Admin.Cert) == 0 {
			t.Errorf("%s: without ca.key: stale %q, error %v", name, s.Stale, err)
		}
	}
}

// A crash leaves a prefix of the files, and maybe one under its hidden name; the next start finishes without losing what was
// there. The same goes for crashes in a renewal, and for files that somebody removed while ca.key is there.
func TestFirstStartAfterACrash(t *testing.T) {
	for present := range 1 << len(allFiles) {
		dir := t.TempDir()
		start(t, dir, host, epoch)
		var kept []string
		for i, name := range allFiles {
			if present&(1<<i) == 0 {
				_ = os.Remove(filepath.Join(dir, name))
			} else {
				kept = append(kept, name)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "."+FileHostKey+".new"), []byte("half a k"), 0o644); err != nil {
			t.Fatal(err)
		}
		before := snapshot(t, dir)
		s, err := FirstStart(dir, "prod", host, epoch)
		if slices.Contains(kept, FileCAKey) || len(kept) == 0 || !slices.Contains(kept, FileCA) && !slices.Contains(kept, FileHost) {
			if err != nil {
				t.Errorf("with %v: %v", kept, err)
				continue
			}
			checkStart(t, dir, s, host, epoch)
			if now := snapshot(t, dir); slices.Contains(kept, FileCA) && now[FileCA] != before[FileCA] {
				t.Errorf("with %v the authority was replaced", kept)
			}
			continue
		}
		// Without ca.key a whole host is left alone, anything less is an error, and nothing is touched.
		whole := slices.Contains(kept, FileCA) && slices.Contains(kept, FileHost) && slices.Contains(kept, FileHostKey)
		if (err == nil) != whole || !maps.Equal(snapshot(t, dir), before) {
			t.Errorf("with %v: %v, changed %t", kept, err, !maps.Equal(snapshot(t, dir), before))
		}
	}
}

// Every pair of files from two starts in a row is either repaired or refused, and never taken for good.
func TestFirstStartNeverMixes(t *testing.T) {
	one, two := t.TempDir(), t.TempDir()
	start(t, one, host, epoch)
	start(t, two, host, epoch)
	mine, theirs := snapshot(t, one), snapshot(t, two)
	for from := 1; from < 1<<len(allFiles)-1; from++ {
		dir := t.TempDir()
		for i, name := range allFiles {
			data := mine[name]
			if from&(1<<i) != 0 {
				data = theirs[name]
			}
			if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s, err := FirstStart(dir, "prod", host, epoch)
		if sameAuthority := from&1 == from>>1&1; sameAuthority != (err == nil) {
			t.Errorf("mix %06b: %v", from, err)
		} else if err == nil {
			checkStart(t, dir, s, host, epoch)
		} else if !strings.Contains(err.Error(), FileCAKey) || !strings.Contains(err.Error(), "put back") {
			t.Errorf("mix %06b: %v", from, err)
		}
	}
}

// What is written first decides what a crash leaves: a key alone can be finished, a certificate alone would be trusted already.
func TestKeysAreWrittenFirst(t *testing.T) {
	a := newAuthority(t)
	for cert, write := range map[string]func(dir string) error{
		FileCA: a.Write,
		FileHost: func(dir string) error {
			return WritePair(filepath.Join(dir, FileHost), filepath.Join(dir, FileHostKey), issueHost(t, a, host, epoch))
		},
	} {
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, cert, "in the way"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := write(dir); err == nil || !strings.Contains(err.Error(), cert) {
			t.Errorf("%s: %v", cert, err)
		}
		if _, err := readKey(filepath.Join(dir, strings.TrimSuffix(cert, ".crt")+".key")); err != nil {
			t.Errorf("%s came before its key: %v", cert, err)
		}
	}
}

func TestWriteFileErrorsNameTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none", FileCA)
	if err := writeFile(path, nil, 0o644); err == nil || !strings.Contains(err.Error(), path) {
		t.Error(err)
	}
	// A target that cannot be replaced leaves no key lying about.
	dir := t.TempDir()
	path = filepath.Join(dir, FileCA)
	if err := os.MkdirAll(filepath.Join(path, "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := writeFile(path, []byte("secret"), 0o600); err == nil || !strings.Contains(err.Error(), path) {
		t.Error(err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left are %v", entries)
	}
}
