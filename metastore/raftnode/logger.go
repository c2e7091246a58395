package raftnode

import (
	"context"
	"io"
	"log"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// logger lets raft log through slog. What raft calls info is of interest to whoever debugs raft, so it is debug here; and
// so are the warnings of a group of one, which are about there being nobody else.
type logger struct {
	to      *slog.Logger
	solo    bool
	name    string
	implied []any
}

var _ hclog.Logger = (*logger)(nil)

func (l *logger) Log(level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug
	switch level {
	case hclog.Warn:
		if !l.solo {
			to = slog.LevelWarn
		}
	case hclog.Error:
		to = slog.LevelError
	}
	l.to.Log(context.Background(), to, msg, args...)
}

func (l *logger) Trace(msg string, args ...any) { l.Log(hclog.Trace, msg, args...) }
func (l *logger) Debug(msg string, args ...any) { l.Log(hclog.Debug, msg, args...) }
func (l *logger) Info(msg string, args ...any)  { l.Log(hclog.Info, msg, args...) }
func (l *logger) Warn(msg string, args ...any)  { l.Log(hclog.Warn, msg, args...) }
func (l *logger) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }

func (l *logger) IsTrace() bool { return false }
func (l *logger) IsDebug() bool { return l.to.Enabled(context.Background(), slog.LevelDebug) }
func (l *logger) IsInfo() bool  { return l.IsDebug() }
func (l *logger) IsWarn() bool  { return l.to.Enabled(context.Background(), slog.LevelWarn) }
func (l *logger) IsError() bool { return l.to.Enabled(context.Background(), slog.LevelError) }

func (l *logger) ImpliedArgs() []any { return l.implied }
func (l *logger) Name() string       { return l.name }

func (l *logger) With(args ...any) hclog.Logger {
	return &logger{l.to.With(args...), l.solo, l.name, append(l.implied[:len(l.implied):len(l.implied)], args...)}
}
func (l *logger) Named(name string) hclog.Logger      { return l.ResetNamed(name) }
func (l *logger) ResetNamed(name string) hclog.Logger { return &logger{l.to, l.solo, name, l.implied} }

func (l *logger) SetLevel(hclog.Level) {} // the handler of slog decides
func (l *logger) GetLevel() hclog.Level {
	if l.IsDebug() {
		return hclog.Debug
	}
	return hclog.Warn
}

func (l *logger) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return slog.NewLogLogger(l.to.Handler(), slog.LevelDebug)
}
func (l *logger) StandardWriter(*hclog.StandardLoggerOptions) io.Writer {
	return l.StandardLogger(nil).Writer()
}
