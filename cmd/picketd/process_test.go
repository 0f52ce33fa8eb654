package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// asProcess makes this test binary be picketd: "real" with everything, "fake" with an agent that runs nothing, "stubborn" with one
// that does not stop.
const asProcess = "PICKETD_TEST_PROCESS"

func TestMain(m *testing.M) {
	f := &fakeAgent{summary: "fine"}
	switch os.Getenv(asProcess) {
	case "real":
		main()
	case "stubborn":
		f.unstopping = make(chan struct{})
		fallthrough
	case "fake":
		signals := make(chan os.Signal, 8)
		signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
		os.Exit(run(os.Args[1:], process{stdout: os.Stdout, stderr: os.Stderr, signals: signals, start: f.start}))
	}
	os.Exit(m.Run())
}

// running is a picketd of its own process under a service manager.
type running struct {
	*exec.Cmd
	stderr  bytes.Buffer
	receive func() string
}

func startProcess(t *testing.T, kind string, args ...string) *running {
	t.Helper()
	path, receive := notifySocket(t)
	r := &running{Cmd: exec.Command(os.Args[0], args...), receive: receive}
	r.Env = append(os.Environ(), "PICKET_RUNTIME_LOGGERPATH="+testLogger, asProcess+"="+kind, "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=3600000000")
	r.Stderr = &r.stderr
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if r.ProcessState == nil {
			_ = r.Process.Kill()
			_ = r.Wait()
		}
	})
	return r
}

// hear waits until systemd hears something that begins so.
func (r *running) hear(t *testing.T, begin string) {
	t.Helper()
	for !strings.HasPrefix(r.receive(), begin) {
	}
}

func (r *running) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := r.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

func TestProcess(t *testing.T) {
	path := write(t, "log: {level: info}\nnode: {name: host-01}\n")
	r := startProcess(t, "fake", "--config", path)
	r.hear(t, "READY=1")
	r.hear(t, "WATCHDOG=1")

	next := filepath.Join(filepath.Dir(path), "next")
	replace := func(text string) {
		t.Helper()
		if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, path); err != nil {
			t.Fatal(err)
		}
	}
	replace("log: {level: loud}\nnode: {name: host-01}\n")
	r.hear(t, "RELOADING=1\nMONOTONIC_USEC=")
	r.hear(t, "STATUS=fine; the new configuration is refused: "+path+":1: log.level")
	r.hear(t, "READY=1")
	replace("log: {level: debug}\nnode: {name: host-01}\n")
	r.hear(t, "RELOADING=1")
	r.hear(t, "STATUS=fine")
	r.hear(t, "READY=1")
	r.signal(t, syscall.SIGHUP)
	r.hear(t, "RELOADING=1")
	r.hear(t, "READY=1")

	r.signal(t, syscall.SIGTERM)
	r.hear(t, "STOPPING=1")
	if err := r.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v\n%s", err, r.stderr.String())
	}
}

func TestProcessSecondSignal(t *testing.T) {
	r := startProcess(t, "stubborn", "--config", write(t, "node: {name: host-01}"))
	r.hear(t, "READY=1")
	r.signal(t, syscall.SIGINT)
	r.hear(t, "STOPPING=1")
	r.signal(t, syscall.SIGINT)
	err := r.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.HasSuffix(r.stderr.String(), "picketd: "+errImpatient.Error()+"\n") {
		t.Errorf("after a second signal: %v\n%s", err, r.stderr.String())
	}
}

// Why it does not start is in systemctl status too.
func TestProcessBadConfiguration(t *testing.T) {
	path := write(t, "node: {name: host-01}\nlog: {level: loud}\n")
	r := startProcess(t, "fake", "--config", path)
	r.hear(t, "STATUS="+path+":2: log.level: ")
	var exit *exec.ExitError
	if err := r.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("it ended with %v", err)
	}
}

// The whole program, where no containerd answers: it starts, takes another label from the file, and ends cleanly.
func TestRealProcess(t *testing.T) {
	dir := t.TempDir()
	const text = `node: {name: host-01, labels: {disktype: %s}}
api: {listen: "127.0.0.1:0", pki: DIR/pki}
metrics: {listen: "127.0.0.1:0"}
runtime: {address: DIR/containerd.sock, podLogs: DIR/pods, containerLogs: DIR/containers}
manifests: DIR/manifests.d
dataDir: DIR/data
runDir: DIR/run
`
	path := filepath.Join(dir, "picketd.yaml")
	configure := func(disktype string) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte(strings.ReplaceAll(fmt.Sprintf(text, disktype), "DIR", dir)), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	configure("hdd")
	r := startProcess(t, "real", "--config", path)
	r.hear(t, "READY=1")
	r.hear(t, "STATUS=0 DaemonSets")
	configure("ssd")
	r.hear(t, "RELOADING=1")
	r.hear(t, "READY=1")
	if got := nodeLabel(t, filepath.Join(dir, "run/picket.sock"), "disktype"); got != "ssd" {
		t.Errorf("the host's label is %q after a reload\n%s", got, r.stderr.String())
	}
	r.signal(t, syscall.SIGTERM)
	r.hear(t, "STOPPING=1")
	if err := r.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v\n%s", err, r.stderr.String())
	}
}

// nodeLabel asks the agent's socket.
func nodeLabel(t *testing.T, socket, label string) string {
	t.Helper()
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}}
	defer client.CloseIdleConnections()
	answer, err := client.Get("http://picket/api/v1/nodes/host-01")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var node struct {
		Metadata struct{ Labels map[string]string }
	}
	if err := json.NewDecoder(answer.Body).Decode(&node); err != nil {
		t.Fatal(err)
	}
	return node.Metadata.Labels[label]
}
