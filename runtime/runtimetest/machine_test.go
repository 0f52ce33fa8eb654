package runtimetest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is written in the machine is not on the disk, and what is on the disk is seen there.
func TestMachine(t *testing.T) {
	written := filepath.Join("/var", "machine-test-"+filepath.Base(os.Args[0]))
	if !Machine(t) {
		if _, err := os.Stat(written); err == nil {
			t.Errorf("%s was written to the real disk", written)
			_ = os.Remove(written)
		}
		return
	}
	if err := os.WriteFile(written, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("machine.go"); err != nil {
		t.Errorf("the disk is not seen: %v", err)
	}
	if name, _ := os.Hostname(); name != MachineName || os.Getpid() != 1 {
		t.Errorf("process %d on %s", os.Getpid(), name)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || !strings.Contains(string(mounts), " / / rw,relatime shared:") {
		t.Errorf("%v\n%s", err, mounts)
	}
	containerd := StartContainerd(t)
	t.Log(containerd.Dir)
}
