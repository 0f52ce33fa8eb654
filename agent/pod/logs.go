package pod

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// The kubelet's bounds on what a container may say when it ends.
const (
	messageBytes    = 4096
	messageLogLines = 80
	messageLogBytes = 2048
)

// podLogDir is /var/log/pods/<namespace>_<pod>_<uid>, as log shippers expect it.
func podLogDir(podLogs string, pod *corev1.Pod) string {
	return filepath.Join(podLogs, fmt.Sprintf("%s_%s_%s", pod.Namespace, pod.Name, pod.UID))
}

func (w *Worker) podLogDir() string { return podLogDir(w.cfg.PodLogs, w.pod) }

// LogPath is where picket-logger writes the log of one attempt of a container; podLogs is Config.PodLogs.
func LogPath(podLogs string, pod *corev1.Pod, container string, attempt int) string {
	return filepath.Join(podLogDir(podLogs, pod), container, strconv.Itoa(attempt)+".log")
}

func (w *Worker) logPath(container string, attempt int) string {
	return LogPath(w.cfg.PodLogs, w.pod, container, attempt)
}

// logLink is where /var/log/containers points to an attempt's log. Shippers take the name apart and want 64 hexadecimal
// digits for the container, which our ids are not; their hash is.
func (w *Worker) logLink(container, id string) string {
	sum := sha256.Sum256([]byte(id))
	name := fmt.Sprintf("%s_%s_%s", w.pod.Name, w.pod.Namespace, container)
	suffix := "-" + hex.EncodeToString(sum[:]) + ".log"
	if most := 255 - len(suffix); len(name) > most {
		name = name[:most]
	}
	return filepath.Join(w.cfg.ContainerLogs, name+suffix)
}

// linkLog links the attempt's log. A failure costs a log shipper its view, not the user the container.
func (w *Worker) linkLog(a action) {
	if w.cfg.ContainerLogs == "" || w.cfg.PodLogs == "" {
		return
	}
	link := w.logLink(a.name, a.id)
	err := os.MkdirAll(w.cfg.ContainerLogs, 0o755)
	if err == nil {
		err = os.Symlink(w.logPath(a.name, a.attempt), link)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		w.log.Warn("container's log is not linked", "container", a.name, "error", err)
	}
}

// removeLogs removes an attempt's link and the logs of those before it: the attempt's own is now the previous one.
func (w *Worker) removeLogs(a action) {
	if w.cfg.ContainerLogs != "" {
		if err := os.Remove(w.logLink(a.name, a.id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			w.log.Warn("link to a log stays behind", "container", a.name, "error", err)
		}
	}
	if w.cfg.PodLogs == "" {
		return
	}
	dir := filepath.Dir(w.logPath(a.name, a.attempt))
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // no log was ever written
	}
	for _, e := range entries {
		number, _, _ := strings.Cut(e.Name(), ".") // 3.log, 3.log.<time>, 3.log.<time>.gz
		attempt, err := strconv.Atoi(number)
		if err != nil || attempt >= a.attempt {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			w.log.Warn("old log stays behind", "container", a.name, "error", err)
		}
	}
}

// removeAllLogs removes the logs of a pod, which are in dir, and the links to them.
func (c *Config) removeAllLogs(dir string) error {
	if c.PodLogs == "" {
		return nil
	}
	if c.ContainerLogs != "" {
		if err := c.removeLinks(dir); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("cannot remove the pod's logs: %w", err)
	}
	return nil
}

func (c *Config) removeLinks(dir string) error {
	entries, err := os.ReadDir(c.ContainerLogs)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot list links to logs: %w", err)
	}
	for _, e := range entries {
		link := filepath.Join(c.ContainerLogs, e.Name())
		target, err := os.Readlink(link)
		if err != nil || !strings.HasPrefix(target, dir+"/") {
			continue
		}
		if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot remove the link to a log: %w", err)
		}
	}
	return nil
}

// RemoveLeftovers removes the files, mounts and logs of a pod of which nothing but its uid is known any more. None of its
// containers may exist.
func (c *Config) RemoveLeftovers(uid string) error {
	if err := removeTree(filepath.Join(c.Dir, uid)); err != nil {
		return err
	}
	entries, err := os.ReadDir(c.PodLogs)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot list the pods' logs: %w", err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), "_"+uid) {
			if err := c.removeAllLogs(filepath.Join(c.PodLogs, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// messagePath is the host's side of terminationMessagePath; each attempt has its own.
func (w *Worker) messagePath(container string, attempt int) string {
	return filepath.Join(w.dir, "containers", container, strconv.Itoa(attempt))
}

// makeMessageFile makes it, writable for every user; "" when the container has none.
func (w *Worker) makeMessageFile(a action) (string, error) {
	if a.container.TerminationMessagePath == "" {
		return "", nil
	}
	path := w.messagePath(a.name, a.attempt)
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return "", fmt.Errorf("cannot make the termination message's directory: %w", err)
	}
	if err := os.WriteFile(path, nil, 0o666); err != nil {
		return "", fmt.Errorf("cannot make the termination message's file: %w", err)
	}
	if err := os.Chmod(path, 0o666); err != nil { // the umask
		return "", fmt.Errorf("cannot open the termination message's file: %w", err)
	}
	return path, nil
}

// terminationMessage is what the attempt left in its file, or, with FallbackToLogsOnError and nothing there, its last words.
func (w *Worker) terminationMessage(ctx context.Context, a action) string {
	message := readTail(w.messagePath(a.name, a.attempt), messageBytes)
	fallback := a.container.TerminationMessagePolicy == corev1.TerminationMessageFallbackToLogsOnError
	if message != "" || !fallback || a.code == 0 || w.cfg.PodLogs == "" {
		return message
	}
	// The logger may be a moment behind the exit.
	for range 10 {
		if message = w.lastWords(a); message != "" {
			break
		}
		select {
		case <-ctx.Done():
			return ""
		case <-time.After(50 * time.Millisecond):
		}
	}
	return message
}

// lastWords are the last lines of the attempt's log.
func (w *Worker) lastWords(a action) string {
	lines := strings.SplitAfter(readTail(w.logPath(a.name, a.attempt), 16*messageLogBytes), "\n")
	var text strings.Builder
	for _, line := range lines[max(0, len(lines)-messageLogLines-1):] {
		text.WriteString(criContent(line))
	}
	words := text.String()
	return words[max(0, len(words)-messageLogBytes):]
}

// criContent is the text of a line "2026-01-02T15:04:05.1Z stdout F text\n"; a partial line (P) goes on in the next.
func criContent(line string) string {
	fields := strings.SplitN(line, " ", 4)
	if len(fields) < 4 {
		return ""
	}
	if strings.HasPrefix(fields[2], "P") {
		return strings.TrimSuffix(fields[3], "\n")
	}
	return fields[3]
}

// readTail reads at most the last n bytes of a regular file; a container may have put anything in its place.
func readTail(path string, n int64) string {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		return ""
	}
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	data := make([]byte, n)
	read, _ := f.ReadAt(data, max(0, info.Size()-n)) // a short read is the end of the file
	return string(data[:read])
}
