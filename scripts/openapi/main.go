// Command openapi writes the OpenAPI v3 documents that agent/api embeds: one a group version, with the paths and types served and
// no others. Run it with `go generate ./agent/api`.
package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/picketd/picket/agent/api"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "openapi:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 2 {
		return errors.New("want one argument, the directory to write to; run `go generate ./agent/api`")
	}
	for _, group := range api.Discovery().Items {
		for _, version := range group.Versions {
			if err := write(os.Args[1], schema.GroupVersion{Group: group.Name, Version: version.Version}, version.Resources); err != nil {
				return err
			}
		}
	}
	return nil
}

// write makes the document of one group version. encoding/json sorts the keys: the same input gives the same bytes.
func write(dir string, gv schema.GroupVersion, resources []apidiscoveryv2.APIResourceDiscovery) error {
	b := &builder{gv: gv, kinds: map[string][]any{}}
	doc, err := b.document(resources)
	if err != nil {
		return fmt.Errorf("cannot build the document of %s: %w", gv, err)
	}
	raw, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	var tree any
	if err := json.Unmarshal(raw, &tree); err != nil {
		return err
	}
	if raw, err = json.Marshal(tree); err != nil {
		return err
	}
	var gz bytes.Buffer
	w, err := gzip.NewWriterLevel(&gz, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := w.Write(raw); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	file := filepath.Join(dir, api.OpenAPIFile(api.OpenAPIPath(gv)))
	fmt.Printf("%s: %d paths, %d schemas, %d bytes, %d gzipped\n", file, len(doc.Paths.Paths), len(doc.Components.Schemas), len(raw), gz.Len())
	return os.WriteFile(file, gz.Bytes(), 0o644)
}
