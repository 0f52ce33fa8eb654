package main

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestWatchdog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var systemd told
		var log output
		f := &fakeAgent{}
		ctx, cancel := context.WithCancel(t.Context())
		go feedWatchdog(ctx, 10*time.Second, f.Alive, systemd.notify, newLogging(&log, false).Logger)
		fed := func() int { synctest.Wait(); return len(systemd.take()) }

		time.Sleep(21 * time.Second)
		if n := fed(); n != 5 { // at 0, 5, 10, 15, 20 s
			t.Errorf("fed %d times in 21 s, want 5", n)
		}
		f.set(func(f *fakeAgent) { f.dead = errors.New("the loop has not turned") })
		time.Sleep(20 * time.Second)
		if n := fed(); n != 0 {
			t.Errorf("fed %d times though not alive", n)
		}
		if !strings.Contains(log.String(), "the loop has not turned") {
			t.Errorf("the log does not say why: %s", log.String())
		}
		f.set(func(f *fakeAgent) { f.dead = nil })
		time.Sleep(10 * time.Second)
		if n := fed(); n != 2 {
			t.Errorf("fed %d times in 10 s after it came back, want 2", n)
		}
		cancel()
		synctest.Wait()
		time.Sleep(time.Minute)
		if n := fed(); n != 0 {
			t.Errorf("fed %d times after the end", n)
		}
	})
}

func TestStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var systemd told
		f := &fakeAgent{summary: "0 pods"}
		st := &status{summary: f.Summary, notify: systemd.notify}
		go st.run(t.Context())
		time.Sleep(time.Minute)
		f.set(func(f *fakeAgent) { f.summary = "1 pod\nREADY=1" })
		time.Sleep(time.Minute)
		st.setNote("a note")
		time.Sleep(time.Minute)
		want := []string{"STATUS=0 pods", "STATUS=1 pod READY=1", "STATUS=1 pod READY=1; a note"}
		if got := systemd.take(); !slices.Equal(got, want) {
			t.Errorf("systemd was told %q, want %q", got, want)
		}
	})
}

// notifySocket is systemd's end of sd_notify.
func notifySocket(t *testing.T) (path string, receive func() string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	buf := make([]byte, 4096)
	return path, func() string {
		t.Helper()
		if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("systemd heard nothing: %v", err)
		}
		return string(buf[:n])
	}
}

func TestNotify(t *testing.T) {
	log := newLogging(&output{}, false).Logger
	if n := newNotifier(log); n != nil {
		t.Error("there is a notifier without a service manager")
	}
	path, receive := notifySocket(t)
	t.Setenv("NOTIFY_SOCKET", path)
	n := newNotifier(log)
	n.send(reloading())
	if got := receive(); !regexp.MustCompile(`^RELOADING=1\nMONOTONIC_USEC=[1-9]\d*\n$`).MatchString(got) {
		t.Errorf("systemd heard %q", got)
	}
	n.send("STATUS=x")
	if got := receive(); got != "STATUS=x" {
		t.Errorf("systemd heard %q", got)
	}
}

const unitFile = "../../systemd/picketd.service"

// The unit must not take the agent out of the host's mount namespace, nor let an end of the agent end anything else.
func TestUnit(t *testing.T) {
	data, err := os.ReadFile(unitFile)
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string]string{}
	for line := range strings.Lines(string(data)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(name, "#") {
			settings[name] = value
		}
	}
	for name, want := range map[string]string{
		"Type": "notify", "KillMode": "process", "Restart": "on-failure", "RuntimeDirectoryPreserve": "yes", "ExecReload": "kill -HUP $MAINPID",
	} {
		if settings[name] != want {
			t.Errorf("%s=%s, want %s", name, settings[name], want)
		}
	}
	if seconds, err := strconv.Atoi(settings["WatchdogSec"]); err != nil || seconds < 30 {
		t.Errorf("WatchdogSec=%s", settings["WatchdogSec"])
	}
	if seconds, err := strconv.Atoi(settings["TimeoutStopSec"]); err != nil || seconds < 50 { // pods that end with the host: 30 s, 10 s, and a little
		t.Errorf("TimeoutStopSec=%s", settings["TimeoutStopSec"])
	}
	if !strings.Contains(settings["After"], "containerd.service") || !strings.Contains(settings["After"], "network-online.target") {
		t.Errorf("After=%s: what pods need to end would be gone before them", settings["After"])
	}
	// systemd.exec(5): what sets up a mount namespace, alone or by implication.
	apart := regexp.MustCompile(`^(Private|Protect|ReadWrite|ReadOnly|Inaccessible|Exec|NoExec)(Tmp|Devices|Mounts|Users|IPC|System|Home|Proc|Kernel.*|ControlGroups|Paths)$|^(RootDirectory|RootImage|RootHash|MountImages|ExtensionImages|BindPaths|BindReadOnlyPaths|TemporaryFileSystem|MountFlags|MountAPIVFS|DynamicUser|ProcSubset|LogNamespace|NetworkNamespacePath|PrivateNetwork|RestrictNamespaces)$`)
	for name := range settings {
		if apart.MatchString(name) {
			t.Errorf("%s gives the agent namespaces of its own", name)
		}
	}
}

// systemd itself finds nothing wrong with the unit. (It wants to see the program, which is not installed here.)
func TestUnitVerifies(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	data, err := os.ReadFile(unitFile)
	if err != nil {
		t.Fatal(err)
	}
	unit := filepath.Join(t.TempDir(), "picketd.service")
	if err := os.WriteFile(unit, []byte(strings.Replace(string(data), "ExecStart=picketd", "ExecStart=/bin/true", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(analyze, "verify", unit).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

// A shutdown does not stop the pods' slices, which would end all containers at once.
func TestSlicesOutlastTheAgent(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	units, err := filepath.Abs("../../systemd")
	if err != nil {
		t.Fatal(err)
	}
	stoppedIn := func(units, slice string) bool {
		t.Helper()
		c := exec.Command(analyze, "verify", slice)
		c.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+units+":", "SYSTEMD_LOG_LEVEL=debug")
		out, err := c.CombinedOutput()
		_, about, found := strings.Cut(string(out), "-> Unit "+slice)
		if err != nil || !found {
			t.Fatalf("systemd-analyze verify %s: %v\n%s", slice, err, out)
		}
		return strings.Contains(about, "Conflicts: shutdown.target")
	}
	for _, slice := range []string{"picket.slice", "picket-pod1_2.slice"} {
		if stoppedIn(units, slice) {
			t.Errorf("a shutdown stops %s", slice)
		}
		if !stoppedIn(t.TempDir(), slice) {
			t.Errorf("without our files a shutdown does not stop %s: the test sees nothing", slice)
		}
	}
}

// systemd says of itself whether it stops the host. Where there is none, or it does not answer, only the service is stopped.
func TestHostGoesDownBySystemd(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	for name, c := range map[string]struct {
		script string
		want   bool
	}{
		"stopping": {"[ \"$*\" = is-system-running ] && echo stopping; exit 1", true},
		"running":  {"echo running", false},
		"degraded": {"echo degraded; exit 1", false},
		"starting": {"echo starting; exit 1", false},
		"failed":   {"echo Failed to connect to bus >&2; exit 1", false},
	} {
		if err := os.WriteFile(filepath.Join(dir, "systemctl"), []byte("#!/bin/sh\n"+c.script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		if got := hostGoesDown(dir); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
		if hostGoesDown(dir + "/nowhere") {
			t.Errorf("%s: without systemd", name)
		}
	}
}
