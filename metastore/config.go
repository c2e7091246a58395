package metastore

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/kilndb/kiln/internal/failpoint"
	"github.com/kilndb/kiln/metastore/compaction"
	"github.com/kilndb/kiln/metastore/placement"
	"github.com/kilndb/kiln/metastore/raftnode"
)

// Config configures a member of the metastore.
type Config struct {
	// DataDir is the data directory of the process; the metastore's files are in its folder "metastore".
	DataDir string
	// Raft says which member this is. Its Dir and Failpoints are set by Open.
	Raft raftnode.Config

	// Failpoints has the member fail where a test wants it to; nil fails nowhere.
	Failpoints *failpoint.Set

	// Levels says when objects are compacted, one row per level.
	Levels []compaction.Level
	// JobLease is how long a worker keeps a job without a renewal.
	JobLease time.Duration
	// MaxWaitingJobs bounds the jobs that wait for a worker. Entries beyond it wait in the index.
	MaxWaitingJobs int

	// Grace is how long a replaced object stays in the bucket. It must be longer than any query.
	Grace time.Duration
	// Snapshots says when snapshots go to the bucket.
	Snapshots SnapshotConfig
	// Sweep says when objects that nobody names leave it.
	Sweep SweepConfig

	// Retention says how long the data of a service is kept, by the time of its profiles; 0 is for ever. It is asked by
	// the leader, may be called concurrently and may change its answers. Nil: everything is kept for ever.
	Retention func(tenant, service string) time.Duration
	// RetentionInterval is how often what is too old is looked for.
	RetentionInterval time.Duration
	// RewriteAfter is how long an object may hold data that retention dropped beside other data before it is rewritten.
	RewriteAfter time.Duration

	// Placement says when tenants and services are divided into more shards.
	Placement placement.Config
	// MemberLease is how long a member of the cluster is listed after it announced itself.
	MemberLease time.Duration
}

// DefaultConfig returns the configuration of a group of one that keeps its files under dataDir.
func DefaultConfig(dataDir string) Config {
	return Config{
		DataDir: dataDir,
		Raft:    raftnode.DefaultConfig(""),
		Levels: []compaction.Level{
			{Level: 0, MinSources: 20, MaxAge: 10 * time.Second, MaxSources: 20, MaxBytes: 256 << 20},
		},
		JobLease:       15 * time.Second,
		MaxWaitingJobs: 256,
		Grace:          10 * time.Minute,
		Snapshots:      SnapshotConfig{Interval: time.Hour, Entries: 100_000, Keep: 24},
		Sweep:          SweepConfig{Interval: time.Hour, Age: 24 * time.Hour, Apart: time.Hour},
		Placement:      placement.DefaultConfig(),
		MemberLease:    15 * time.Second,

		RetentionInterval: time.Minute,
		RewriteAfter:      24 * time.Hour,
	}
}

// dir is the folder of all of the metastore's files.
func (c Config) dir() string { return filepath.Join(c.DataDir, "metastore") }

// Validate returns what is wrong with the configuration.
func (c Config) Validate() error {
	switch {
	case c.DataDir == "":
		return errors.New("metastore: a data directory is required")
	case c.JobLease <= 0 || c.MemberLease <= 0 || c.Grace <= 0:
		return errors.New("metastore: leases and grace must be positive")
	case c.Snapshots.Interval <= 0 || c.Snapshots.Entries == 0 || c.Snapshots.Keep < 1:
		return errors.New("metastore: snapshots in the bucket need an interval, a number of entries, and one that is kept")
	case c.Sweep.Interval <= 0 || c.Sweep.Age <= 0 || c.Sweep.Apart <= 0:
		return errors.New("metastore: the interval of the sweep and the age of orphans must be positive")
	case c.Placement.ShardRate <= 0 || c.Placement.Calm <= 0:
		return errors.New("metastore: what a shard takes, and how long shards are kept, must be positive")
	case c.Retention != nil && c.RetentionInterval <= 0 || c.RewriteAfter < 0:
		return errors.New("metastore: the interval of retention must be positive, and the delay of rewriting not negative")
	case c.MaxWaitingJobs <= 0:
		return errors.New("metastore: the number of waiting jobs must be positive")
	}
	for i, l := range c.Levels {
		if i > 0 && l.Level <= c.Levels[i-1].Level {
			return fmt.Errorf("metastore: levels are not in order at level %d", l.Level)
		}
		if l.MinSources < 1 || l.MaxSources < l.MinSources || l.MaxAge <= 0 || l.MaxBytes == 0 {
			return fmt.Errorf("metastore: level %d needs 1 <= min <= max sources, an age and a size", l.Level)
		}
	}
	return nil
}
