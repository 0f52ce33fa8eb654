package api_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/remotecommand"

	"github.com/picketd/picket/agent/api"
	"github.com/picketd/picket/agent/api/apitest"
)

// protocols run a test over both that kubectl speaks.
func protocols(t *testing.T, test func(t *testing.T)) {
	for name, websockets := range map[string]string{"WebSocket": "true", "SPDY": "false"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets)
			test(t)
		})
	}
}

func TestExecOnAnotherHost(t *testing.T) {
	f := startFleet(t)
	f.Host("host-02").Backend.OnExec = func(_ context.Context, pod *corev1.Pod, container string, e api.Exec) (int, error) {
		fmt.Fprintf(e.Stdout, "%s/%s runs %s\n", pod.Name, container, strings.Join(e.Command, " "))
		if e.Stdin != nil {
			if _, err := io.Copy(e.Stdout, e.Stdin); err != nil {
				return 0, err
			}
		}
		fmt.Fprintln(e.Stderr, "that was all")
		return 42, nil
	}
	k := f.Host("host-01").Kubectl(t, "alice", apitest.Admins)
	protocols(t, func(t *testing.T) {
		var out, errOut bytes.Buffer
		input := strings.Repeat("a line of the input\n", 10000)
		code := k.Stream(strings.NewReader(input), &out, &errOut, "exec", "-i", "web-2", "--", "cat", "a b", "--x")
		if code != 42 || out.String() != "web-2/main runs cat a b --x\n"+input || !strings.HasPrefix(errOut.String(), "that was all\n") {
			t.Errorf("exit %d, %d bytes, %.80q, stderr %q", code, out.Len(), out.String(), errOut.String())
		}
		r := k.Try("", "exec", "web-2", "--", "true")
		if r.Code != 42 || r.Out != "web-2/main runs true\n" {
			t.Errorf("without input: %+v", r)
		}
		// What the other host refuses arrives in its words.
		if r := k.Try("", "exec", "web-2", "-c", "no", "--", "true"); r.Code == 0 || !strings.Contains(r.Err, "container no is not valid for pod web-2") &&
			!strings.Contains(r.Err, "container not found") {
			t.Errorf("a container that is not there: %+v", r)
		}
	})
}

// executor runs a command in web-2 through host-01.
func executor(t *testing.T, f *apitest.Fleet, websocket, tty bool) remotecommand.Executor {
	t.Helper()
	h := f.Host("host-01")
	config := h.Config(t, "alice", apitest.Admins)
	address := h.URL + "/api/v1/namespaces/default/pods/web-2/exec?command=sh&stdin=true&stdout=true" + fmt.Sprintf("&tty=%t", tty)
	if websocket {
		e, err := remotecommand.NewWebSocketExecutor(config, http.MethodGet, address)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	e, err := remotecommand.NewSPDYExecutor(config, http.MethodPost, u)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// sizes is a terminal that is resized once.
type sizes chan *remotecommand.TerminalSize

func (s sizes) Next() *remotecommand.TerminalSize { return <-s }

func TestTerminalOnAnotherHost(t *testing.T) {
	f := startFleet(t)
	f.Host("host-02").Backend.OnExec = func(ctx context.Context, _ *corev1.Pod, _ string, e api.Exec) (int, error) {
		if !e.TTY {
			t.Error("there is no terminal")
		}
		go func() { _, _ = io.Copy(io.Discard, e.Stdin) }() // what is not read holds up the sizes behind it
		for {
			select {
			case size := <-e.Resize:
				fmt.Fprintf(e.Stdout, "%dx%d\n", size.Width, size.Height)
				if size.Width == 100 {
					return 0, nil
				}
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}
	}
	for name, websocket := range map[string]bool{"WebSocket": true, "SPDY": false} {
		t.Run(name, func(t *testing.T) {
			terminal := make(sizes, 2)
			terminal <- &remotecommand.TerminalSize{Width: 80, Height: 24}
			out, typed := &resizeWhenSeen{terminal: terminal}, strings.NewReader("ls\r")
			err := executor(t, f, websocket, true).StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: typed, Stdout: out, Tty: true, TerminalSizeQueue: terminal})
			if err != nil || out.seen.String() != "80x24\n100x30\n" {
				t.Errorf("%v %q", err, out.seen.String())
			}
		})
	}
}

// resizeWhenSeen makes the terminal larger when its first size was printed.
type resizeWhenSeen struct {
	seen     bytes.Buffer
	terminal sizes
}

func (r *resizeWhenSeen) Write(p []byte) (int, error) {
	if strings.Contains(string(p), "80x24") {
		r.terminal <- &remotecommand.TerminalSize{Width: 100, Height: 30}
		close(r.terminal)
	}
	return r.seen.Write(p)
}

// A command on another host ends with the client that started it, and with the door that forwards it.
func TestExecElsewhereEndsWithItsClient(t *testing.T) {
	for name, websocket := range map[string]bool{"WebSocket": true, "SPDY": false} {
		for _, who := range []string{"the client", "the door"} {
			t.Run(name+" of "+who, func(t *testing.T) {
				f := startFleet(t)
				started, ended := make(chan struct{}), make(chan struct{})
				f.Host("host-02").Backend.OnExec = func(ctx context.Context, _ *corev1.Pod, _ string, e api.Exec) (int, error) {
					fmt.Fprintln(e.Stdout, "started")
					<-ctx.Done()
					close(ended)
					return 0, ctx.Err()
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				input, _ := io.Pipe() // never says anything
				// Only a client that has heard of its streams notices that its connection ends; client-go waits 30 s for that.
				out := signal(func() { close(started) })
				done := make(chan error, 1)
				go func() {
					done <- executor(t, f, websocket, false).StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: input, Stdout: out})
				}()
				<-started
				if who == "the client" {
					cancel()
				} else {
					f.Host("host-01").Stop(t)
				}
				select {
				case <-ended:
				case <-time.After(20 * time.Second):
					t.Fatal("the command outlives its client")
				}
				<-done
			})
		}
	}
}

// signal is called for what is written.
type signal func()

func (s signal) Write(p []byte) (int, error) {
	s()
	return len(p), nil
}
