package pki

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestInitReplacesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	a, g, err := Init(dir, "prod", epoch)
	if err != nil || a.Name() != "prod" || len(g.Keys) != 1 {
		t.Fatalf("%v, %d keys: %v", a, len(g.Keys), err)
	}
	for path, mode := range map[string]fs.FileMode{dir: 0o700, filepath.Join(dir, FileCA): 0o644, filepath.Join(dir, FileCAKey): 0o600, filepath.Join(dir, FileGossipKeys): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v %v", path, info.Mode(), err)
		}
	}
	before := contents(t, dir)
	if _, _, err := Init(dir, "other", epoch); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second time: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, FileCAKey)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Init(dir, "other", epoch); !errors.Is(err, fs.ErrExist) {
		t.Errorf("with the key elsewhere: %v", err)
	}
	for name, text := range contents(t, dir) {
		if text != before[name] {
			t.Errorf("%s has changed", name)
		}
	}
}

func TestInitFinishesWhatWasInterrupted(t *testing.T) {
	dir := t.TempDir()
	if _, _, err := Init(dir, "prod", epoch); err != nil {
		t.Fatal(err)
	}
	before := contents(t, dir)
	if err := os.Remove(filepath.Join(dir, FileCA)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Init(dir, "prod", epoch); err != nil {
		t.Fatal(err)
	}
	after := contents(t, dir)
	if after[FileCAKey] != before[FileCAKey] || after[FileGossipKeys] != before[FileGossipKeys] || after[FileCA] == "" {
		t.Error("a key was made anew")
	}
	if err := os.WriteFile(filepath.Join(dir, FileGossipKeys), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, FileCA)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Init(dir, "prod", epoch); err == nil || !strings.Contains(err.Error(), FileGossipKeys) {
		t.Errorf("an empty file of keys: %v", err)
	}
}

func TestInitAtTheSameTime(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	made := make([]*Authority, 8)
	for i := range made {
		wg.Go(func() { made[i], _, _ = Init(dir, "prod", epoch) })
	}
	wg.Wait()
	there, err := ReadAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range made {
		if a != nil && !a.cert.Equal(there.cert) {
			t.Error("somebody was told of an authority that is not there any more")
		}
	}
}

func TestHostKitIsAnIdentity(t *testing.T) {
	office, dir := t.TempDir(), filepath.Join(t.TempDir(), "host-01")
	a, g, err := Init(office, "prod", epoch)
	if err != nil {
		t.Fatal(err)
	}
	kit := HostKit{CA: a.TrustedPEM(), Gossip: g, Pair: issueHost(t, a, host, epoch)}
	if err := kit.Write(dir, false); err != nil {
		t.Fatal(err)
	}
	id, err := ReadIdentity(dir, epoch)
	if err != nil || id.Node() != "host-01" || !id.Door() {
		t.Errorf("%v", err)
	}
	if keys, err := ReadGossipKeys(filepath.Join(dir, FileGossipKeys)); err != nil || len(keys.Keys) != 1 {
		t.Errorf("%d gossip keys: %v", len(keys.Keys), err)
	}
	before := contents(t, dir)
	kit.Pair = issueHost(t, a, host, epoch)
	if err := kit.Write(dir, false); !errors.Is(err, fs.ErrExist) || contents(t, dir)[FileHost] != before[FileHost] {
		t.Errorf("over another: %v", err)
	}
	if err := kit.Write(dir, true); err != nil || contents(t, dir)[FileHost] == before[FileHost] {
		t.Errorf("in place of another: %v", err)
	}
	if err := kit.Write(office, true); err == nil || !strings.Contains(err.Error(), FileCAKey) || contents(t, office)[FileHost] != "" {
		t.Errorf("beside ca.key: %v", err)
	}
}

// A host that is made while authorities change trusts the old hosts too.
func TestTrustedPEMHasAllAuthorities(t *testing.T) {
	dir := t.TempDir()
	old, young := newAuthority(t), newAuthority(t)
	if err := young.Write(dir); err != nil {
		t.Fatal(err)
	}
	if err := writeFile(filepath.Join(dir, FileCA), append(old.CertificatePEM(), young.CertificatePEM()...), 0o644); err != nil {
		t.Fatal(err)
	}
	a, err := ReadAuthority(dir)
	if err != nil || string(a.TrustedPEM()) != contents(t, dir)[FileCA] || string(a.CertificatePEM()) != string(young.CertificatePEM()) {
		t.Errorf("%v", err)
	}
	if string(old.TrustedPEM()) != string(old.CertificatePEM()) || !old.Expiry().Equal(epoch.Add(authorityValidity)) {
		t.Errorf("a new authority trusts %s until %s", old.TrustedPEM(), old.Expiry())
	}
}

func TestWriteSecret(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "kubeconfig")
	if err := WriteSecret(path, []byte("one"), false); err != nil {
		t.Fatal(err)
	}
	if err := WriteSecret(path, []byte("two"), false); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over another: %v", err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 || contents(t, filepath.Dir(path))["kubeconfig"] != "one" {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if err := WriteSecret(path, []byte("two"), true); err != nil || contents(t, filepath.Dir(path))["kubeconfig"] != "two" {
		t.Errorf("in place of another: %v", err)
	}
}

func TestLeaf(t *testing.T) {
	pair := issueHost(t, newAuthority(t), Host{Node: "host-01", Validity: time.Hour}, epoch)
	if leaf, err := pair.Leaf(); err != nil || !leaf.NotAfter.Equal(epoch.Add(time.Hour)) {
		t.Errorf("%v", err)
	}
	if _, err := (Pair{Cert: pair.Key}).Leaf(); err == nil {
		t.Error("a key is a certificate")
	}
}

func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string]string)
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = string(text)
	}
	return files
}
