package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/wsstream"
	utilexec "k8s.io/utils/exec"
)

const (
	// streamIdle ends a stream on which nothing has moved, as the kubelet does: the last resort against clients that vanished.
	streamIdle = 4 * time.Hour
	// streamSetup is how long an SPDY client may take to open its streams.
	streamSetup = 30 * time.Second
)

// exec runs a command in a container, over WebSocket (v5 and v4 of the channel protocol) or SPDY (v4 to v1).
func (s *Server) exec(w http.ResponseWriter, c *call) error {
	pod, err := s.pod(c)
	if err != nil {
		return err
	}
	if node := s.elsewhere(pod); node != "" {
		return s.forward(w, c, node)
	}
	p := parameters{values: c.URL.Query()}
	opts := &remotecommand.Options{Stdin: p.boolean("stdin"), Stdout: p.boolean("stdout"), Stderr: p.boolean("stderr"), TTY: p.boolean("tty")}
	command := p.values["command"]
	if len(command) == 0 || command[0] == "" {
		return apierrors.NewBadRequest("you must specify at least one command for the container")
	}
	if opts.TTY {
		opts.Stderr = false // a terminal has one output
	}
	if !opts.Stdin && !opts.Stdout && !opts.Stderr {
		return apierrors.NewBadRequest("you must specify at least 1 of stdin, stdout, stderr")
	}
	container, err := chooseContainer(pod, p.values.Get("container"))
	if err != nil {
		return err
	}
	if err := running(pod, container); err != nil {
		return err
	}
	if !httpstream.IsUpgradeRequest(c.Request) {
		return apierrors.NewBadRequest("Upgrade request required")
	}
	s.log.With(c.user.attrs()...).Info("exec", "namespace", c.namespace, "pod", c.name, "container", container, "command", command[0])
	ctx, cancel := context.WithCancel(c.Context())
	defer cancel()
	run := &execution{ctx: ctx, backend: s.backend, pod: pod, container: container}
	upgrade := &hijacker{ResponseWriter: w, gone: cancel}
	if wsstream.IsWebSocketRequest(c.Request) {
		serveWebSocket(upgrade, c.Request, opts, command, run)
		return nil
	}
	remotecommand.ServeExec(upgrade, c.Request.WithContext(ctx), run, pod.Name, string(pod.UID), container, command, opts, streamIdle, streamSetup,
		remotecommand.SupportedStreamingProtocols)
	return nil
}

// running refuses to enter a container that does not run, in the kubelet's words.
func running(pod *corev1.Pod, container string) error {
	if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return apierrors.NewBadRequest(fmt.Sprintf("cannot exec into a container in a completed pod; current phase is %s", pod.Status.Phase))
	}
	if status := containerStatus(pod, container); status == nil || status.State.Running == nil {
		return apierrors.NewBadRequest(fmt.Sprintf("container %q in pod %q is not running", container, pod.Name))
	}
	return nil
}

// execution is one command; it is the Executor of the SPDY protocols.
type execution struct {
	ctx       context.Context // ends with the client's connection; the library's own context does not
	backend   Backend
	pod       *corev1.Pod
	container string
}

func (e *execution) ExecInContainer(_ context.Context, _, _, _ string, command []string, in io.Reader, out, errOut io.WriteCloser,
	tty bool, resize <-chan remotecommand.TerminalSize, _ time.Duration,
) error {
	x := Exec{Command: command, TTY: tty, Stdin: in}
	if out != nil {
		x.Stdout = out
	}
	if errOut != nil {
		x.Stderr = errOut
	}
	ctx, cancel := context.WithCancel(e.ctx)
	defer cancel()
	x.Resize = sizes(ctx, resize)
	code, err := e.backend.Exec(e.ctx, e.pod, e.container, x)
	if err == nil && code != 0 {
		err = utilexec.CodeExitError{Err: fmt.Errorf("command terminated with exit code %d", code), Code: code}
	}
	return err
}

// sizes converts the library's terminal sizes. Only the newest matters: a command that does not read them holds nothing up.
func sizes(ctx context.Context, in <-chan remotecommand.TerminalSize) <-chan TerminalSize {
	if in == nil {
		return nil
	}
	out := make(chan TerminalSize, 1)
	go func() {
		defer close(out)
		for {
			select {
			case size, ok := <-in:
				if !ok {
					return
				}
				select {
				case <-out:
				default:
				}
				out <- TerminalSize(size)
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// status is what the error channel of v4 and v5 says at the end of a command.
func execStatus(err error) metav1.Status {
	var exit utilexec.ExitError
	switch {
	case err == nil:
		return metav1.Status{Status: metav1.StatusSuccess}
	case errors.As(err, &exit) && exit.Exited():
		return metav1.Status{
			Status: metav1.StatusFailure, Reason: remotecommand.NonZeroExitCodeReason,
			Message: fmt.Sprintf("command terminated with non-zero exit code: %v", err),
			Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{
				Type: remotecommand.ExitCodeCauseType, Message: fmt.Sprint(exit.ExitStatus()),
			}}},
		}
	default:
		return apierrors.NewInternalError(fmt.Errorf("error executing command in container: %w", err)).Status()
	}
}

// serveWebSocket speaks the channel protocol: one byte of channel number before every message. v5 also lets the client close
// its stdin.
func serveWebSocket(w http.ResponseWriter, r *http.Request, opts *remotecommand.Options, command []string, run *execution) {
	kind := func(open bool, t wsstream.ChannelType) wsstream.ChannelType {
		if open {
			return t
		}
		return wsstream.IgnoreChannel
	}
	channels := []wsstream.ChannelType{
		remotecommand.StreamStdIn:  kind(opts.Stdin, wsstream.ReadChannel),
		remotecommand.StreamStdOut: kind(opts.Stdout, wsstream.WriteChannel),
		remotecommand.StreamStdErr: kind(opts.Stderr, wsstream.WriteChannel),
		remotecommand.StreamErr:    wsstream.WriteChannel,
		remotecommand.StreamResize: wsstream.ReadChannel,
	}
	binary := wsstream.ChannelProtocolConfig{Binary: true, Channels: channels}
	conn := wsstream.NewConn(map[string]wsstream.ChannelProtocolConfig{
		remotecommand.StreamProtocolV5Name:              binary,
		remotecommand.StreamProtocolV4Name:              binary,
		"v4." + wsstream.Base64ChannelWebSocketProtocol: {Channels: channels},
	})
	conn.SetIdleTimeout(streamIdle)
	_, streams, err := conn.Open(w, r)
	if err != nil {
		return // the library has answered
	}
	defer func() { _ = conn.Close() }()
	_, _ = streams[remotecommand.StreamStdOut].Write(nil) // tells the client that the connection stands
	var in io.Reader
	var out, errOut io.WriteCloser
	if opts.Stdin {
		in = streams[remotecommand.StreamStdIn]
	}
	if opts.Stdout {
		out = streams[remotecommand.StreamStdOut]
	}
	if opts.Stderr {
		errOut = streams[remotecommand.StreamStdErr]
	}
	err = run.ExecInContainer(run.ctx, "", "", "", command, in, out, errOut, opts.TTY, decodeSizes(run.ctx, streams[remotecommand.StreamResize]), 0)
	status, _ := json.Marshal(execStatus(err))
	_, _ = streams[remotecommand.StreamErr].Write(status)
}

// decodeSizes reads terminal sizes from the resize channel until it ends.
func decodeSizes(ctx context.Context, r io.Reader) <-chan remotecommand.TerminalSize {
	out := make(chan remotecommand.TerminalSize)
	go func() {
		defer close(out)
		decoder := json.NewDecoder(r)
		for {
			var size remotecommand.TerminalSize
			if decoder.Decode(&size) != nil {
				_, _ = io.Copy(io.Discard, r) // so that nonsense here does not hold up the other channels
				return
			}
			select {
			case out <- size:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}
