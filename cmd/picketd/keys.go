package main

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/picketd/picket/agent"
)

// key is one key of the configuration: a field of agent.Config that is no section.
type key struct {
	name  string // "api.listen": the key in the file, with its section, and the flag
	help  string
	field []int
	kind  reflect.Type // string, time.Duration, []string or map[string]string
}

// keys are all of them, in the order of the struct.
var keys = keysOf(reflect.TypeFor[agent.Config](), "", nil)

func keysOf(t reflect.Type, prefix string, above []int) []key {
	var list []key
	for i := range t.NumField() {
		f := t.Field(i)
		name := f.Tag.Get("yaml")
		at := append(slices.Clone(above), i)
		switch {
		case name == "-":
		case f.Type.Kind() == reflect.Struct:
			list = append(list, keysOf(f.Type, prefix+name+".", at)...)
		default:
			list = append(list, key{name: prefix + name, help: f.Tag.Get("help"), field: at, kind: f.Type})
		}
	}
	return list
}

// env is "PICKET_API_LISTEN" for api.listen.
func (k key) env() string { return "PICKET_" + strings.ToUpper(strings.ReplaceAll(k.name, ".", "_")) }

func (k key) get(cfg *agent.Config) any {
	return reflect.ValueOf(cfg).Elem().FieldByIndex(k.field).Interface()
}

func (k key) set(cfg *agent.Config, value any) {
	reflect.ValueOf(cfg).Elem().FieldByIndex(k.field).Set(reflect.ValueOf(value))
}

// parse reads a value from a flag or the environment.
func (k key) parse(text string) (any, error) {
	switch k.kind {
	case reflect.TypeFor[time.Duration]():
		return parseDuration(text)
	case reflect.TypeFor[[]string]():
		return list(text), nil
	case reflect.TypeFor[map[string]string]():
		return pairs(text)
	}
	return text, nil
}

// text is the opposite of parse.
func (k key) text(value any) string {
	switch v := value.(type) {
	case time.Duration:
		return shortDuration(v)
	case []string:
		return strings.Join(v, ",")
	case map[string]string:
		var parts []string
		for _, name := range slices.Sorted(maps.Keys(v)) {
			parts = append(parts, name+"="+v[name])
		}
		return strings.Join(parts, ",")
	}
	return fmt.Sprint(value)
}

func parseDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration: write numbers with units, such as 72h or 1h30m", text)
	}
	return d, nil
}

// shortDuration is "72h" where time.Duration says 72h0m0s.
func shortDuration(d time.Duration) string {
	text := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-2]
		}
	}
	return text
}

// list takes commas apart; nil when there is nothing.
func list(text string) []string {
	var out []string
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}

func pairs(text string) (map[string]string, error) {
	var out map[string]string
	for _, part := range list(text) {
		name, value, ok := strings.Cut(part, "=")
		if !ok {
			return nil, fmt.Errorf("%q is not key=value", part)
		}
		if out == nil {
			out = map[string]string{}
		}
		out[name] = value
	}
	return out, nil
}

// flagValue is a flag's text. It is looked at with everything else, so that all errors are shown at once.
type flagValue struct {
	key  key
	text string
	set  bool
}

func (f *flagValue) String() string { return f.text }

// Set keeps the last value; lists given several times are joined.
func (f *flagValue) Set(text string) error {
	if k := f.key.kind.Kind(); f.set && (k == reflect.Slice || k == reflect.Map) {
		text = f.text + "," + text
	}
	f.text, f.set = text, true
	return nil
}

// Type is what --help calls the value.
func (f *flagValue) Type() string {
	switch {
	case f.key.kind == reflect.TypeFor[time.Duration]():
		return "duration"
	case f.key.kind.Kind() == reflect.Slice:
		return "list"
	case f.key.kind.Kind() == reflect.Map:
		return "key=value,..."
	}
	return "string"
}
