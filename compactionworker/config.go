package compactionworker

import (
	"errors"
	"time"

	"github.com/kilndb/kiln/block"
)

// Config configures a Worker.
type Config struct {
	// Name of the worker, unique for a run of the process. It is written into the blocks.
	Name string
	// Jobs is how many jobs run at a time.
	Jobs int
	// PollWait is the longest wait of one poll.
	PollWait time.Duration
	// StopGrace is how long running jobs may go on when the worker is told to stop.
	StopGrace time.Duration

	// Memory is how much memory a job may take: MemoryBuffer for its output, the rest is the budget of the merge. A job
	// that needs more fails.
	Memory int64
	// MemoryBuffer is how much of an output is kept in memory; what is larger goes to a file in TempDir.
	MemoryBuffer int64
	// MaxOutput bounds one output.
	MaxOutput int64
	// TempDir is the folder for temporary files; empty is the system's.
	TempDir string
}

// leastBudget is the smallest budget of a merge that is of any use: the tables of one busy service take as much.
const leastBudget = 32 << 20

// DefaultConfig returns the configuration of a worker with that name.
func DefaultConfig(name string) Config {
	return Config{
		Name:         name,
		Jobs:         1,
		PollWait:     20 * time.Second,
		StopGrace:    15 * time.Second,
		Memory:       block.DefaultBudget + 8<<20,
		MemoryBuffer: 8 << 20,
		MaxOutput:    2 << 30,
	}
}

// Validate returns what is wrong with the configuration.
func (c Config) Validate() error {
	switch {
	case c.Name == "":
		return errors.New("compaction worker: a name is required")
	case c.Jobs < 1 || c.Jobs > 256:
		return errors.New("compaction worker: jobs must be between 1 and 256")
	case c.PollWait < 0 || c.PollWait > 30*time.Second:
		return errors.New("compaction worker: the wait of a poll must be between 0 and 30s")
	case c.StopGrace < 0:
		return errors.New("compaction worker: the grace for stopping must not be negative")
	case c.MemoryBuffer < 0 || c.MaxOutput < 1:
		return errors.New("compaction worker: the sizes of outputs must be positive")
	case c.Memory-c.MemoryBuffer < leastBudget:
		return errors.New("compaction worker: a job needs 32 MiB of memory besides the buffer of its output")
	}
	return nil
}
