package api

import (
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
)

// form is how a client wants objects: whole, as a Table, or as metadata only. Always JSON.
type form struct {
	as      string // "", "Table", "PartialObjectMetadata"
	version string // of meta.k8s.io
	include metav1.IncludeObjectPolicy
}

// negotiate picks the first form of the Accept header that is served here; clients list their favourite first.
func negotiate(accept string, query url.Values) (form, error) {
	f := form{version: "v1", include: metav1.IncludeObjectPolicy(query.Get("includeObject"))}
	switch f.include {
	case "", metav1.IncludeNone, metav1.IncludeMetadata, metav1.IncludeObject:
	default:
		return f, apierrors.NewBadRequest(fmt.Sprintf("includeObject: Invalid value: %q: must be 'Metadata', 'Object', 'None', or empty", f.include))
	}
	if accept == "" {
		return f, nil
	}
	for clause := range strings.SplitSeq(accept, ",") {
		media, params, err := mime.ParseMediaType(clause)
		if err != nil {
			continue
		}
		switch media {
		case mediaJSON, "application/*", "*/*":
		default:
			continue
		}
		switch as := strings.TrimSuffix(params["as"], "List"); {
		case as == "":
			return f, nil
		case params["g"] != metav1.GroupName, params["v"] != "v1" && params["v"] != "v1beta1", as != "Table" && as != "PartialObjectMetadata":
			continue
		default:
			f.as, f.version = as, params["v"]
			return f, nil
		}
	}
	return f, errNotAcceptable()
}

// gv is the apiVersion of a Table or PartialObjectMetadata.
func (f form) gv() string { return metav1.GroupName + "/" + f.version }

// one shows a single object in the form.
func (f form) one(c *call, obj Object, columns bool) runtime.Object {
	obj = c.user.show(obj)
	switch f.as {
	case "Table":
		t := c.resource.Table.table([]Object{obj}, f.include, time.Now())
		t.TypeMeta = metav1.TypeMeta{APIVersion: f.gv(), Kind: "Table"}
		t.ResourceVersion = obj.GetResourceVersion()
		if !columns {
			t.ColumnDefinitions = nil
		}
		return t
	case "PartialObjectMetadata":
		m := partialMetadata(obj)
		m.APIVersion = f.gv()
		return m
	default:
		return obj
	}
}

// list is a list on its way out: items are encoded one by one, so that a long list never exists twice.
type list struct {
	kind, apiVersion string
	metav1.ListMeta
	items []Object
}

// writeList sends a list in the caller's form.
func (c *call) writeList(w http.ResponseWriter, l list) error {
	if c.form.as == "Table" {
		for i, obj := range l.items {
			l.items[i] = c.user.show(obj)
		}
		t := c.resource.Table.table(l.items, c.form.include, time.Now())
		t.TypeMeta = metav1.TypeMeta{APIVersion: c.form.gv(), Kind: "Table"}
		t.ListMeta = l.ListMeta
		writeJSON(w, http.StatusOK, t)
		return nil
	}
	if c.form.as == "PartialObjectMetadata" {
		l.kind, l.apiVersion = "PartialObjectMetadataList", c.form.gv()
	}
	head, err := json.Marshal(struct {
		Kind       string          `json:"kind"`
		APIVersion string          `json:"apiVersion"`
		Metadata   metav1.ListMeta `json:"metadata"`
	}{l.kind, l.apiVersion, l.ListMeta})
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", mediaJSON)
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(append(head[:len(head)-1], `,"items":[`...))
	encoder := json.NewEncoder(w)
	for i, obj := range l.items {
		if i > 0 {
			_, _ = w.Write([]byte{','})
		}
		if err := encoder.Encode(c.form.one(c, obj, false)); err != nil {
			panic(http.ErrAbortHandler) // half an answer must not look like a whole one
		}
	}
	_, _ = w.Write([]byte("]}\n"))
	return nil
}

// writeObject sends one object in the caller's form.
func (c *call) writeObject(w http.ResponseWriter, code int, obj Object) error {
	writeJSON(w, code, c.form.one(c, obj, true))
	return nil
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", mediaJSON)
	w.Header().Set("Cache-Control", "no-cache, private")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // the client is gone when this fails
}

// writeError sends an error as a metav1.Status.
func writeError(w http.ResponseWriter, err error) {
	status := statusOf(err)
	if status.Details != nil && status.Details.RetryAfterSeconds > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(status.Details.RetryAfterSeconds)))
	}
	writeJSON(w, int(status.Code), status)
}

// success is the answer to a change that leaves no object to show.
func (c *call) success(name string, uid Object) metav1.Status {
	s := metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusSuccess,
		Details: &metav1.StatusDetails{Name: name, Group: c.resource.Group, Kind: c.resource.Name},
	}
	if uid != nil {
		s.Details.UID = uid.GetUID()
	}
	return s
}

// maxWarnings bounds the Warning headers of one answer: clients limit the size of a header.
const maxWarnings = 64

// warn adds Warning headers, which kubectl prints as "Warning: text".
func warn(w http.ResponseWriter, texts []string) {
	for i, text := range texts {
		if i == maxWarnings {
			text = fmt.Sprintf("%d more warnings are not shown", len(texts)-i)
		}
		header, err := utilnet.NewWarningHeader(http.StatusOK+99, "-", strings.ToValidUTF8(strings.Map(printable, text), "?"))
		if err == nil {
			w.Header().Add("Warning", header)
		}
		if i == maxWarnings {
			return
		}
	}
}

// printable keeps line breaks and control characters out of headers.
func printable(r rune) rune {
	if r < ' ' || r == 0x7f {
		return ' '
	}
	return r
}
