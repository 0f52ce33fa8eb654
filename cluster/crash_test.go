package cluster

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// crashKeys are written together in every transaction of the child.
var crashKeys = []string{"a", "b", "c", "d"}

// TestMain lets the test binary be the agent that is killed.
func TestMain(m *testing.M) {
	if path := os.Getenv("PICKET_TEST_CRASH"); path != "" {
		if err := writeUntilKilled(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// writeUntilKilled counts on in all keys at once and says each number when the store has acknowledged it.
func writeUntilKilled(path string) error {
	db, setAside, err := OpenDB(path)
	if err != nil || setAside != "" {
		return fmt.Errorf("set aside %q: %w", setAside, err)
	}
	s, err := OpenStore(db, "child", func() time.Time { return epoch })
	if err != nil {
		return err
	}
	n := 0
	if o, ok := s.Get(crashKeys[0]); ok {
		n = countOf(o)
	}
	for {
		n++
		var writes []Write
		for i, key := range crashKeys {
			// Bodies of many sizes make pages split, join, overflow and be reused.
			w := content(key, fmt.Sprintf("%d %s", n, strings.Repeat("x", n*(i+1)*97%9000)))
			if w.Deleted = n%7 == 6; w.Deleted {
				w.Author = strconv.Itoa(n)
			}
			writes = append(writes, w)
		}
		if _, err := s.PutAll(writes); err != nil {
			return err
		}
		fmt.Println(n)
	}
}

// countOf is the number a child wrote into an object.
func countOf(o Object) int {
	text := o.Author
	if !o.Deleted {
		text, _, _ = strings.Cut(string(o.Body), " ")
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return -1
	}
	return n
}

func TestKill9(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	rounds := 40
	if testing.Short() {
		rounds = 5
	}
	last := 0
	for round := range rounds {
		acknowledged := killAfter(t, path, 1+rand.IntN(30))
		if acknowledged <= last && round > 0 {
			t.Fatalf("round %d: counting went on from %d, not from %d", round, acknowledged, last)
		}
		db := openDB(t, path)
		s := openStore(t, db)
		if len(s.Damaged()) > 0 || len(s.All()) != len(crashKeys) {
			t.Fatalf("round %d: %d objects, damaged %v", round, len(s.All()), s.Damaged())
		}
		last = countOf(s.All()[0])
		for _, o := range s.All() {
			if n := countOf(o); n != last || uint64(n) != o.Version.Generation || n < acknowledged || n > acknowledged+1 {
				t.Errorf("round %d: %d was acknowledged, %s holds %d in generation %d, %s holds %d", round, acknowledged, o.Key, n, o.Version.Generation, crashKeys[0], last)
			}
		}
		if err := db.Close(); err != nil || t.Failed() {
			t.Fatal(err)
		}
	}
}

// killAfter lets a child write until it has acknowledged some writes, kills it wherever it is then, and returns the last number
// that it acknowledged.
func killAfter(t *testing.T, path string, acknowledgements int) (last int) {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), "PICKET_TEST_CRASH="+path)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	var first time.Time
	for i := 0; lines.Scan(); i++ {
		switch i {
		case 0:
			first = time.Now()
		case acknowledgements:
			// Anywhere in the transaction that goes on now: they take about as long as those before.
			time.Sleep(rand.N(1 + time.Since(first)/time.Duration(acknowledgements)))
			_ = child.Process.Kill()
		}
		if last, err = strconv.Atoi(lines.Text()); err != nil {
			t.Fatal(err)
		}
	}
	_, _ = io.Copy(io.Discard, out)
	if err := child.Wait(); err == nil || last == 0 {
		t.Fatalf("the child ended by itself after %d", last)
	}
	return last
}
