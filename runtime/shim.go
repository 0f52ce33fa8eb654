package runtime

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"

	shimv2 "github.com/containerd/containerd/api/runtime/task/v2"
	shimv3 "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
)

const (
	// shimPatience is for a shim that is just ending.
	shimPatience = time.Second
	shimPause    = 10 * time.Millisecond
)

// endShim ends the shim of a pod whose containers are gone. It ends by itself with the last of them, but not when an agent was
// killed while it had a task made: containerd 1.6 undoes the task and forgets the shim, which still counts it.
func (r *Runtime) endShim(ctx context.Context, podUID string) error {
	for deadline := time.Now().Add(shimPatience); ; {
		conn, err := net.DialTimeout("unix", r.shimSocket(podUID), shimPatience)
		if err != nil {
			return nil // nobody listens
		}
		if time.Now().After(deadline) {
			return r.killShim(ctx, conn, podUID)
		}
		conn.Close()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(shimPause):
		}
	}
}

// shimSocket is where the shim of a pod listens, by containerd's rule for the tasks of a group.
func (r *Runtime) shimSocket(podUID string) string {
	sum := sha256.Sum256([]byte(filepath.Join(r.cfg.Address, r.cfg.Namespace, podUID)))
	return filepath.Join(defaults.DefaultStateDir, "s", fmt.Sprintf("%x", sum))
}

// killShim kills the shim at the other end. It closes the connection.
func (r *Runtime) killShim(ctx context.Context, conn net.Conn, podUID string) error {
	client := ttrpc.NewClient(conn)
	defer func() { _ = client.Close() }()
	ctx, cancel := context.WithTimeout(namespaces.WithNamespace(ctx, r.cfg.Namespace), shimPatience)
	defer cancel()
	pid, err := shimPid(ctx, client, podUID)
	if errors.Is(err, ttrpc.ErrClosed) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot ask the pod's shim for its process: %w", err)
	}
	fd, err := unix.PidfdOpen(int(pid), 0)
	if err != nil {
		return nil // it ended
	}
	defer func() { _ = unix.Close(fd) }()
	// It is the shim's if the shim answers still.
	if again, err := shimPid(ctx, client, podUID); err != nil || again != pid {
		return nil
	}
	r.log.Warn("a pod's shim was left without containers; killed", "pod", podUID, "pid", pid)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("cannot end the pod's shim: %w", err)
	}
	return removeFile(r.shimSocket(podUID))
}

// shimPid asks a shim of containerd 2, else of 1, for its process number.
func shimPid(ctx context.Context, client *ttrpc.Client, podUID string) (uint32, error) {
	response, err := shimv3.NewTTRPCTaskClient(client).Connect(ctx, &shimv3.ConnectRequest{ID: podUID})
	if err == nil {
		return response.ShimPid, nil
	}
	if !errdefs.IsNotImplemented(errgrpc.ToNative(err)) {
		return 0, err
	}
	old, err := shimv2.NewTTRPCTaskClient(client).Connect(ctx, &shimv2.ConnectRequest{ID: podUID})
	if err != nil {
		return 0, err
	}
	return old.ShimPid, nil
}
