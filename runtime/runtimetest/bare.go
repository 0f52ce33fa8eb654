package runtimetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

const (
	// ProbePath is the probe in an image of ProbeImage's; its argument is the file that it appends its start time to.
	ProbePath = "/probe"
	// probePause is how long is waited between two looks at a probe's file.
	probePause = 200 * time.Microsecond
)

// ProbeImage is busybox with the probe, which it is made of this package's source; the command is ProbePath without argument.
func ProbeImage() (Image, error) {
	program, err := buildProgram("probe")
	if err != nil {
		return Image{}, err
	}
	return Image{Config: v1.Config{Cmd: []string{ProbePath}}, Files: map[string]File{ProbePath: {Content: program, Mode: 0o755}}}, nil
}

// ProbeTimes are the start times in a probe's file, the oldest first; none while there is no file.
func ProbeTimes(file string) ([]time.Time, error) {
	starts, _, err := probeTimes(file)
	return starts, err
}

// ProbeEnds are the times at which a probe was told to end.
func ProbeEnds(file string) ([]time.Time, error) {
	_, ends, err := probeTimes(file)
	return ends, err
}

func probeTimes(file string) (starts, ends []time.Time, err error) {
	data, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, nil, fmt.Errorf("cannot read the probe's file: %w", err)
	}
	for line := range strings.Lines(string(data)) {
		n, err := strconv.ParseInt(strings.TrimSuffix(line, "\n"), 10, 64)
		if err != nil || !strings.HasSuffix(line, "\n") {
			break // being written
		}
		if n < 0 {
			ends = append(ends, time.Unix(0, -n))
		} else {
			starts = append(starts, time.Unix(0, n))
		}
	}
	return starts, ends, nil
}

// Without is how long a probe's file says that no probe ran, last: from when one was told to end to the first instruction of the one
// that took its place, which is the start of number n.
func Without(ctx context.Context, file string, n int) (time.Duration, error) {
	start, err := AwaitProbe(ctx, file, n)
	if err != nil {
		return 0, err
	}
	ends, err := ProbeEnds(file)
	if err == nil && len(ends) == 0 {
		err = errors.New("no probe was told to end")
	}
	if err != nil {
		return 0, err
	}
	return start.Sub(ends[len(ends)-1]), nil
}

// AwaitProbe waits until a probe's file has n times and returns the last of them.
func AwaitProbe(ctx context.Context, file string, n int) (time.Time, error) {
	for {
		times, err := ProbeTimes(file)
		if err != nil {
			return time.Time{}, err
		}
		if len(times) >= n {
			return times[n-1], nil
		}
		select {
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("the probe did not start: %w", ctx.Err())
		case <-time.After(probePause):
		}
	}
}

// Bare is a containerd client that does nothing but start a container: what the agent's speed is measured against.
type Bare struct {
	Client *client.Client
	// Image is one of ProbeImage's, present and unpacked.
	Image client.Image
	// Logger is the picket-logger that the container's log goes through.
	Logger string
	// Dir takes the probe's file and the log.
	Dir string
	// Name tells apart those that start containers at the same time.
	Name string

	container client.Container
	task      client.Task
	starts    int
}

// probeFile is where the probe's times are, on the host; the container sees Dir under the same path.
func (b *Bare) probeFile() string { return filepath.Join(b.Dir, "bare") }

// BareStart starts a container in the host's network and returns the time from the call to the container's first instruction.
func (b *Bare) BareStart(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	if err := b.start(ctx); err != nil {
		return 0, err
	}
	b.starts++
	first, err := AwaitProbe(ctx, b.probeFile(), b.starts)
	return first.Sub(began), err
}

func (b *Bare) start(ctx context.Context) error {
	if err := b.create(ctx); err != nil {
		return err
	}
	if err := b.task.Start(ctx); err != nil {
		return fmt.Errorf("cannot start bare task: %w", err)
	}
	return nil
}

// Launch is BareStart without the wait for the first instruction.
func (b *Bare) Launch(ctx context.Context) error {
	b.starts++
	return b.start(ctx)
}

// BareExchange creates the next container, ends the one that runs, starts the next as soon as the old one's exit is known, and deletes
// the old one. It returns how long no probe ran.
func (b *Bare) BareExchange(ctx context.Context) (time.Duration, error) {
	old := *b
	if err := b.create(ctx); err != nil {
		return 0, err
	}
	exit, err := old.task.Wait(ctx)
	if err != nil {
		return 0, fmt.Errorf("cannot wait for bare task: %w", err)
	}
	if err := old.task.Kill(ctx, syscall.SIGTERM); err != nil {
		return 0, fmt.Errorf("cannot end bare task: %w", err)
	}
	<-exit
	if err := b.task.Start(ctx); err != nil {
		return 0, fmt.Errorf("cannot start bare task: %w", err)
	}
	b.starts++
	without, err := Without(ctx, b.probeFile(), b.starts)
	return without, errors.Join(err, old.Delete(ctx))
}

// create makes the container of the next start, and its task.
func (b *Bare) create(ctx context.Context) error {
	id := fmt.Sprintf("bare%s-%d-%d", b.Name, os.Getpid(), b.starts)
	log := filepath.Join(b.Dir, id+".log")
	var err error
	b.container, err = b.Client.NewContainer(ctx, id, client.WithNewSnapshot(id, b.Image), client.WithNewSpec(
		oci.WithImageConfig(b.Image), oci.WithHostNamespace(specs.NetworkNamespace), oci.WithProcessArgs(ProbePath, b.probeFile()),
		oci.WithMounts([]specs.Mount{{Type: "bind", Source: b.Dir, Destination: b.Dir, Options: []string{"rbind", "rw"}}}),
	))
	if err != nil {
		return fmt.Errorf("cannot create bare container: %w", err)
	}
	b.task, err = b.container.NewTask(ctx, cio.BinaryIO(b.Logger, map[string]string{"path": log, "max-size": "10485760", "max-files": "5"}))
	if err != nil {
		return fmt.Errorf("cannot create bare task: %w", err)
	}
	return nil
}

// BareRestart kills the container's process, and returns the time from when that is known, through the deletion of what was and
// the start of the same again, to the new container's first instruction.
func (b *Bare) BareRestart(ctx context.Context) (time.Duration, error) {
	exit, err := b.task.Wait(ctx)
	if err != nil {
		return 0, fmt.Errorf("cannot wait for bare task: %w", err)
	}
	if err := b.task.Kill(ctx, syscall.SIGKILL); err != nil {
		return 0, fmt.Errorf("cannot kill bare task: %w", err)
	}
	<-exit
	began := time.Now()
	if err := b.Delete(ctx); err != nil {
		return 0, err
	}
	_, err = b.BareStart(ctx)
	if err != nil {
		return 0, err
	}
	first, err := AwaitProbe(ctx, b.probeFile(), b.starts)
	return first.Sub(began), err
}

// Delete removes the container, killing what runs.
func (b *Bare) Delete(ctx context.Context) error {
	if _, err := b.task.Delete(ctx, client.WithProcessKill); err != nil {
		return fmt.Errorf("cannot delete bare task: %w", err)
	}
	if err := b.container.Delete(ctx, client.WithSnapshotCleanup); err != nil {
		return fmt.Errorf("cannot delete bare container: %w", err)
	}
	return nil
}
