package lab

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
)

// Build builds picketd, picket and picket-logger into a directory, from the source that the caller is in.
func Build(dir string) error {
	cmd := exec.Command("go", "build", "-o", dir+string(os.PathSeparator), "github.com/picketd/picket/cmd/...")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot build: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}
