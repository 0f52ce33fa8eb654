package pki

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// FileGossipKeys holds the keys that encrypt gossip, one a line in base64. Lines that begin with # are comments.
const FileGossipKeys = "gossip.keys"

const (
	gossipKeySize = 32 // bytes: AES-256
	// maxGossipKeys bounds the keys that every message from a stranger is tried with. A rotation needs two.
	maxGossipKeys = 8
)

// GossipKeys is a file of gossip keys.
type GossipKeys struct {
	// Keys are different, 32 bytes each, at least one. The first encrypts what this host sends; all of them decrypt.
	Keys [][]byte

	text []byte
}

// ParseGossipKeys reads the content of a file. Its errors name the line and never show a part of a key.
func ParseGossipKeys(text []byte) (GossipKeys, error) {
	g := GossipKeys{text: slices.Clone(text)}
	lines := make(map[string]int)
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, err := base64.StdEncoding.Strict().DecodeString(line)
		switch {
		case err != nil:
			return GossipKeys{}, fmt.Errorf("line %d is not base64: a key has 44 characters, the last of them =", number)
		case len(key) != gossipKeySize:
			return GossipKeys{}, fmt.Errorf("line %d holds a key of %d bytes: only keys of %d bytes are used here", number, len(key), gossipKeySize)
		case lines[string(key)] > 0:
			return GossipKeys{}, fmt.Errorf("line %d holds the key of line %d again: remove one of the two", number, lines[string(key)])
		case len(g.Keys) == maxGossipKeys:
			return GossipKeys{}, fmt.Errorf("line %d holds one key more than the %d that may be in use at once: remove those that no host has as its first any more", number, maxGossipKeys)
		}
		lines[string(key)] = number
		g.Keys = append(g.Keys, key)
	}
	if len(g.Keys) == 0 {
		return GossipKeys{}, errors.New("there is no key in it: one line for each, 32 bytes in base64")
	}
	return g, nil
}

// ReadGossipKeys reads a file that nobody else can. The error is fs.ErrNotExist when it is not there.
func ReadGossipKeys(path string) (GossipKeys, error) {
	text, err := readFile(path)
	if err != nil {
		return GossipKeys{}, err
	}
	if err := checkSecret(path); err != nil {
		return GossipKeys{}, err
	}
	g, err := ParseGossipKeys(text)
	if err != nil {
		return GossipKeys{}, fmt.Errorf("%s: %w", path, err)
	}
	return g, nil
}

// Text is the content of the file, comments included.
func (g GossipKeys) Text() []byte { return slices.Clone(g.text) }

// with adds a new key behind the others. Without any it is the first.
func (g GossipKeys) with(now time.Time) (GossipKeys, error) {
	key := make([]byte, gossipKeySize)
	if _, err := rand.Read(key); err != nil {
		return GossipKeys{}, fmt.Errorf("cannot make a gossip key: %w", err)
	}
	text := g.Text()
	if len(text) > 0 && !bytes.HasSuffix(text, []byte("\n")) {
		text = append(text, '\n')
	}
	text = fmt.Appendf(text, "# %s, made on %s\n%s\n", Fingerprint(key), day(now), base64.StdEncoding.EncodeToString(key))
	return ParseGossipKeys(text)
}

// Fingerprint names a gossip key without telling it: 8 hexadecimal digits.
func Fingerprint(key []byte) string {
	sum := sha256.Sum256(append([]byte("picket gossip key\x00"), key...))
	return hex.EncodeToString(sum[:4])
}

// FirstGossipKey makes gossip.keys, with one key; fs.ErrExist when it is there.
func FirstGossipKey(dir string, now time.Time) (g GossipKeys, err error) {
	err = alone(dir, func() error {
		g, err = firstGossipKey(dir, now)
		return err
	})
	return g, err
}

func firstGossipKey(dir string, now time.Time) (GossipKeys, error) {
	path := filepath.Join(dir, FileGossipKeys)
	if err := absent(path); err != nil {
		return GossipKeys{}, err
	}
	g, err := GossipKeys{text: []byte("# The first key encrypts gossip, all of them decrypt it.\n")}.with(now)
	if err != nil {
		return GossipKeys{}, err
	}
	return g, writeFile(path, g.text, 0o600)
}

// AddGossipKey adds a key to gossip.keys, behind the others: hosts that have it understand those that will encrypt with it. The
// error is fs.ErrNotExist when the file is not there: whose hosts have keys must not begin anew.
func AddGossipKey(dir string, now time.Time) (g GossipKeys, err error) {
	err = alone(dir, func() error {
		path := filepath.Join(dir, FileGossipKeys)
		if g, err = ReadGossipKeys(path); err != nil {
			return err
		}
		if len(g.Keys) == maxGossipKeys {
			return fmt.Errorf("%s holds %d keys, as many as may be in use at once: remove those that no host has as its first any more", path, maxGossipKeys)
		}
		if g, err = g.with(now); err != nil {
			return err
		}
		return writeFile(path, g.text, 0o600)
	})
	return g, err
}
