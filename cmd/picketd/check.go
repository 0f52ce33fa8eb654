package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/picketd/picket/agent/manifest"
)

// check reads the configuration and the manifests as the agent would, and tells everything that is wrong with them: errors and
// warnings a line each on stderr, a line on stdout when all is well.
func check(s *source, stdout, stderr io.Writer) error {
	c := checking{out: stderr}
	c.configuration(s)
	if c.errors > 0 {
		return errShown
	}
	fmt.Fprintf(stdout, "ok: %s; %s\n", oneLine(strings.Join(c.summary, "; ")), count(c.warnings, "warning"))
	return nil
}

type checking struct {
	out              io.Writer
	errors, warnings int
	summary          []string
}

func (c *checking) fail(text string) {
	c.errors++
	fmt.Fprintln(c.out, oneLine(text))
}

func (c *checking) warn(text string) {
	c.warnings++
	fmt.Fprintln(c.out, oneLine(text))
}

func (c *checking) sum(format string, args ...any) {
	c.summary = append(c.summary, fmt.Sprintf(format, args...))
}

func (c *checking) configuration(s *source) {
	file, err := s.read()
	if err != nil {
		c.fail(err.Error())
		return
	}
	l := s.resolve(file)
	manifests := true
	for _, p := range l.problems {
		c.fail(p.String())
		manifests = manifests && p.key != "manifests"
	}
	for _, text := range l.warnings {
		c.warn("warning: " + text)
	}
	if file.path == "" {
		c.sum("no configuration file, node %s", l.config.Node.Name)
	} else {
		c.sum("%s, node %s", file.path, l.config.Node.Name)
	}
	if manifests {
		c.manifests(l.config.Manifests)
	}
}

// manifests reads the directory. One that does not exist is fine: the agent waits for it.
func (c *checking) manifests(dir string) {
	files, err := manifest.CheckDirectory(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.sum("no manifests directory %s", dir)
		return
	case err != nil:
		c.fail(err.Error())
		return
	}
	objects := 0
	for _, f := range files {
		objects += len(f.File.Objects)
		c.manifest(f)
	}
	c.sum("%s with %s in %s", count(len(files), "manifest"), count(objects, "object"), dir)
}

func (c *checking) manifest(f manifest.CheckedFile) {
	for _, e := range f.Errors {
		c.fail(e.Error())
	}
	for _, object := range f.File.Objects {
		if ref := manifest.RefOf(object); ref.Kind == manifest.KindNode {
			c.fail(manifest.Error{Source: f.Path, Ref: ref, Text: "a Node is configured in its own picketd.yaml, or with picket label and picket taint, not by a manifest"}.Error())
		}
	}
	for _, w := range f.File.Warnings {
		c.warn(manifest.Error{Source: f.Path, Line: w.Line, Ref: w.Ref, Field: w.Field, Text: "warning: " + w.Text}.Error())
	}
	for _, s := range f.File.Skipped {
		c.warn(manifest.Error{Source: f.Path, Line: s.Line, Text: fmt.Sprintf("warning: %s %s is left out: picket does not serve this kind", s.Kind, s.Name)}.Error())
	}
}
