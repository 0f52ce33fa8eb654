package runtime_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// logger is picket-logger, built once.
func logger(t testing.TB) string {
	t.Helper()
	path, err := buildLogger()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var buildLogger = sync.OnceValues(func() (string, error) {
	path := filepath.Join(os.TempDir(), fmt.Sprintf("picket-logger-%d", os.Getpid()))
	atExit(func() error { return os.Remove(path) })
	build := exec.Command("go", "build", "-o", path, "github.com/picketd/picket/cmd/picket-logger")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot build picket-logger: %w\n%s", err, out)
	}
	return path, nil
})
