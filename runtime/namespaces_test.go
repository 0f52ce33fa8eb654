package runtime

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What happens to a thread of its own happens to no other, least of all to the process's first, which everybody looks at.
func TestThreadOfItsOwn(t *testing.T) {
	before, err := os.Readlink("/proc/self/ns/uts")
	if err != nil {
		t.Fatal(err)
	}
	for range 300 {
		if err := onThreadOfItsOwn(func() error { return unix.Unshare(unix.CLONE_NEWUTS) }); err != nil {
			t.Fatal(err)
		}
	}
	strangers := func() (found []string) {
		tasks, _ := filepath.Glob("/proc/self/task/*/ns/uts")
		for _, task := range tasks {
			if now, err := os.Readlink(task); err == nil && now != before { // one that ended is none
				found = append(found, task)
			}
		}
		return found
	}
	deadline := time.Now().Add(10 * time.Second)
	for len(strangers()) > 0 && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond) // a thread ends after its goroutine
	}
	if found := strangers(); len(found) > 0 {
		t.Errorf("threads stay in other namespaces: %v", found)
	}
}
