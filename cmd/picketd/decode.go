package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/picketd/picket/agent"
)

// document is a configuration file taken apart: what it sets, where, and what is wrong with it. viper's own reader would lose the
// lines, the case of the keys and the dots in them, and take unknown and duplicate keys without a word.
type document struct {
	values   map[string]any // by key.name; of key.kind
	lines    map[string]int // by key.name, also "node.taints[0]" and "node.labels[disktype]"
	problems []finding
}

// finding is something wrong in a file. Line 0: with the file as a whole; key "": the line is not even YAML.
type finding struct {
	line      int
	key, text string
}

// decode reads a configuration file. A key without a value counts as not given.
func decode(data []byte) document {
	d := document{values: map[string]any{}, lines: map[string]int{}}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var root, more yaml.Node
	if err := decoder.Decode(&root); err != nil {
		if !errors.Is(err, io.EOF) {
			d.problems = append(d.problems, syntaxError(data, err))
		}
		return d
	}
	switch err := decoder.Decode(&more); {
	case err == nil:
		d.fail(more.Line, "", "a second document begins here; a configuration is one")
	case !errors.Is(err, io.EOF):
		d.problems = append(d.problems, syntaxError(data, err))
		return d
	}
	d.section(root.Content[0], reflect.TypeFor[agent.Config](), "")
	return d
}

var yamlError = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// syntaxError tells where the file is not YAML.
func syntaxError(data []byte, err error) finding {
	if line := tabbed(data); line > 0 {
		return finding{line: line, text: "is indented with a tab: YAML wants spaces"}
	}
	f := finding{text: "is not YAML: " + yamlError.ReplaceAllString(err.Error(), "")}
	if m := yamlError.FindStringSubmatch(err.Error()); m != nil {
		f.line, _ = strconv.Atoi(m[1])
	}
	return f
}

// tabbed finds the first line with a tab in its indentation; 0 when there is none.
func tabbed(data []byte) int {
	n := 0
	for line := range bytes.Lines(data) {
		n++
		text := bytes.TrimLeft(line, " \t")
		if bytes.Contains(line[:len(line)-len(text)], []byte("\t")) && len(bytes.TrimSpace(text)) > 0 && text[0] != '#' {
			return n
		}
	}
	return 0
}

// maxProblems bounds what is told of one file: nobody reads more.
const maxProblems = 100

func (d *document) fail(line int, key, format string, args ...any) {
	switch {
	case len(d.problems) > maxProblems:
		return
	case len(d.problems) == maxProblems:
		line, key, format, args = 0, "", "there is more; the first %d problems are shown", []any{maxProblems}
	}
	d.problems = append(d.problems, finding{line: line, key: key, text: fmt.Sprintf(format, args...)})
}

// section takes a mapping whose keys are the fields of t.
func (d *document) section(n *yaml.Node, t reflect.Type, prefix string) {
	in := func(name string) string { return prefix + name }
	entries, ok := d.mapping(n, strings.TrimSuffix(prefix, "."), "keys with values", in)
	if !ok {
		return
	}
	for _, e := range entries {
		name := in(e.name)
		field, known := fieldNamed(t, e.name)
		if !known {
			d.fail(e.line, name, "unknown key%s", suggestKey(e.name, t, prefix))
			continue
		}
		d.lines[name] = e.line
		if field.Type.Kind() == reflect.Struct {
			d.section(e.value, field.Type, name+".")
			continue
		}
		if value := d.value(e.value, field.Type, name); value != nil {
			d.values[name] = value
		}
	}
}

type entry struct {
	name  string
	line  int
	value *yaml.Node
}

// mapping lists the entries of a mapping, without those given twice; in names them. Nothing (null) has none.
func (d *document) mapping(n *yaml.Node, name, want string, in func(name string) string) ([]entry, bool) {
	n = target(n)
	switch {
	case null(n):
		return nil, true
	case n.Kind != yaml.MappingNode:
		d.fail(n.Line, name, "is %s, not %s", describe(n), want)
		return nil, false
	}
	var entries []entry
	first := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := target(n.Content[i])
		e := entry{name: k.Value, line: n.Content[i].Line, value: n.Content[i+1]}
		switch line, again := first[e.name]; {
		case k.Kind != yaml.ScalarNode:
			d.fail(e.line, name, "has %s for a key", describe(k))
		case again:
			d.fail(e.line, in(e.name), "was given in line %d already: keep one", line)
		default:
			first[e.name] = e.line
			entries = append(entries, e)
		}
	}
	return entries, true
}

// value takes what belongs to a key that is no section; nil when it is null or wrong.
func (d *document) value(n *yaml.Node, kind reflect.Type, name string) any {
	switch n = target(n); {
	case null(n):
		return nil
	case kind == reflect.TypeFor[time.Duration]():
		return d.duration(n, name)
	case kind.Kind() == reflect.Slice:
		return d.list(n, name)
	case kind.Kind() == reflect.Map:
		return d.pairs(n, name)
	}
	text, ok := d.scalar(n, name, "one value")
	if !ok {
		return nil
	}
	return text
}

// scalar is a value as it was written: of `version: 1.10` nothing may be lost.
func (d *document) scalar(n *yaml.Node, name, want string) (string, bool) {
	if n.Kind != yaml.ScalarNode {
		d.fail(n.Line, name, "is %s, not %s", describe(n), want)
		return "", false
	}
	return n.Value, true
}

func (d *document) duration(n *yaml.Node, name string) any {
	text, ok := d.scalar(n, name, "a duration such as 72h")
	if !ok {
		return nil
	}
	value, err := parseDuration(text)
	if err != nil {
		d.fail(n.Line, name, "%v", err)
		return nil
	}
	return value
}

func (d *document) list(n *yaml.Node, name string) any {
	if n.Kind != yaml.SequenceNode {
		hint := ""
		if n.Kind == yaml.ScalarNode {
			hint = fmt.Sprintf(": write [%q]", n.Value)
		}
		d.fail(n.Line, name, "is %s, not a list%s", describe(n), hint)
		return nil
	}
	var values []string
	for i, item := range n.Content {
		at := fmt.Sprintf("%s[%d]", name, i)
		d.lines[at] = item.Line
		if item = target(item); null(item) {
			d.fail(item.Line, at, "is empty")
		} else if text, ok := d.scalar(item, at, "one value"); ok {
			values = append(values, text)
		}
	}
	return values
}

func (d *document) pairs(n *yaml.Node, name string) any {
	in := func(label string) string { return fmt.Sprintf("%s[%s]", name, label) }
	entries, ok := d.mapping(n, name, "keys with values, such as {disktype: ssd}", in)
	if !ok {
		return nil
	}
	var values map[string]string
	for _, e := range entries {
		at := in(e.name)
		d.lines[at] = e.line
		text, value := "", target(e.value)
		if !null(value) {
			if text, ok = d.scalar(value, at, "one value"); !ok {
				continue
			}
		}
		if values == nil {
			values = map[string]string{}
		}
		values[e.name] = text
	}
	return values
}

// target follows an alias. An alias can contain itself, but no key of a configuration is deeper than a list.
func target(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func null(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys with values"
	case yaml.SequenceNode:
		return "a list"
	}
	return fmt.Sprintf("%q", n.Value)
}

func fieldNamed(t reflect.Type, name string) (reflect.StructField, bool) {
	for i := range t.NumField() {
		if f := t.Field(i); f.Tag.Get("yaml") == name && name != "-" {
			return f, true
		}
	}
	return reflect.StructField{}, false
}
