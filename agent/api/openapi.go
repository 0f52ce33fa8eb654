package api

import (
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

//go:generate ../../scripts/openapi/generate

// openAPIFiles holds one gzipped OpenAPI v3 document a group version: openapi/api_v1.json.gz, openapi/apis_apps_v1.json.gz. They stay
// compressed in memory and, for all clients that take gzip, on the wire.
//
//go:embed openapi/*.json.gz
var openAPIFiles embed.FS

// OpenAPIPath is where the document of a group version is served below /openapi/v3, as the index names it: "api/v1", "apis/apps/v1".
func OpenAPIPath(gv schema.GroupVersion) string {
	if gv.Group == "" {
		return "api/" + gv.Version
	}
	return "apis/" + gv.Group + "/" + gv.Version
}

// OpenAPIFile is the name of the embedded document served at such a path.
func OpenAPIFile(path string) string { return strings.ReplaceAll(path, "/", "_") + ".json.gz" }

type openAPIDocument struct {
	file string // in openAPIFiles
	size int64  // gzipped
	hash string // of the gzipped bytes; part of the document's URL, so that clients fetch it once
}

// openAPIDocuments are the documents by path.
var openAPIDocuments = sync.OnceValue(func() map[string]openAPIDocument {
	documents := map[string]openAPIDocument{}
	for _, gv := range groupVersions() {
		doc := openAPIDocument{file: "openapi/" + OpenAPIFile(OpenAPIPath(gv))}
		sum := sha256.New()
		gz, err := doc.open()
		if err == nil {
			doc.size, err = io.Copy(sum, gz)
		}
		if err != nil {
			continue // a test holds that every group version has its document
		}
		doc.hash = strings.ToUpper(hex.EncodeToString(sum.Sum(nil)))
		documents[OpenAPIPath(gv)] = doc
	}
	return documents
})

// open reads the gzipped document where it lies in the binary: nothing is copied to the heap.
func (d openAPIDocument) open() (io.ReadSeeker, error) {
	file, err := openAPIFiles.Open(d.file)
	if err != nil {
		return nil, err
	}
	return file.(io.ReadSeeker), nil // embed documents that its files are seekers
}

// openAPI answers /openapi/v3 (path "") and /openapi/v3/<path>.
func openAPI(path string) http.HandlerFunc {
	if path == "" {
		return openAPIIndex
	}
	return func(w http.ResponseWriter, r *http.Request) {
		doc, ok := openAPIDocuments()[path]
		switch {
		case !ok:
			writeError(w, errNoSuchPath())
		case !acceptsJSON(r.Header.Get("Accept")):
			writeError(w, errNotAcceptable())
		default:
			doc.serve(w, r)
		}
	}
}

// mediaOpenAPIV2 is the only form of an OpenAPI v2 document that kubectl reads. It asks for it with an "@" before v1.0, which no parser
// of Content-Types takes; this is how Kubernetes spells it in answers.
const mediaOpenAPIV2 = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"

// openAPIV2 answers with a document that describes nothing: {"swagger": "2.0"} as protobuf. kubectl asks for it when a manifest has a
// kind that the v3 documents lack; it then says that there is no such kind, and applies the rest of the file. Without an answer
// it refuses the whole file and calls for --validate=false.
func openAPIV2(w http.ResponseWriter, r *http.Request) {
	if !strings.Contains(r.Header.Get("Accept"), "proto-openapi.spec.v2") {
		writeError(w, errNotAcceptable())
		return
	}
	w.Header().Set("Content-Type", mediaOpenAPIV2)
	_, _ = w.Write([]byte("\x0a\x032.0")) // field 1 of openapi.v2.Document, 3 bytes
}

func openAPIIndex(w http.ResponseWriter, _ *http.Request) {
	type entry struct {
		ServerRelativeURL string `json:"serverRelativeURL"`
	}
	paths := map[string]entry{}
	for path, doc := range openAPIDocuments() {
		paths[path] = entry{"/openapi/v3/" + path + "?hash=" + doc.hash}
	}
	writeJSON(w, http.StatusOK, map[string]any{"paths": paths})
}

// serve answers with the document. Under its hash it never changes; under an older one the client is sent to the present one.
func (d openAPIDocument) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	if hash := r.URL.Query().Get("hash"); hash != "" {
		if hash != d.hash {
			query := r.URL.Query()
			query.Set("hash", d.hash)
			http.Redirect(w, r, r.URL.Path+"?"+query.Encode(), http.StatusMovedPermanently)
			return
		}
		h.Set("Cache-Control", "public, immutable")
		h.Set("Expires", time.Now().AddDate(1, 0, 0).UTC().Format(http.TimeFormat))
	}
	gz, err := d.open()
	if err != nil {
		writeError(w, err)
		return
	}
	h.Set("Content-Type", mediaJSON)
	h.Set("Vary", "Accept, Accept-Encoding")
	if acceptsGzip(r.Header.Get("Accept-Encoding")) {
		h.Set("ETag", strconv.Quote(d.hash))
		h.Set("Content-Encoding", "gzip")
		h.Set("Content-Length", strconv.FormatInt(d.size, 10))
		http.ServeContent(w, r, "", time.Time{}, gz)
		return
	}
	d.servePlain(w, r, gz)
}

// servePlain is for the rare client without gzip.
func (d openAPIDocument) servePlain(w http.ResponseWriter, r *http.Request, gz io.Reader) {
	etag := strconv.Quote(d.hash + "-identity")
	w.Header().Set("ETag", etag)
	if r.Header.Get("If-None-Match") == etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	plain, err := gzip.NewReader(gz)
	if err != nil {
		writeError(w, err)
		return
	}
	_, _ = io.Copy(w, plain) // fails only when the client is gone: a test reads every document to its end
}

// acceptsJSON tells whether an Accept header takes plain JSON.
func acceptsJSON(accept string) bool {
	if accept == "" {
		return true
	}
	for clause := range strings.SplitSeq(accept, ",") {
		switch media, _, _ := mime.ParseMediaType(clause); media {
		case mediaJSON, "application/*", "*/*":
			return true
		}
	}
	return false
}

// acceptsGzip tells whether an Accept-Encoding header takes gzip.
func acceptsGzip(encodings string) bool {
	for clause := range strings.SplitSeq(encodings, ",") {
		coding, params, err := mime.ParseMediaType(clause)
		if err != nil || coding != "gzip" && coding != "*" {
			continue
		}
		q, err := strconv.ParseFloat(params["q"], 64)
		return err != nil || q > 0
	}
	return false
}
