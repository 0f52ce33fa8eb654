package daemonset

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// allowedImports is everything the core may see. Nothing on it does I/O; where a package has more than the core should use,
// only the listed names of it are allowed.
var allowedImports = map[string][]string{
	"bytes":           nil,
	"cmp":             nil,
	"encoding/binary": nil,
	"errors":          nil,
	"fmt":             {"Sprintf", "Sprint", "Errorf"},
	"hash/fnv":        nil,
	"crypto/sha256":   {"Sum256"},
	"maps":            {"Clone"}, // not Keys or Values: their order is random
	"math":            nil,
	"net/netip":       nil,
	"slices":          nil,
	"strconv":         nil,
	"strings":         nil,
	"time":            {"Time", "Duration", "Millisecond", "Second", "Minute", "RFC3339", "Unix"},

	"github.com/google/uuid": {"UUID", "NewSHA1", "NameSpaceDNS", "Parse"},

	"k8s.io/api/apps/v1":                                      nil,
	"k8s.io/api/core/v1":                                      nil,
	"k8s.io/apimachinery/pkg/api/equality":                    nil,
	"k8s.io/apimachinery/pkg/apis/meta/v1":                    {"NamespaceDefault", "ObjectMeta", "OwnerReference", "NewControllerRef", "NewTime", "ObjectNameField", "Time", "TypeMeta"},
	"k8s.io/apimachinery/pkg/runtime":                         {"RawExtension"},
	"k8s.io/apimachinery/pkg/types":                           nil,
	"k8s.io/apimachinery/pkg/util/intstr":                     nil,
	"k8s.io/apimachinery/pkg/util/json":                       nil,
	"k8s.io/apimachinery/pkg/util/rand":                       {"SafeEncodeString"},
	"k8s.io/component-helpers/scheduling/corev1":              nil,
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity": nil,
	"k8s.io/klog/v2":                                          {"Logger"}, // a type that component-helpers asks for; its zero value is silent
}

// TestPure keeps clocks, randomness, I/O, goroutines and channels out of the core.
func TestPure(t *testing.T) {
	paths, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	files, seen := token.NewFileSet(), 0
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(files, path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		seen++
		for _, found := range impurities(file) {
			t.Errorf("%s: %s", files.Position(found.pos), found.what)
		}
	}
	if seen < 10 {
		t.Errorf("only %d files were looked at", seen)
	}
}

// TestPureFindsImpurities shows that the check above can fail.
func TestPureFindsImpurities(t *testing.T) {
	for name, body := range map[string]string{
		"goroutine":      `func f() { go f() }`,
		"receive":        `func f(c C) { <-c }`,
		"send":           `func f(c C) { c <- 1 }`,
		"select":         `func f() { select {} }`,
		"channel type":   `var c chan int`,
		"clock":          "import \"time\"\nvar x = time.Now()",
		"renamed clock":  "import clock \"time\"\nvar x = clock.Since(y)",
		"random":         "import \"math/rand\"\nvar x = rand.Int()",
		"random name":    "import \"k8s.io/apimachinery/pkg/util/rand\"\nvar x = rand.String(5)",
		"random uuid":    "import \"github.com/google/uuid\"\nvar x = uuid.New()",
		"process":        "import \"os\"\nvar x = os.Getpid()",
		"map order":      "import \"maps\"\nvar x = maps.Keys(y)",
		"dot import":     "import . \"time\"\nvar x = Now()",
		"package global": "var x = 1\nfunc f() { x = 2 }",
	} {
		file, err := parser.ParseFile(token.NewFileSet(), "", "package p\n"+body, 0)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(impurities(file)) == 0 {
			t.Errorf("%s: not found", name)
		}
	}
}

type impurity struct {
	pos  token.Pos
	what string
}

func impurities(file *ast.File) []impurity {
	var found []impurity
	report := func(n ast.Node, what string) { found = append(found, impurity{n.Pos(), what}) }
	allowedNames, globals := map[string][]string{}, map[string]bool{}
	for _, spec := range file.Imports {
		path, _ := strconv.Unquote(spec.Path.Value)
		names, ok := allowedImports[path]
		if !ok {
			report(spec, "import of "+path+" is not on the list of the pure core")
		}
		local := path[strings.LastIndex(path, "/")+1:]
		if spec.Name != nil {
			local = spec.Name.Name
		}
		if local == "." || local == "_" {
			report(spec, "imports must be named")
		}
		if names != nil {
			allowedNames[local] = names
		}
	}
	for _, d := range file.Decls {
		if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.VAR {
			for _, s := range g.Specs {
				for _, name := range s.(*ast.ValueSpec).Names {
					globals[name.Name] = true
				}
			}
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			report(n, "go statement")
		case *ast.SendStmt, *ast.SelectStmt, *ast.ChanType:
			report(n, "channel operation")
		case *ast.UnaryExpr:
			if n.Op == token.ARROW {
				report(n, "channel operation")
			}
		case *ast.AssignStmt:
			for _, left := range n.Lhs {
				if id, ok := left.(*ast.Ident); ok && n.Tok != token.DEFINE && globals[id.Name] {
					report(n, "package variable "+id.Name+" is changed")
				}
			}
		case *ast.SelectorExpr:
			if id, ok := n.X.(*ast.Ident); ok {
				if names, limited := allowedNames[id.Name]; limited && !slices.Contains(names, n.Sel.Name) {
					report(n, id.Name+"."+n.Sel.Name+" is not on the list of the pure core")
				}
			}
		}
		return true
	})
	return found
}
