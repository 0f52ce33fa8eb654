package runtime

import "path/filepath"

// namespacePaths are where a pod's namespaces are mounted, and its /dev/shm.
func (r *Runtime) namespacePaths(podUID string) (net, ipc, uts, shm string) {
	dir := filepath.Join(r.cfg.RunDir, "pods", podUID)
	return filepath.Join(dir, "net"), filepath.Join(dir, "ipc"), filepath.Join(dir, "uts"), filepath.Join(dir, "shm")
}
