package runtime

import "context"

// RemovePodCgroup is what TearDownPod does about cgroups.
func (r *Runtime) RemovePodCgroup(ctx context.Context, parent string) error {
	return r.removePodCgroup(ctx, parent)
}
