package runtime_test

import (
	"fmt"
	"testing"

	"github.com/picketd/picket/runtime"
)

// What a container writes to its own file system is measured; what its image has is not.
func TestLayerUsage(t *testing.T) {
	h := newHost(t)
	c := h.shell(h.newPod(), "web", "head -c 3000000 /dev/zero > /file; rm /bin/ls; sleep 1000")
	h.create(c)
	before, err := h.LayerUsage(t.Context(), c.ID)
	if err != nil || before > 100<<10 {
		t.Errorf("before it runs: %d bytes, %v", before, err)
	}
	if err := h.StartContainer(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	h.eventually("3 MB are seen", func() error {
		used, err := h.LayerUsage(t.Context(), c.ID)
		if err == nil && (used < 3000000 || used > 3200000) {
			err = fmt.Errorf("%d bytes", used)
		}
		return err
	})
	_, err = h.LayerUsage(t.Context(), "nobody")
	want(t, err, runtime.ErrNotFound)
}
