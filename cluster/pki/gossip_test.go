package pki

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func gossipKey(b byte) []byte { return bytes.Repeat([]byte{b}, gossipKeySize) }

func encoded(b byte) string { return base64.StdEncoding.EncodeToString(gossipKey(b)) }

func TestGossipKeysAreReadInOrder(t *testing.T) {
	for name, text := range map[string]string{
		"plain":            encoded(2) + "\n" + encoded(1) + "\n",
		"no last newline":  encoded(2) + "\n" + encoded(1),
		"Windows lines":    encoded(2) + "\r\n\r\n" + encoded(1) + "\r\n",
		"comments, spaces": "# first\n\n  " + encoded(2) + "\t\n # old\n" + encoded(1) + " \n#" + encoded(3) + "\n",
	} {
		g, err := ParseGossipKeys([]byte(text))
		if err != nil || !slices.EqualFunc(g.Keys, [][]byte{gossipKey(2), gossipKey(1)}, bytes.Equal) || string(g.Text()) != text {
			t.Errorf("%s: %d keys, %v", name, len(g.Keys), err)
		}
	}
}

func TestBadGossipKeysAreRefusedWithTheirLine(t *testing.T) {
	many := ""
	for i := range byte(maxGossipKeys + 1) {
		many += encoded(i) + "\n"
	}
	for name, c := range map[string]struct{ text, words string }{
		"nothing":        {"", "no key"},
		"only comments":  {"# " + encoded(1) + "\n\n", "no key"},
		"not base64":     {encoded(1) + "\nhello world!\n", "line 2 is not base64"},
		"a late comment": {encoded(1) + " # new", "line 1 is not base64"},
		"two on a line":  {encoded(1) + " " + encoded(2), "line 1 is not base64"},
		"cut off":        {encoded(1)[:43], "line 1 is not base64"},
		"URL alphabet":   {strings.ReplaceAll(encoded(0xff), "/", "_"), "line 1 is not base64"},
		"stray bits":     {encoded(1)[:42] + "F=", "line 1 is not base64"},
		"AES-128":        {"#\n" + base64.StdEncoding.EncodeToString(make([]byte, 16)), "line 2 holds a key of 16 bytes"},
		"too long":       {base64.StdEncoding.EncodeToString(make([]byte, 33)), "line 1 holds a key of 33 bytes"},
		"twice":          {encoded(1) + "\n" + encoded(2) + "\n\n" + encoded(1), "line 4 holds the key of line 1 again"},
		"too many":       {many, "line 9 holds one key more than the 8"},
		"binary":         {"\x00\xff\xfe\n", "line 1 is not base64"},
	} {
		g, err := ParseGossipKeys([]byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.words) || len(g.Keys) > 0 {
			t.Errorf("%s: %v, want %q", name, err, c.words)
		}
		if err != nil && (strings.Contains(err.Error(), encoded(1)[:8]) || strings.Contains(err.Error(), "hello")) {
			t.Errorf("%s: the error shows what is in the file: %v", name, err)
		}
	}
}

func TestGossipKeyIsAddedBehindTheOthers(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, FileGossipKeys)
	if _, err := AddGossipKey(dir, epoch); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a file: %v", err)
	}
	first, err := FirstGossipKey(dir, epoch)
	if err != nil || len(first.Keys) != 1 {
		t.Fatalf("%d keys: %v", len(first.Keys), err)
	}
	if _, err := FirstGossipKey(dir, epoch); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second first one: %v", err)
	}
	// What the administrator wrote stays, also where an editor left no newline.
	if err := os.WriteFile(path, append(first.Text(), "# mine"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := AddGossipKey(dir, epoch); err != nil {
		t.Fatal(err)
	}
	read, err := ReadGossipKeys(path)
	if err != nil || len(read.Keys) != 2 || !bytes.Equal(read.Keys[0], first.Keys[0]) || !strings.Contains(string(read.Text()), "\n# mine\n") {
		t.Errorf("%d keys: %v\n%s", len(read.Keys), err, read.Text())
	}
	if !strings.Contains(string(read.Text()), Fingerprint(read.Keys[1])) || Fingerprint(read.Keys[0]) == Fingerprint(read.Keys[1]) {
		t.Errorf("the file does not name its keys:\n%s", read.Text())
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v: %v", info.Mode(), err)
	}
	for range maxGossipKeys - 2 {
		if _, err := AddGossipKey(dir, epoch); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := AddGossipKey(dir, epoch); err == nil || !strings.Contains(err.Error(), "8 keys") {
		t.Errorf("one too many: %v", err)
	}
}

func TestGossipKeysOthersCanReadAreRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileGossipKeys)
	if err := os.WriteFile(path, []byte(encoded(1)), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadGossipKeys(path); err == nil || !strings.Contains(err.Error(), path+" has mode 0644") {
		t.Errorf("a file for everybody: %v", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("#\nx"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadGossipKeys(path); err == nil || !strings.Contains(err.Error(), path+": line 2") {
		t.Errorf("a bad line: %v", err)
	}
}

func FuzzParseGossipKeys(f *testing.F) {
	f.Add([]byte(encoded(1) + "\n# x\n" + encoded(2)))
	f.Add([]byte("\r\n#"))
	f.Fuzz(func(t *testing.T, text []byte) {
		g, err := ParseGossipKeys(text)
		if err != nil {
			return
		}
		again, err := g.with(epoch)
		if len(g.Keys) == maxGossipKeys {
			return
		}
		if err != nil || len(again.Keys) != len(g.Keys)+1 {
			t.Fatalf("%d keys and one make %d: %v", len(g.Keys), len(again.Keys), err)
		}
		for i, key := range again.Keys {
			if len(key) != gossipKeySize || i < len(g.Keys) && !bytes.Equal(key, g.Keys[i]) {
				t.Fatalf("key %d of %q", i, text)
			}
		}
	})
}
