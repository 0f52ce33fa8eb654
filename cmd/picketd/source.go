package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"github.com/picketd/picket/agent"
)

const (
	defaultFile = "/etc/picket/picketd.yaml"
	configFlag  = "config"
	configEnv   = "PICKET_CONFIG"
	// maxFile is the most a configuration file may hold, in bytes.
	maxFile = 1 << 20
)

// source is where the configuration comes from: the command line, the environment and a file.
type source struct {
	flags    *pflag.FlagSet
	hostname func() (string, error)
	exists   func(path string) bool
	logger   func() string // the picket-logger that is installed, "" for none
}

// newSource makes a flag of every key.
func newSource(flags *pflag.FlagSet) *source {
	flags.SortFlags = false // in the order of the file
	flags.String(configFlag, "", "configuration file (also "+configEnv+"; default "+defaultFile+", which may be missing)")
	defaults := agent.DefaultConfig()
	for _, k := range keys {
		flags.Var(&flagValue{key: k, text: k.text(k.get(&defaults))}, k.name, k.help)
	}
	return &source{flags: flags, hostname: os.Hostname, exists: exists, logger: logger}
}

// anyCase lets --datadir be --dataDir.
func anyCase(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	for _, k := range keys {
		if strings.EqualFold(k.name, name) {
			name = k.name
		}
	}
	return pflag.NormalizedName(name)
}

// exists tells a file that is there, be it one that may not be looked at.
func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil || errors.Is(err, fs.ErrPermission)
}

// logger finds the picket-logger beside this program, then in $PATH.
func logger() string {
	const name = "picket-logger"
	if self, err := os.Executable(); err == nil && exists(filepath.Join(filepath.Dir(self), name)) {
		return filepath.Join(filepath.Dir(self), name)
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return ""
	}
	return path
}

// file is the configuration file's path, absolute; named tells that the user said so, and it must be there.
func (s *source) file() (path string, named bool, err error) {
	path, named = defaultFile, false
	if p := os.Getenv(configEnv); p != "" {
		path, named = p, true
	}
	if f := s.flags.Lookup(configFlag); f.Changed {
		path, named = f.Value.String(), true
	}
	if path, err = filepath.Abs(path); err != nil {
		err = fmt.Errorf("cannot tell where the configuration file is: %w", err)
	}
	return path, named, err
}

// content is a configuration file as it was found at one time.
type content struct {
	path string // "" when there is none
	data []byte
}

// read reads the file. No file is an error only where the user named it.
func (s *source) read() (content, error) {
	path, named, err := s.file()
	if err != nil {
		return content{}, err
	}
	data, err := readFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !named:
		return content{}, nil
	case err != nil:
		return content{path: path}, err
	}
	return content{path: path, data: data}, nil
}

// readFile takes regular files of a sensible size only; O_NONBLOCK is for the FIFO that nobody writes to.
func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fileError(path, err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, fileError(path, err)
	case info.IsDir():
		return nil, fmt.Errorf("%s: is a directory, not a configuration file", path)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s: is not a regular file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return nil, fileError(path, err)
	case len(data) > maxFile:
		return nil, fmt.Errorf("%s: is larger than %d MiB, which no configuration is", path, maxFile>>20)
	}
	return data, nil
}

// fileError is file: what is wrong, as every other problem.
func fileError(path string, err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		err = pathErr.Err
	}
	return fmt.Errorf("%s: cannot be read: %w", path, err)
}

// loaded is a configuration, and what is to be said about it.
type loaded struct {
	config   agent.Config
	warnings []string
	problems []problem // none: the configuration is good
}

// resolve makes the configuration of the file's content and of everything that counts more, and checks it.
func (s *source) resolve(c content) loaded {
	r := resolution{source: s, content: c, document: decode(c.data), bad: map[string]bool{}}
	r.config = agent.DefaultConfig()
	r.config.File, r.config.Version = c.path, version
	for _, p := range r.document.problems {
		r.problems = append(r.problems, problem{file: c.path, finding: p})
		r.bad[withoutIndex(p.key)] = true
	}
	r.setKeys()
	r.warnings = append(unknownEnvironment(os.Environ()), r.fillIn()...)
	for _, p := range append(r.config.Check(), r.config.CheckFiles(s.exists)...) {
		r.fail(p.Key, p.Text)
	}
	slices.SortStableFunc(r.problems, func(a, b problem) int { return cmp.Compare(a.line, b.line) })
	return r.loaded
}

// resolution is a configuration in the making.
type resolution struct {
	loaded
	source   *source
	content  content
	document document
	bad      map[string]bool // keys that do not have the value that the user meant: what else is wrong with it is no use
}

// fail adds a problem, and says where the value came from.
func (r *resolution) fail(key, text string) {
	if !r.bad[withoutIndex(key)] {
		r.problems = append(r.problems, r.source.locate(r.content, r.document, agent.Problem{Key: key, Text: text}))
	}
}

// setKeys gives every key the value that counts.
func (r *resolution) setKeys() {
	v := r.source.viper(r.document)
	for _, k := range keys {
		value, err := typed(k, v.Get(k.name))
		if err != nil {
			r.fail(k.name, err.Error())
			r.bad[k.name] = true
			continue
		}
		k.set(&r.config, value)
	}
}

// fillIn asks the host for the defaults that depend on it.
func (r *resolution) fillIn() (warnings []string) {
	hostname, _ := r.source.hostname() // without one the check asks for a name
	warnings = r.config.FillIn(hostname, r.source.exists)
	if r.config.Runtime.LoggerPath == "" {
		r.config.Runtime.LoggerPath = r.source.logger()
	}
	if r.config.Runtime.LoggerPath == "" {
		r.fail("runtime.loggerPath", "picket-logger is neither beside picketd nor in $PATH: install it, or name it here")
	}
	return warnings
}

// viper knows for every key what counts: flag, environment, file, default, in this order.
func (s *source) viper(doc document) *viper.Viper {
	v := viper.New()
	defaults := agent.DefaultConfig()
	file := map[string]any{}
	for _, k := range keys {
		v.SetDefault(k.name, k.get(&defaults))
		_ = v.BindEnv(k.name, k.env())                  // fails only without a name
		_ = v.BindPFlag(k.name, s.flags.Lookup(k.name)) // fails only without a flag
		if value, ok := doc.values[k.name]; ok {
			put(file, strings.Split(k.name, "."), value)
		}
	}
	_ = v.MergeConfigMap(file) // never fails
	return v
}

// put sets a value in nested maps.
func put(m map[string]any, path []string, value any) {
	if len(path) == 1 {
		m[path[0]] = value
		return
	}
	section, ok := m[path[0]].(map[string]any)
	if !ok {
		section = map[string]any{}
		m[path[0]] = section
	}
	put(section, path[1:], value)
}

// typed is a value as the key wants it: those of flags and of the environment are texts.
func typed(k key, value any) (any, error) {
	if text, ok := value.(string); ok {
		return k.parse(text)
	}
	return value, nil
}

// withoutIndex is "node.taints" for "node.taints[0]".
func withoutIndex(key string) string {
	name, _, _ := strings.Cut(key, "[")
	return name
}

// locate says where a value came from.
func (s *source) locate(c content, doc document, p agent.Problem) problem {
	out := problem{file: c.path, finding: finding{key: p.Key, text: p.Text}}
	name := withoutIndex(p.Key)
	for _, k := range keys {
		switch {
		case k.name != name:
		case s.flags.Changed(name):
			out.file = "flag --" + name
			return out
		case os.Getenv(k.env()) != "":
			out.file = "environment " + k.env()
			return out
		}
	}
	if out.line = doc.lines[p.Key]; out.line == 0 {
		out.line = doc.lines[name]
	}
	return out
}

// problem is one thing wrong, and where.
type problem struct {
	file string // or "flag --api.listen", or "environment PICKET_API_LISTEN"; "" for a default
	finding
}

func (p problem) String() string {
	var parts []string
	if p.file != "" && p.line > 0 {
		parts = append(parts, fmt.Sprintf("%s:%d", p.file, p.line))
	} else if p.file != "" {
		parts = append(parts, p.file)
	}
	if p.key != "" {
		parts = append(parts, p.key)
	}
	return oneLine(strings.Join(append(parts, p.text), ": "))
}

// unknownEnvironment warns of variables that were meant to be keys and are none. Others that begin with PICKET_ are not ours.
func unknownEnvironment(environ []string) (warnings []string) {
	known := []string{configEnv}
	var sections []string
	for _, k := range keys {
		known = append(known, k.env())
		if section, _, nested := strings.Cut(k.name, "."); nested {
			sections = append(sections, key{name: section}.env()+"_")
		}
	}
	for _, e := range environ {
		name, _, _ := strings.Cut(e, "=")
		if !strings.HasPrefix(name, "PICKET_") || slices.Contains(known, name) {
			continue
		}
		inSection := slices.ContainsFunc(sections, func(s string) bool { return strings.HasPrefix(name, s) })
		if near, ok := nearest(name, known); ok {
			warnings = append(warnings, fmt.Sprintf("environment variable %s is no key of the configuration: did you mean %s?", name, near))
		} else if inSection {
			warnings = append(warnings, fmt.Sprintf("environment variable %s is no key of the configuration", name))
		}
	}
	return warnings
}
