package cluster

import (
	"context"
	"log"
	"log/slog"
	"strings"
)

// memberlistLevels are the marks that memberlist puts before its lines.
var memberlistLevels = map[string]slog.Level{
	"[DEBUG]": slog.LevelDebug, "[INFO]": slog.LevelInfo, "[WARN]": slog.LevelWarn, "[ERR]": slog.LevelError, "[ERROR]": slog.LevelError,
}

// memberlistLog hands memberlist's lines to slog, with their own levels.
func memberlistLog(to *slog.Logger) *log.Logger { return log.New(logLines{to}, "", 0) }

type logLines struct{ to *slog.Logger }

func (l logLines) Write(b []byte) (int, error) {
	line := strings.TrimSpace(string(b))
	level := slog.LevelInfo
	if mark, rest, found := strings.Cut(line, " "); found {
		if marked, known := memberlistLevels[mark]; known {
			level, line = marked, rest
		}
	}
	l.to.Log(context.Background(), level, strings.TrimPrefix(line, "memberlist: "), "from", "memberlist")
	return len(b), nil
}
