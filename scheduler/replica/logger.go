package replica

import (
	"context"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// raftLogger gives the libraries' log lines to slog, one level lower: what they
// call an error (a peer does not answer) is everyday for a cluster. What stops
// this server is logged by the replica itself.
type raftLogger struct {
	hclog.Logger // answers what is not overridden: nothing
	log          *slog.Logger
	name         string
}

func newRaftLogger(log *slog.Logger, name string) hclog.Logger {
	return &raftLogger{Logger: hclog.NewNullLogger(), log: log.With("part", name), name: name}
}

func (l *raftLogger) emit(level slog.Level, msg string, args []any) {
	l.log.Log(context.Background(), level, msg, args...)
}

// Log writes one line.
func (l *raftLogger) Log(level hclog.Level, msg string, args ...any) {
	switch {
	case level >= hclog.Warn:
		l.Warn(msg, args...)
	case level == hclog.Info:
		l.Info(msg, args...)
	}
}

// Trace writes nothing.
func (l *raftLogger) Trace(string, ...any) {}

// Debug writes nothing.
func (l *raftLogger) Debug(string, ...any) {}

// Info writes a line at slog's debug level.
func (l *raftLogger) Info(msg string, args ...any) { l.emit(slog.LevelDebug, msg, args) }

// Warn writes a line at slog's info level.
func (l *raftLogger) Warn(msg string, args ...any) { l.emit(slog.LevelInfo, msg, args) }

// Error writes a line at slog's warning level.
func (l *raftLogger) Error(msg string, args ...any) { l.emit(slog.LevelWarn, msg, args) }

// IsTrace reports that traces are dropped.
func (l *raftLogger) IsTrace() bool { return false }

// IsDebug reports that debug lines are dropped.
func (l *raftLogger) IsDebug() bool { return false }

// IsInfo reports whether Info writes anything.
func (l *raftLogger) IsInfo() bool { return l.log.Enabled(context.Background(), slog.LevelDebug) }

// IsWarn reports whether Warn writes anything.
func (l *raftLogger) IsWarn() bool { return l.log.Enabled(context.Background(), slog.LevelInfo) }

// IsError reports whether Error writes anything.
func (l *raftLogger) IsError() bool { return l.log.Enabled(context.Background(), slog.LevelWarn) }

// Name returns the logger's name.
func (l *raftLogger) Name() string { return l.name }

// With returns a logger that adds the given pairs to each line.
func (l *raftLogger) With(args ...any) hclog.Logger {
	return &raftLogger{Logger: l.Logger, log: l.log.With(args...), name: l.name}
}

// Named returns the logger itself: one name is enough.
func (l *raftLogger) Named(string) hclog.Logger { return l }

// ResetNamed returns the logger itself.
func (l *raftLogger) ResetNamed(string) hclog.Logger { return l }
