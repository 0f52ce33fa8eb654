package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// Decode reads a manifest: one or more YAML documents, or JSON, of the kinds picket keeps. It is strict (an unknown or duplicate
// field is an error), fills in the namespace, and checks everything that Validate checks of a new object. The error is an Errors
// with all that is wrong; a caller takes the whole file or nothing. source names the file in messages.
func Decode(source string, data []byte) (File, error) {
	p := parse(source, data)
	if !p.full() {
		p.check()
	}
	return p.file, p.errs.orNil()
}

// maxErrors bounds what is told of one source: nobody reads more, and each costs a search for its line.
const maxErrors = 100

func (p *parsed) full() bool { return len(p.errs) > maxErrors }

// parsed is a manifest on its way to a File.
type parsed struct {
	source string
	file   File
	errs   Errors
	places []place // of file.Objects
}

// place is where an object stands in its source.
type place struct {
	doc  *document
	tree func() *tree
}

// header is what every object has.
type header struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	} `json:"metadata"`
}

// parse decodes strictly, without validation.
func parse(source string, data []byte) *parsed {
	p := &parsed{source: source}
	docs, err := split(source, data)
	if err != nil {
		p.errs = Errors{{Source: source, Text: err.Error()}}
		return p
	}
	for _, d := range docs {
		if p.full() {
			break
		}
		p.document(d)
	}
	return p
}

func (p *parsed) fail(d *document, line int, ref Ref, field, text string) {
	switch {
	case p.full():
		return
	case len(p.errs) == maxErrors:
		d, line, ref, field, text = &document{}, 0, Ref{}, "", fmt.Sprintf("there is more; the first %d errors are shown", maxErrors)
	}
	p.errs = append(p.errs, Error{Source: p.source, Document: d.number, Line: line, Ref: ref, Field: field, Text: text})
}

func (p *parsed) document(d *document) {
	if len(d.text) > maxDocument {
		p.fail(d, d.line, Ref{}, "", tooLarge("the document", len(d.text), maxDocument).Error())
		return
	}
	raw, duplicates := d.text, false
	if !d.isJSON {
		var err error
		if raw, duplicates, err = d.toJSON(); err != nil {
			p.fail(d, yamlLine(d, err), Ref{}, "", yamlText(err))
			return
		}
	}
	if string(raw) == "null" {
		return
	}
	p.object(place{d, d.lines}, raw, duplicates, "")
}

// toJSON converts as kubectl does, and tells whether a key was given twice (the last one counts then).
func (d *document) toJSON() (raw []byte, duplicates bool, err error) {
	if strings.Contains(string(d.text), "*") && d.lines().expands(maxDocument) {
		return nil, false, fmt.Errorf("with its aliases written out the document is larger than %d MiB", maxDocument>>20)
	}
	if raw, err = yaml.YAMLToJSONStrict(d.text); err == nil {
		return raw, false, nil
	}
	if !strings.Contains(err.Error(), "already set in map") {
		return nil, false, err
	}
	raw, err = yaml.YAMLToJSON(d.text)
	return raw, true, err
}

// object takes one object, or the items of a List.
func (p *parsed) object(at place, raw []byte, duplicates bool, defaultKind string) {
	var h header
	if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, &h); err != nil {
		p.fail(at.doc, at.tree().start(), Ref{}, "", headerText(raw, err))
		return
	}
	if h.Kind == "" {
		h.Kind = defaultKind
	}
	ref := Ref{Kind: h.Kind, Namespace: h.Metadata.Namespace, Name: h.Metadata.Name}
	for field, value := range map[string]string{"kind": h.Kind, "apiVersion": h.APIVersion} {
		if value == "" {
			p.fail(at.doc, at.tree().start(), ref, field, "Required value")
			return
		}
	}
	if itemKind, ok := listOf(h); ok {
		p.list(at, raw, duplicates, itemKind)
		return
	}
	k, known, err := lookUpKind(h.APIVersion, h.Kind)
	if err != nil {
		p.fail(at.doc, at.tree().line("apiVersion"), ref, "apiVersion", err.Error())
		return
	}
	if !known {
		p.file.Skipped = append(p.file.Skipped, Skipped{
			Document: at.doc.number, Line: at.doc.line, APIVersion: h.APIVersion, Kind: h.Kind, Name: h.Metadata.Name,
		})
		return
	}
	p.typed(at, raw, k, ref, duplicates)
}

// listOf recognises "List" and the typed lists of our kinds, whose items may leave their kind out.
func listOf(h header) (itemKind string, ok bool) {
	if h.Kind == "List" {
		return "", true
	}
	name, isList := strings.CutSuffix(h.Kind, "List")
	if !isList {
		return "", false
	}
	k, ok := kindNamed(name)
	if !ok || h.APIVersion != k.gv.String() {
		return "", false
	}
	return k.name, true
}

func (p *parsed) list(at place, raw []byte, duplicates bool, itemKind string) {
	var list metav1.List
	strictErrs, err := kjson.UnmarshalStrict(raw, &list)
	if err != nil {
		p.fail(at.doc, at.tree().start(), Ref{}, "", err.Error())
		return
	}
	p.strict(at, Ref{Kind: "List"}, strictErrs)
	for i, item := range list.Items {
		tree := func() *tree { return at.tree().item(i) }
		body := item.Raw
		if itemKind != "" {
			body = withAPIVersion(body, list.APIVersion)
		}
		p.object(place{at.doc, tree}, body, duplicates, itemKind)
	}
}

// withAPIVersion fills in what the items of a typed list may leave out.
func withAPIVersion(raw []byte, apiVersion string) []byte {
	var m map[string]json.RawMessage
	if json.Unmarshal(raw, &m) != nil || m["apiVersion"] != nil {
		return raw
	}
	m["apiVersion"], _ = json.Marshal(apiVersion)
	filled, err := json.Marshal(m)
	if err != nil {
		return raw
	}
	return filled
}

// typed decodes an object of ours.
func (p *parsed) typed(at place, raw []byte, k kind, ref Ref, duplicates bool) {
	if k.namespaced && ref.Namespace == "" {
		ref.Namespace = corev1.NamespaceDefault
	}
	if !k.namespaced {
		ref.Namespace = ""
	}
	before := len(p.errs)
	if duplicates {
		for _, dup := range at.tree().duplicates() {
			p.fail(at.doc, dup.line, ref, dup.path, fmt.Sprintf("duplicate field, first given in line %d", dup.first))
		}
	}
	obj := k.new()
	strictErrs, err := kjson.UnmarshalStrict(raw, obj)
	if err != nil {
		p.typeErrors(at, ref, raw, obj, err)
		return
	}
	p.strict(at, ref, strictErrs)
	obj.GetObjectKind().SetGroupVersionKind(k.gv.WithKind(k.name))
	if len(p.errs) > before {
		return
	}
	if k.namespaced {
		obj.SetNamespace(ref.Namespace)
	}
	if err := setLastApplied(obj, raw); err != nil {
		p.fail(at.doc, at.tree().start(), ref, "", err.Error())
		return
	}
	p.file.Objects = append(p.file.Objects, obj)
	p.places = append(p.places, at)
}

// strict reports unknown and duplicate fields.
func (p *parsed) strict(at place, ref Ref, errs []error) {
	for _, err := range errs {
		path, text := "", err.Error()
		var fieldErr kjson.FieldError
		if errors.As(err, &fieldErr) {
			path = fieldErr.FieldPath()
			text = strings.TrimSuffix(text, " "+strconv.Quote(path))
		}
		p.fail(at.doc, at.tree().line(path), ref, path, text)
	}
}

// typeErrors reports values of a wrong type, all of them and with their full path.
func (p *parsed) typeErrors(at place, ref Ref, raw []byte, obj Object, err error) {
	found := typeErrors(raw, obj)
	for _, e := range found {
		p.fail(at.doc, at.tree().line(e.field), ref, e.field, e.text)
	}
	if len(found) == 0 {
		p.fail(at.doc, at.tree().start(), ref, "", err.Error())
	}
}

// check validates what was decoded, and collects the warnings.
func (p *parsed) check() {
	seen := map[Ref]int{}
	for i, obj := range p.file.Objects {
		at, ref := p.places[i], RefOf(obj)
		if first, ok := seen[ref]; ok {
			p.fail(at.doc, at.tree().start(), ref, "", fmt.Sprintf("is also in document %d of this file; keep one", first))
			continue
		}
		seen[ref] = at.doc.number
		defaulted := obj.DeepCopyObject().(Object)
		Default(defaulted)
		for _, e := range Validate(defaulted, nil) {
			p.fail(at.doc, at.tree().line(e.Field), ref, e.Field, e.ErrorBody())
		}
		for _, w := range Warnings(obj) {
			w.Line = at.tree().line(w.Field)
			p.file.Warnings = append(p.file.Warnings, w)
		}
	}
}

// headerText explains why a document is no object at all.
func headerText(raw []byte, err error) string {
	if found := typeErrors(raw, &header{}); len(found) > 0 && found[0].field != "" {
		return found[0].field + ": " + found[0].text
	} else if len(found) > 0 {
		return "the document is not an object with apiVersion and kind: " + found[0].text
	}
	return err.Error()
}

var yamlLineNumber = regexp.MustCompile(`\bline (\d+): `)

// yamlLine turns the line that the YAML parser names, counted in the document, into the file's.
func yamlLine(d *document, err error) int {
	if m := yamlLineNumber.FindStringSubmatch(err.Error()); m != nil {
		if n, convErr := strconv.Atoi(m[1]); convErr == nil {
			return d.start - 1 + n
		}
	}
	return d.line
}

func yamlText(err error) string {
	text := strings.TrimPrefix(err.Error(), "error converting YAML to JSON: ")
	return yamlLineNumber.ReplaceAllString(text, "")
}
