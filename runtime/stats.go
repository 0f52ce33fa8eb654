package runtime

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/cgroups/v3/cgroup1/stats"
	stats2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/typeurl/v2"
)

// Stats reads a running container's figures from its cgroup. ErrNotFound: it does not run.
func (r *Runtime) Stats(ctx context.Context, id string) (Stats, error) {
	response, err := r.client.TaskService().Metrics(ctx, &tasks.MetricsRequest{Filters: []string{"id==" + containerKey(id)}})
	if err != nil {
		return Stats{}, fmt.Errorf("cannot read the container's figures: %w", r.native(err))
	}
	if len(response.Metrics) == 0 {
		return Stats{}, fmt.Errorf("container %s does not run: %w", id, ErrNotFound)
	}
	m := response.Metrics[0]
	figures, err := typeurl.UnmarshalAny(m.Data)
	if err != nil {
		return Stats{}, fmt.Errorf("cannot decode the container's figures: %w", err)
	}
	s, err := statsOf(figures)
	s.At = m.Timestamp.AsTime()
	return s, err
}

// statsOf translates a shim's figures of cgroup v1 or v2.
func statsOf(figures any) (s Stats, err error) {
	switch f := figures.(type) {
	case *stats.Metrics:
		s.CPUUsage = time.Duration(f.GetCPU().GetUsage().GetTotal())
		s.MemoryUsage = f.GetMemory().GetUsage().GetUsage()
		s.MemoryWorking = less(s.MemoryUsage, f.GetMemory().GetTotalInactiveFile())
		s.Pids = f.GetPids().GetCurrent()
	case *stats2.Metrics:
		s.CPUUsage = time.Duration(f.GetCPU().GetUsageUsec()) * time.Microsecond
		s.MemoryUsage = f.GetMemory().GetUsage()
		s.MemoryWorking = less(s.MemoryUsage, f.GetMemory().GetInactiveFile())
		s.Pids = f.GetPids().GetCurrent()
	default:
		return Stats{}, fmt.Errorf("cannot read figures of type %T", figures)
	}
	return s, nil
}

// less is a - b, or 0: the kernel counts the two at different moments.
func less(a, b uint64) uint64 {
	if b > a {
		return 0
	}
	return a - b
}
