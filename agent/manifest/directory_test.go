package manifest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// consumer records what a Directory tells it, on a channel: what it is told first is read first.
type consumer struct {
	applied map[string][sha256.Size]byte
	told    chan string
	fail    error
	dir     string
}

func (c *consumer) Applied(path string) ([sha256.Size]byte, bool) {
	hash, known := c.applied[path]
	return hash, known
}

func (c *consumer) Apply(_ context.Context, change FileChange) error {
	if c.fail != nil {
		return c.fail
	}
	var names []string
	for _, obj := range change.File.Objects {
		names = append(names, obj.GetName())
	}
	c.told <- fmt.Sprintf("apply %s %v known=%v", c.short(change.Path), names, change.Known)
	c.applied[change.Path] = change.Hash
	return nil
}

func (c *consumer) Report(path string, errs Errors) {
	texts := []string{}
	for _, e := range errs {
		texts = append(texts, e.Text)
	}
	c.told <- fmt.Sprintf("report %s %s", c.short(path), texts)
}

func (c *consumer) short(path string) string {
	rel, err := filepath.Rel(c.dir, path)
	if err != nil {
		return path
	}
	return rel
}

// drain returns what was told since the last time, sorted.
func (c *consumer) drain() []string {
	var got []string
	for len(c.told) > 0 {
		got = append(got, <-c.told)
	}
	slices.Sort(got)
	return got
}

func newDirectory(t *testing.T) (*Directory, *consumer, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "manifests.d")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	c := &consumer{applied: map[string][sha256.Size]byte{}, told: make(chan string, 1000), dir: dir}
	return NewDirectory(DirectoryConfig{
		Path: dir, Consumer: c, Logger: slog.New(slog.DiscardHandler), Rescan: time.Hour, Settle: time.Nanosecond,
	}), c, dir
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

// put writes a file as configuration tools do: whole, by renaming it into place.
func put(t *testing.T, dir, name, text string) {
	t.Helper()
	write(t, filepath.Dir(dir), name, text)
	if err := os.Rename(filepath.Join(filepath.Dir(dir), name), filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, d *Directory, c *consumer, want ...string) {
	t.Helper()
	d.scan(t.Context())
	if got := c.drain(); !slices.Equal(got, want) {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func TestDirectoryAppliesWhatChanges(t *testing.T) {
	d, c, dir := newDirectory(t)
	expect(t, d, c)
	write(t, dir, "a.yaml", cmYAML("a"))
	write(t, dir, "b.yml", cmYAML("b")+"---\n"+cmYAML("b2"))
	write(t, dir, "c.json", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"}}`)
	for _, ignored := range []string{"README", "x.txt", ".hidden.yaml", ".ansible_tmp.yaml", "a.yaml~", "#a.yaml#", "#b.yaml", ".#a.yaml", "a.yaml.swp", "a.yaml.rpmsave"} {
		write(t, dir, ignored, "not: a manifest")
	}
	if err := os.MkdirAll(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "sub/d.yaml", cmYAML("d"))
	expect(t, d, c, "apply a.yaml [a] known=false", "apply b.yml [b b2] known=false", "apply c.json [c] known=false")
	expect(t, d, c)
	write(t, dir, "a.yaml", cmYAML("a")+"data: {x: \"1\"}\n")
	expect(t, d, c, "apply a.yaml [a] known=true")
	remove(t, dir, "a.yaml") // deletes nothing
	expect(t, d, c)
	write(t, dir, "a.yaml", cmYAML("a")+"data: {x: \"1\"}\n") // as it was applied
	expect(t, d, c)
	write(t, dir, "a.yaml", cmYAML("a")) // a rollback is a write
	expect(t, d, c, "apply a.yaml [a] known=true")
}

func TestDirectoryDoesNotRememberEmptyFiles(t *testing.T) {
	d, c, dir := newDirectory(t)
	write(t, dir, "a.yaml", "")
	expect(t, d, c)
	write(t, dir, "b.yaml", "apiVersion: v1\nkind: Service\n") // of this one the consumer tells that it is left out
	expect(t, d, c, "apply b.yaml [] known=false")
	expect(t, d, c)
	write(t, dir, "a.yaml", cmYAML("a"))
	expect(t, d, c, "apply a.yaml [a] known=false")
	write(t, dir, "a.yaml", "# not here any more\n")
	expect(t, d, c, "apply a.yaml [] known=true")
}

func TestDirectoryRemembersAcrossRestarts(t *testing.T) {
	d, c, dir := newDirectory(t)
	write(t, dir, "a.yaml", cmYAML("a"))
	write(t, dir, "b.yaml", cmYAML("b"))
	expect(t, d, c, "apply a.yaml [a] known=false", "apply b.yaml [b] known=false")
	write(t, dir, "b.yaml", cmYAML("b")+"data: {x: \"1\"}\n")
	expect(t, NewDirectory(d.DirectoryConfig), c, "apply b.yaml [b] known=true")
}

func TestDirectoryTakesWholeFilesOrNothing(t *testing.T) {
	d, c, dir := newDirectory(t)
	write(t, dir, "a.yaml", cmYAML("a")+"---\n"+cmYAML("b")+"dada: {}\n")
	write(t, dir, "good.yaml", cmYAML("good"))
	expect(t, d, c, "apply good.yaml [good] known=false", "report a.yaml [unknown field]")
	expect(t, d, c) // once is enough
	write(t, dir, "a.yaml", cmYAML("a")+"---\n"+cmYAML("b")+"dada: {}\nmore: {}\n")
	expect(t, d, c, "report a.yaml [unknown field unknown field]")
	write(t, dir, "a.yaml", cmYAML("a"))
	expect(t, d, c, "apply a.yaml [a] known=false", "report a.yaml []")
	write(t, dir, "a.yaml", "kind: {")
	d.scan(t.Context())
	c.drain()
	remove(t, dir, "a.yaml")
	expect(t, d, c, "report a.yaml []")
}

// Files that cannot be read, or must not be opened, are errors of their own; the others are read.
func TestDirectoryOfHostileFiles(t *testing.T) {
	d, c, dir := newDirectory(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	err := errors.Join(
		syscall.Mkfifo(at("fifo.yaml"), 0o600), os.Mkdir(at("dir.yaml"), 0o755), os.Symlink("gone", at("broken.yaml")),
		os.Symlink("/dev/zero", at("zero.yaml")), os.Symlink("loop.yaml", at("loop.yaml")),
		os.WriteFile(at("large.yaml"), nil, 0o600), os.Truncate(at("large.yaml"), 10<<20),
		os.WriteFile(at("new\nline\x1b\xff.yaml"), []byte("kind: {"), 0o600), os.WriteFile(at("good.yaml"), []byte(cmYAML("good")), 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, d, c,
		"apply good.yaml [good] known=false",
		"report broken.yaml [is a link to gone, which does not exist]",
		"report dir.yaml [is a directory; subdirectories are not followed]",
		"report fifo.yaml [is not a regular file but p---------]",
		"report large.yaml [the file has 10.0 MiB; at most 8 MiB are read]",
		"report loop.yaml [cannot be read: too many levels of symbolic links]",
		"report new\nline\x1b\xff.yaml [yaml: did not find expected node content]",
		"report zero.yaml [is not a regular file but Dc---------]",
	)
	expect(t, d, c)
	write(t, dir, "gone", cmYAML("found"))
	expect(t, d, c, "apply broken.yaml [found] known=false", "report broken.yaml []")
}

// A FIFO that takes a file's place after the look at it must not block the agent.
func TestReadManifestDoesNotWaitForWriters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.yaml")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readManifest(path, stamp{size: 5}); !errors.Is(err, errChanging) {
		t.Errorf("got %v", err)
	}
}

// Kubernetes' way to replace the files of a volume at once.
func TestDirectoryFollowsSwappedLinks(t *testing.T) {
	d, c, dir := newDirectory(t)
	for _, version := range []string{"..1", "..2"} {
		if err := os.Mkdir(filepath.Join(dir, version), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, dir, version+"/a.yaml", cmYAML("a")+"data: {version: \""+version+"\"}\n")
	}
	if err := errors.Join(os.Symlink("..1", filepath.Join(dir, "..data")), os.Symlink("..data/a.yaml", filepath.Join(dir, "a.yaml"))); err != nil {
		t.Fatal(err)
	}
	expect(t, d, c, "apply a.yaml [a] known=false")
	if err := errors.Join(os.Symlink("..2", filepath.Join(dir, "..tmp")), os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data"))); err != nil {
		t.Fatal(err)
	}
	expect(t, d, c, "apply a.yaml [a] known=true")
}

func TestDirectoryAsksAgainAfterARefusal(t *testing.T) {
	d, c, dir := newDirectory(t)
	write(t, dir, "a.yaml", cmYAML("a"))
	c.fail = errors.New("no space left on device")
	expect(t, d, c, "report a.yaml [no space left on device]")
	expect(t, d, c)
	c.fail = Errors{{Source: "elsewhere", Field: "spec.selector", Text: "field is immutable"}}
	expect(t, d, c, "report a.yaml [field is immutable]")
	c.fail = nil
	expect(t, d, c, "apply a.yaml [a] known=false", "report a.yaml []")
}

// A file that changes while it is read, or was written a moment ago, is left until it has settled.
func TestDirectoryWaitsForWriters(t *testing.T) {
	d, c, dir := newDirectory(t)
	write(t, dir, "a.yaml", cmYAML("a"))
	d.Settle = time.Hour
	if changing := d.scan(t.Context()); !changing || len(c.told) > 0 {
		t.Errorf("changing %v, told %v", changing, c.drain())
	}
	d.Settle = time.Nanosecond
	expect(t, d, c, "apply a.yaml [a] known=false")
}

func TestDirectoryThatDoesNotExist(t *testing.T) {
	d, c, dir := newDirectory(t)
	write(t, dir, "a.yaml", cmYAML("a"))
	expect(t, d, c, "apply a.yaml [a] known=false")
	d.Path = filepath.Join(dir, "gone")
	expect(t, d, c)
	d.Path = filepath.Join(dir, "a.yaml")
	expect(t, d, c, "report a.yaml [cannot be read: not a directory]")
	expect(t, d, c)
	d.Path = dir
	expect(t, d, c, "report . []") // the directory can be read again, and the file is as it was applied
}

// Run itself, with real events: a change, a directory that comes later, and one that is replaced.
func TestDirectoryRun(t *testing.T) {
	d, c, dir := newDirectory(t)
	d.Settle, d.Rescan = time.Millisecond, 5*time.Millisecond
	remove(t, dir, "")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); d.Run(ctx) }()
	create := func() {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Error(err)
		}
	}
	create()
	put(t, dir, "a.yaml", cmYAML("a"))
	wait(t, c, "apply a.yaml [a] known=false")
	remove(t, dir, "a.yaml")
	remove(t, dir, "")
	create()
	put(t, dir, "b.yaml", cmYAML("b"))
	wait(t, c, "apply b.yaml [b] known=false")
	cancel()
	<-done
}

// Without the rescan, events alone bring changes.
func TestDirectoryRunIsWokenByEvents(t *testing.T) {
	d, c, dir := newDirectory(t)
	d.Settle = time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	put(t, dir, "a.yaml", cmYAML("a"))
	go func() { defer close(done); d.Run(ctx) }()
	wait(t, c, "apply a.yaml [a] known=false") // now the directory is watched
	put(t, dir, "b.yaml", cmYAML("b"))
	wait(t, c, "apply b.yaml [b] known=false")
	put(t, dir, "a.yaml", "kind: {")
	wait(t, c, "report a.yaml [yaml: did not find expected node content]")
	cancel()
	<-done
}

// wait takes the next thing that the consumer is told; the test binary's own deadline ends a wait for nothing.
func wait(t *testing.T, c *consumer, want string) {
	t.Helper()
	if got := <-c.told; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestTwoHundredManifestsAtOnce(t *testing.T) {
	d, c, dir := newDirectory(t)
	for i := range 200 {
		write(t, dir, fmt.Sprintf("%03d.yaml", i), strings.ReplaceAll(webYAML, "web", fmt.Sprintf("web-%d", i)))
	}
	d.scan(t.Context())
	if got := c.drain(); len(got) != 200 {
		t.Errorf("%d were applied", len(got))
	}
}

func TestCheckDirectory(t *testing.T) {
	_, _, dir := newDirectory(t)
	write(t, dir, "a.yaml", webYAML+"        stdinOnce: true\n---\napiVersion: v1\nkind: Service\nmetadata: {name: web}\n")
	write(t, dir, "b.yaml", cmYAML("b")+"dada: {}\n")
	write(t, dir, "c.yaml", webYAML)
	checked, err := CheckDirectory(dir)
	if err != nil || len(checked) != 3 {
		t.Fatalf("%v %+v", err, checked)
	}
	if a := checked[0]; len(a.Errors) != 0 || len(a.File.Warnings) != 1 || len(a.File.Skipped) != 1 {
		t.Errorf("got %+v", a)
	}
	if b := checked[1]; b.Errors.Error() != filepath.Join(dir, "b.yaml")+":5: configmap/default/b: dada: unknown field" {
		t.Errorf("got %v", b.Errors)
	}
	if c := checked[2]; c.Errors.Error() != filepath.Join(dir, "c.yaml")+": daemonset/default/web: is also in a.yaml; keep one" {
		t.Errorf("got %v", c.Errors)
	}
	if _, err := CheckDirectory(filepath.Join(dir, "gone")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
