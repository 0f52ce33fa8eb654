package runtimetest

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// File is a file in an image.
type File struct {
	Content []byte
	Mode    int64  // 0: 0644
	Link    string // a symbolic link to this path, if not empty
}

// Image is the image busybox, as small as an image gets, with what a test wants different.
type Image struct {
	// Config is the image's configuration; without Cmd and Entrypoint it is "sh".
	Config v1.Config
	// Base, if there is one, takes the place of busybox; it is a layer of its own, which images share.
	Base map[string]File
	// Files are added to those, by absolute path.
	Files map[string]File
}

// applet names of a busybox are made links to it.
var busybox = sync.OnceValues(func() (content []byte, err error) {
	file, err := exec.LookPath("busybox")
	if err != nil {
		return nil, fmt.Errorf("cannot find a static busybox (scripts/install-deps.sh installs it): %w", err)
	}
	program, err := elf.Open(file)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", file, err)
	}
	defer func() { _ = program.Close() }()
	if slices.ContainsFunc(program.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		return nil, fmt.Errorf("%s is not static: install busybox-static", file)
	}
	return os.ReadFile(file)
})

var applets = sync.OnceValues(func() ([]string, error) {
	list, err := exec.Command("busybox", "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("cannot list busybox's applets: %w", err)
	}
	return strings.Fields(string(list)), nil
})

// accounts are those of busybox's own image, with two more for tests of users and groups.
var accounts = map[string]File{
	"/etc/passwd": {Content: []byte("root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nwww-data:x:33:33:www-data:/var/www:/bin/false\napp:x:1000:2000:app:/home/app:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n")},
	"/etc/group":  {Content: []byte("root:x:0:\ndaemon:x:1:\nwww-data:x:33:\napp:x:2000:\naudio:x:29:app\nvideo:x:44:app,root\nnobody:x:65534:\n")},
}

// Build makes the image; equal images are equal to the bit.
func (i Image) Build() (v1.Image, error) {
	layers, err := i.layers()
	if err != nil {
		return nil, err
	}
	image, err := mutate.AppendLayers(empty.Image, layers...)
	if err != nil {
		return nil, fmt.Errorf("cannot make the image: %w", err)
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("cannot make the image: %w", err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = "linux", goruntime.GOARCH, i.config()
	return mutate.ConfigFile(image, file)
}

func (i Image) layers() ([]v1.Layer, error) {
	if i.Base == nil {
		files := maps.Clone(accounts)
		maps.Copy(files, i.Files)
		busybox, err := layer(withBusybox(files))
		return []v1.Layer{busybox}, err
	}
	base, err := layer(rootfs(i.Base, nil))
	if err != nil {
		return nil, err
	}
	files, err := layer(rootfs(i.Files, nil))
	return []v1.Layer{base, files}, err
}

func layer(content []byte, err error) (v1.Layer, error) {
	if err != nil {
		return nil, err
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil })
	if err != nil {
		return nil, fmt.Errorf("cannot make the image's layer: %w", err)
	}
	return l, nil
}

func (i Image) config() v1.Config {
	c := i.Config
	if len(c.Cmd)+len(c.Entrypoint) == 0 {
		c.Cmd = []string{"sh"}
	}
	if !slices.ContainsFunc(c.Env, func(e string) bool { return strings.HasPrefix(e, "PATH=") }) {
		c.Env = append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, c.Env...)
	}
	return c
}

// withBusybox is a layer's tar: busybox, links for its applets, the directories of a file system and files.
func withBusybox(files map[string]File) ([]byte, error) {
	program, err := busybox()
	if err != nil {
		return nil, err
	}
	names, err := applets()
	if err != nil {
		return nil, err
	}
	return rootfs(files, func(l *layerWriter) {
		l.file("/bin/busybox", File{Content: program, Mode: 0o755})
		for _, applet := range names {
			if applet != "busybox" {
				l.add(&tar.Header{Typeflag: tar.TypeLink, Name: "bin/" + applet, Linkname: "bin/busybox", Mode: 0o755}, nil)
			}
		}
		l.add(&tar.Header{Typeflag: tar.TypeLink, Name: "usr/bin/env", Linkname: "bin/busybox", Mode: 0o755}, nil)
	})
}

// rootfs is a layer's tar: the directories of a file system, what before adds, and files.
func rootfs(files map[string]File, before func(*layerWriter)) ([]byte, error) {
	var out bytes.Buffer
	l := &layerWriter{tar: tar.NewWriter(&out), made: map[string]bool{"/": true}}
	for _, dir := range []string{"/bin", "/dev", "/etc", "/home/app", "/proc", "/root", "/sys", "/usr/bin", "/var"} {
		l.dir(dir, 0o755)
	}
	l.dir("/tmp", 0o1777)
	if before != nil {
		before(l)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		l.dir(path.Dir(name), 0o755)
		l.file(name, files[name])
	}
	if err := l.tar.Close(); l.err == nil {
		l.err = err
	}
	return out.Bytes(), l.err
}

// layerWriter keeps the first error.
type layerWriter struct {
	tar  *tar.Writer
	made map[string]bool
	err  error
}

func (l *layerWriter) add(h *tar.Header, content []byte) {
	h.Size = int64(len(content))
	if l.err == nil {
		l.err = l.tar.WriteHeader(h)
	}
	if _, err := l.tar.Write(content); l.err == nil {
		l.err = err
	}
}

func (l *layerWriter) dir(name string, mode int64) {
	if l.made[name] {
		return
	}
	l.made[name] = true
	l.dir(path.Dir(name), 0o755)
	l.add(&tar.Header{Typeflag: tar.TypeDir, Name: name[1:] + "/", Mode: mode}, nil)
}

func (l *layerWriter) file(name string, f File) {
	if f.Link != "" {
		l.add(&tar.Header{Typeflag: tar.TypeSymlink, Name: name[1:], Linkname: f.Link, Mode: 0o777}, nil)
		return
	}
	if f.Mode == 0 {
		f.Mode = 0o644
	}
	l.add(&tar.Header{Typeflag: tar.TypeReg, Name: name[1:], Mode: f.Mode}, f.Content)
}

// WriteArchive writes an image under a name ("docker.io/library/busybox:latest") as an archive that docker load, ctr import and
// imagesDir take.
func WriteArchive(file, imageName string, image v1.Image) error {
	tag, err := name.NewTag(imageName)
	if err != nil {
		return fmt.Errorf("cannot parse image name: %w", err)
	}
	if err := tarball.WriteToFile(file, tag, image); err != nil {
		return fmt.Errorf("cannot write image archive: %w", err)
	}
	return nil
}
