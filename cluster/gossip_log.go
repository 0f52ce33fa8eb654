package cluster

import (
	"context"
	"log"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// memberlistLevels are the marks that memberlist puts before its lines.
var memberlistLevels = map[string]slog.Level{
	"[DEBUG]": slog.LevelDebug, "[INFO]": slog.LevelInfo, "[WARN]": slog.LevelWarn, "[ERR]": slog.LevelError, "[ERROR]": slog.LevelError,
}

// refusals begin the lines of memberlist's that tell of traffic it did not take; it has no other word of that. Tests send all of it.
var refusals = []string{
	"Decrypt packet failed", "discarding packet with unacceptable label", "discarding stream with unacceptable label",
	"failed to receive", "Failed to decode", "Failed to decompress", "Failed to read remote state", "Failed to receive user message",
	"cannot decode label", "label header cannot be empty", "msg type", "missing message type", "Received invalid msgType",
	"Got invalid checksum", "Compound request had", "Ignoring an alive message", "Failed push/pull merge",
}

const (
	// sameLines is how many lines of one kind go to the log in sameEvery: whoever can send packets writes them.
	sameLines = 10
	sameEvery = time.Minute
	// maxLineKinds bounds the kinds that are told apart.
	maxLineKinds = 256
)

// memberlistLog hands memberlist's lines to slog, with their own levels, and calls refused for those about refused traffic.
func memberlistLog(to *slog.Logger, refused func()) *log.Logger {
	return log.New(&logLines{to: to, refused: refused, kinds: map[string]*lineKind{}}, "", 0)
}

type logLines struct {
	to      *slog.Logger
	refused func()

	mu    sync.Mutex
	kinds map[string]*lineKind
}

// lineKind counts lines that begin alike.
type lineKind struct {
	since        time.Time
	seen, hidden int
}

func (l *logLines) Write(b []byte) (int, error) {
	line := strings.TrimSpace(string(b))
	level := slog.LevelInfo
	if mark, rest, found := strings.Cut(line, " "); found {
		if marked, known := memberlistLevels[mark]; known {
			level, line = marked, rest
		}
	}
	line = strings.TrimPrefix(line, "memberlist: ")
	if isRefusal(line) {
		l.refused()
	}
	if hidden, shown := l.show(line, time.Now()); shown {
		args := []any{"from", "memberlist"}
		if hidden > 0 {
			args = append(args, "likeIt", hidden)
		}
		l.to.Log(context.Background(), level, line, args...)
	}
	return len(b), nil
}

// isRefusal leaves out what the guard refused and counted.
func isRefusal(line string) bool {
	return !strings.Contains(line, errRefusedStream.Error()) &&
		slices.ContainsFunc(refusals, func(start string) bool { return strings.HasPrefix(line, start) })
}

// show says whether a line is worth another one of its kind, and how many were not.
func (l *logLines) show(line string, now time.Time) (hidden int, shown bool) {
	kind := line[:min(len(line), 24)]
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.kinds[kind]
	if k == nil {
		if len(l.kinds) >= maxLineKinds {
			clear(l.kinds)
		}
		k = &lineKind{since: now}
		l.kinds[kind] = k
	}
	if now.Sub(k.since) >= sameEvery {
		hidden = k.hidden
		*k = lineKind{since: now}
	}
	if k.seen++; k.seen > sameLines {
		k.hidden++
		return 0, false
	}
	return hidden, true
}
