package raftnode

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"testing"

	"github.com/kilndb/kiln/metastore/fsm"
)

func TestEveryReasonHasAName(t *testing.T) {
	full := &os.PathError{Op: "write", Path: "log.db", Err: syscall.ENOSPC}
	for want, err := range map[string]error{
		"":          nil,
		"halted":    fmt.Errorf("%w: %w", ErrUnavailable, fsm.ErrHalted),
		"disk_full": fmt.Errorf("%w: %w: %w", ErrUnavailable, ErrLog, full),
		"log":       fmt.Errorf("%w: %w: %w", ErrUnavailable, ErrLog, syscall.EIO),
		"state":     fmt.Errorf("%w: %w: %w", ErrUnavailable, fsm.ErrStalled, syscall.EIO),
		"no_leader": fmt.Errorf("%w: %w", ErrUnavailable, ErrNoLeader),
		"apply_lag": fmt.Errorf("%w: leads, but %w", ErrUnavailable, ErrLag),
		"other":     errors.New("closed"),
	} {
		if got := Reason(err); got != want {
			t.Errorf("%v is %q, want %q", err, got, want)
		}
		if want != "" && !slices.Contains(Reasons, want) {
			t.Errorf("%q is not one of the reasons", want)
		}
	}
}
