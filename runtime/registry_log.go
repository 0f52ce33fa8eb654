package runtime

import (
	"context"
	"io"
	"log/slog"
	"sync"

	"github.com/containerd/log"
	"github.com/sirupsen/logrus"
)

// quiet makes containerd's libraries write to our log: they would use standard error. A hosts.toml that cannot be read, for one,
// is told of nowhere else.
func (r *Runtime) quiet(ctx context.Context) context.Context {
	return log.WithLogger(ctx, r.library.voice.of(r.log))
}

// voice is made once.
type voice struct {
	once  sync.Once
	entry *logrus.Entry
}

func (v *voice) of(l *slog.Logger) *logrus.Entry {
	v.once.Do(func() {
		logger := logrus.New()
		logger.SetOutput(io.Discard)
		logger.SetLevel(logrus.InfoLevel)
		logger.AddHook(forward{l})
		v.entry = logrus.NewEntry(logger)
	})
	return v.entry
}

// forward is a logrus hook. What these libraries say about the course of things is for debugging; their warnings are warnings.
type forward struct{ to *slog.Logger }

func (forward) Levels() []logrus.Level { return logrus.AllLevels }

func (f forward) Fire(e *logrus.Entry) error {
	level := slog.LevelDebug
	if e.Level <= logrus.WarnLevel {
		level = slog.LevelWarn
	}
	var fields []any
	for k, v := range e.Data {
		fields = append(fields, k, v)
	}
	f.to.Log(context.Background(), level, e.Message, fields...)
	return nil
}
