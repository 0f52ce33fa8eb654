package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"
)

// typeError is a value that does not fit its field.
type typeError struct{ field, text string }

// typeErrors walks JSON beside the Go type that it failed to decode into and finds every value that does not fit: the decoder
// itself stops at the first and often cannot name its path.
func typeErrors(raw []byte, obj any) []typeError {
	if secret, ok := obj.(*corev1.Secret); ok {
		return secretTypeErrors(raw, secret)
	}
	var found []typeError
	walkType(raw, reflect.TypeOf(obj).Elem(), nil, &found)
	return found
}

// secretTypeErrors keeps what the Secret holds out of the messages.
func secretTypeErrors(raw []byte, secret *corev1.Secret) []typeError {
	var found []typeError
	walkType(raw, reflect.TypeOf(secret).Elem(), nil, &found)
	for i, e := range found {
		if strings.HasPrefix(e.field, "data") || strings.HasPrefix(e.field, "stringData") {
			what, _, _ := strings.Cut(e.text, ", not ")
			found[i].text = what
		}
	}
	return found
}

var unmarshaler = reflect.TypeFor[json.Unmarshaler]()

func walkType(raw []byte, t reflect.Type, path *field.Path, found *[]typeError) {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 || string(raw) == "null" {
		return
	}
	switch {
	case t.Kind() == reflect.Pointer:
		walkType(raw, t.Elem(), path, found)
	case reflect.PointerTo(t).Implements(unmarshaler) || t == reflect.TypeFor[[]byte]():
		tryValue(raw, t, path, found)
	case t.Kind() == reflect.Struct:
		walkStruct(raw, t, path, found)
	case t.Kind() == reflect.Slice:
		var items []json.RawMessage
		if json.Unmarshal(raw, &items) != nil {
			*found = append(*found, typeError{path.String(), "must be a list, not " + describe(raw)})
			return
		}
		for i, item := range items {
			walkType(item, t.Elem(), path.Index(i), found)
		}
	case t.Kind() == reflect.Map:
		for _, f := range rawFields(raw, path, found) {
			walkType(f.value, t.Elem(), path.Key(f.name), found)
		}
	default:
		tryValue(raw, t, path, found)
	}
}

func walkStruct(raw []byte, t reflect.Type, path *field.Path, found *[]typeError) {
	for _, f := range rawFields(raw, path, found) {
		if ft, ok := fieldByJSON(t, f.name); ok {
			walkType(f.value, ft, path.Child(f.name), found)
		}
	}
}

type rawField struct {
	name  string
	value json.RawMessage
}

func rawFields(raw []byte, path *field.Path, found *[]typeError) []rawField {
	var m map[string]json.RawMessage
	if json.Unmarshal(raw, &m) != nil {
		name := path.String()
		if path == nil {
			name = ""
		}
		*found = append(*found, typeError{name, "must be an object, not " + describe(raw)})
		return nil
	}
	fields := make([]rawField, 0, len(m))
	for name, value := range m {
		fields = append(fields, rawField{name, value})
	}
	slices.SortFunc(fields, func(a, b rawField) int { return strings.Compare(a.name, b.name) })
	return fields
}

func fieldByJSON(t reflect.Type, name string) (reflect.Type, bool) {
	for i := range t.NumField() {
		f := t.Field(i)
		tag, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && (tag == "" || strings.Contains(opts, "inline")) {
			if ft, ok := fieldByJSON(f.Type, name); ok {
				return ft, true
			}
		} else if tag == name {
			return f.Type, true
		}
	}
	return nil, false
}

func tryValue(raw []byte, t reflect.Type, path *field.Path, found *[]typeError) {
	err := kjson.UnmarshalCaseSensitivePreserveInts(raw, reflect.New(t).Interface())
	if err == nil {
		return
	}
	text := err.Error()
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		text = fmt.Sprintf("must be %s, not %s", want(t), describe(raw))
		if t.Kind() == reflect.String {
			text += quoteIt(raw)
		}
	} else if s := strings.Trim(string(raw), `"`); len(s) <= 100 && t.Kind() != reflect.Slice {
		text = fmt.Sprintf("Invalid value: %q: %s", s, text)
	}
	*found = append(*found, typeError{path.String(), text})
}

func quoteIt(raw []byte) string {
	if raw[0] == 't' || raw[0] == 'f' {
		return "; write it in quotes (in YAML also y, yes, on, n, no and off are booleans)"
	}
	return "; write it in quotes"
}

func want(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a string"
	case reflect.Int32, reflect.Int64, reflect.Int:
		return "a whole number"
	case reflect.Slice:
		return "base64 text"
	}
	return "a " + t.Name()
}

// describe names a JSON value as its author sees it.
func describe(raw []byte) string {
	if len(raw) == 0 {
		return "nothing"
	}
	short := string(raw)
	if len(short) > 60 {
		short = short[:60] + "..."
	}
	switch raw[0] {
	case '{':
		return "an object"
	case '[':
		return "a list"
	case '"':
		return "the string " + short
	case 't', 'f':
		return "the boolean " + short
	}
	return "the number " + short
}
