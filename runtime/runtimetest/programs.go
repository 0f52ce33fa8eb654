package runtimetest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// DebianDir is where scripts/test-packages.sh unpacks Debian packages.
func DebianDir() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("cannot find Debian packages: %w", err)
	}
	dir := filepath.Join(cache, "picket/debian")
	if _, err := os.Stat(dir); err != nil {
		return "", fmt.Errorf("cannot find Debian packages (scripts/test-packages.sh fetches them): %w", err)
	}
	return dir, nil
}

// library finds what a program or library loads in ldd's answer: "libc.so.6 => /lib/libc.so.6 (0x...)", or "/lib64/ld.so (0x...)".
var library = regexp.MustCompile(`(?m)^\s+(?:\S+ => )?(/\S+) \(0x`)

// Programs are an image's files: programs and libraries of this machine, by absolute path or pattern, with the libraries that they
// load. What is in dir, laid out as a root, is preferred; its paths in the image are those without dir.
func Programs(dir string, patterns ...string) (map[string]File, error) {
	files := map[string]File{}
	for _, pattern := range patterns {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err == nil && len(found) == 0 {
			found, err = filepath.Glob(pattern)
		}
		if err == nil && len(found) == 0 {
			err = os.ErrNotExist
		}
		if err != nil {
			return nil, fmt.Errorf("cannot find %s: %w", pattern, err)
		}
		for _, path := range found {
			if err := addProgram(files, dir, path); err != nil {
				return nil, err
			}
		}
	}
	return files, nil
}

func addProgram(files map[string]File, dir, path string) error {
	ldd := exec.Command("ldd", path)
	ldd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+strings.Join(libraryDirs(dir), ":"))
	out, err := ldd.CombinedOutput()
	if err != nil && !strings.Contains(string(out), "not a dynamic executable") {
		return fmt.Errorf("cannot tell what %s loads: %w: %s", path, err, out)
	}
	if strings.Contains(string(out), "not found") {
		return fmt.Errorf("%s lacks a library: %s", path, out)
	}
	paths := []string{path}
	for _, match := range library.FindAllStringSubmatch(string(out), -1) {
		paths = append(paths, match[1])
	}
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("cannot read a program: %w", err)
		}
		files[filepath.Join("/", strings.TrimPrefix(path, dir))] = File{Content: content, Mode: 0o755}
	}
	return nil
}

func libraryDirs(dir string) []string {
	dirs, _ := filepath.Glob(filepath.Join(dir, "usr/lib/*-linux-gnu*"))
	return dirs
}
