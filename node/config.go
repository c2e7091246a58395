package node

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	metastoreclient "github.com/kilndb/kiln/metastore/client"
	"github.com/kilndb/kiln/tenant"
)

// Config is what a process is told on its command line.
type Config struct {
	// DataDir holds the metastore's log and state and, unless Bucket says otherwise, the objects.
	DataDir string
	// HTTP is the address of the door: the public API, the page, metrics; and, in a process that does not
	// play every role, the calls of other nodes.
	HTTP string
	// RPC is a separate address for the calls of other nodes. Empty: they use HTTP when Roles is not every
	// role, and there is no such door when it is.
	RPC string
	// Advertise is how other nodes reach this one; by default the address that answers their calls.
	Advertise string
	// Roles that this process plays.
	Roles []Role
	// Metastore lists addresses of nodes that play the metastore, for processes that do not: host:port, or names that
	// stand for several (see package metastore/client).
	Metastore []string
	// Raft says of which group of metastores this process's is a member. Without an address it is alone.
	Raft Raft
	// Bucket is the URL of the object store; by default a directory under DataDir.
	Bucket string
	// Shards is the number of write partitions; the same for every distributor.
	Shards uint32
	// LeafBytes is about how many bytes of objects one part of a query reads; 0 is the query-frontend's default.
	LeafBytes int64
	// PutsPerSecond is how many segments this process may put into the bucket on average, as segment-writer; 0: no limit. Nil:
	// four, where puts cost money, and no limit in a directory.
	PutsPerSecond *float64
	// SelfProfile makes the process push its own profiles to itself.
	SelfProfile bool
	// SelfProfileInterval is the length of one capture.
	SelfProfileInterval time.Duration
	// HeaderTimeout and BodyTimeout bound how long a client may take for the headers and for the body of a request.
	HeaderTimeout time.Duration
	BodyTimeout   time.Duration
	// MaxConnections bounds the connections of one door.
	MaxConnections int
	// MultiTenant requires a tenant id with every call; without it everybody is tenant.Anonymous.
	MultiTenant bool
	// Limits of every tenant, unless LimitsFile says otherwise.
	Limits tenant.Limits
	// LimitsFile is the path of a file with limits per tenant (package overrides); empty: none. Distributors,
	// segment-writers and query-frontends should have the same.
	LimitsFile string
	// CompactAfter is the age at which the oldest segment of a shard is compacted even if it is alone.
	CompactAfter time.Duration
	// DeleteAfter is how long a replaced object stays, for the queries that may still read it.
	DeleteAfter time.Duration
	// SnapshotInterval is how often a snapshot of the index goes to the bucket, and SnapshotsKept how many stay there.
	SnapshotInterval time.Duration
	SnapshotsKept    int
	// SweepDryRun counts objects that nobody names, and leaves them in the bucket.
	SweepDryRun bool
	// Retention is how long profiles of a tenant are kept of whom LimitsFile says nothing, by their own time; 0 is for ever.
	Retention time.Duration
}

// Raft is how a member of the metastore's group meets the others.
type Raft struct {
	// Address to listen on for the others, and Advertise how they reach it, by default the same.
	Address, Advertise string
	// Peers are the addresses of all members, this one included.
	Peers []string
	// Learner has the log and never a vote.
	Learner bool
	// TLS, if set, is for all connections between members.
	TLS TLSFiles
}

// advertised is how the others reach this member.
func (r Raft) advertised() string {
	if r.Advertise != "" {
		return r.Advertise
	}
	return r.Address
}

// check returns what is wrong, by flag.
func (r Raft) check(check func(ok bool, format string, args ...any)) {
	if r.Address == "" {
		check(len(r.Peers) == 0 && r.Advertise == "" && !r.Learner && r.TLS == TLSFiles{}, "--metastore.raft: a member of a group needs an address for the others")
		return
	}
	check(hasPort(r.Address), "--metastore.raft: %q is not host:port", r.Address)
	check(hasHost(r.advertised()), "--metastore.raft-advertise: %q is not host:port by which others reach this member", r.advertised())
	for _, peer := range r.Peers {
		check(hasHost(peer), "--metastore.peers: %q is not host:port", peer)
	}
	check(!r.Learner || len(r.Peers) > 0, "--metastore.learner: it needs --metastore.peers to learn from")
	err := r.TLS.check()
	check(err == nil, "--metastore.raft-tls-cert, -key, -ca: %v", err)
}

func hasPort(addr string) bool {
	_, _, err := net.SplitHostPort(addr)
	return err == nil
}

// hasHost tells whether an address is one that can be dialled from elsewhere.
func hasHost(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	ip := net.ParseIP(host)
	return err == nil && host != "" && (ip == nil || !ip.IsUnspecified())
}

// DefaultConfig is the whole system in one process on ./data.
func DefaultConfig() Config {
	return Config{
		DataDir:             "data",
		HTTP:                "127.0.0.1:4040",
		Roles:               AllRoles(),
		Shards:              4,
		SelfProfile:         true,
		SelfProfileInterval: 5 * time.Second,
		HeaderTimeout:       10 * time.Second,
		BodyTimeout:         time.Minute,
		MaxConnections:      10_000,
		Limits:              tenant.DefaultLimits(),
		CompactAfter:        10 * time.Second,
		DeleteAfter:         10 * time.Minute,
		SnapshotInterval:    time.Hour,
		SnapshotsKept:       24,
	}
}

// maxPutsPerSecond is more than any bucket takes under one prefix.
const maxPutsPerSecond = 100_000

// Validate says which flag is wrong.
func (c Config) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(len(c.Roles) > 0, "--roles: at least one role")
	check(c.plays(Metastore) || len(c.Metastore) > 0, "--metastore: a process that does not play the metastore needs the address of one")
	check(!c.plays(Metastore) || len(c.Metastore) == 0, "--metastore: this process plays the metastore itself")
	for _, addr := range c.Metastore {
		err := metastoreclient.CheckAddress(addr)
		check(err == nil, "--metastore: %v", err)
	}
	check(c.plays(Metastore) || c.Raft.Address == "", "--metastore.raft: this process does not play the metastore")
	c.Raft.check(check)
	check(c.Bucket != "" || c.alone(), "--bucket: a process that is not alone needs the bucket that all share")
	check(c.DataDir != "" || !c.plays(Metastore), "--data-dir: the metastore needs a directory")
	check(c.Shards > 0 && c.Shards <= 1<<16, "--shards: %d is not in 1..65536", c.Shards)
	check(c.PutsPerSecond == nil || *c.PutsPerSecond >= 0 && *c.PutsPerSecond <= maxPutsPerSecond, "--puts-per-second: want 0 to %d", maxPutsPerSecond)
	check(!c.SelfProfile || c.SelfProfileInterval > 0, "--self-profile-interval: %s is not positive", c.SelfProfileInterval)
	check(c.CompactAfter > 0, "--compact-after: %s is not positive", c.CompactAfter)
	check(c.Retention >= 0, "--retention: %s is negative", c.Retention)
	check(c.DeleteAfter > 0, "--delete-after: %s is not positive", c.DeleteAfter)
	check(c.HeaderTimeout > 0 && c.BodyTimeout > 0, "timeouts %s of headers and %s of bodies: both must be positive", c.HeaderTimeout, c.BodyTimeout)
	check(c.MaxConnections > 0, "--max-connections: %d is not positive", c.MaxConnections)
	for flag, addr := range map[string]string{"--http": c.HTTP, "--rpc": c.RPC, "--advertise": c.Advertise} {
		if addr == "" && flag != "--http" {
			continue
		}
		check(hasPort(addr), "%s: %q is not host:port", flag, addr)
	}
	return errors.Join(errs...)
}

func (c Config) plays(r Role) bool { return slices.Contains(c.Roles, r) }

// whole tells whether this process is a system of its own.
func (c Config) whole() bool {
	return !slices.ContainsFunc(AllRoles(), func(r Role) bool { return !c.plays(r) })
}

// alone tells whether there can be no other node: then each role calls the one beside it, and nobody else.
func (c Config) alone() bool { return c.whole() && c.Raft.Address == "" }

// baseLimits are the limits of a tenant of whom no file speaks. One that is alone may ask for all of time and send as fast as it can: there is nobody to
// protect from it but the process, which admission control does.
func (c Config) baseLimits() tenant.Limits {
	l := c.Limits
	l.Retention = c.Retention
	if !c.MultiTenant {
		l.MaxQueryLength, l.Rate = 0, 0
	}
	return l
}

// bucketURL is Bucket or its default.
func (c Config) bucketURL() (string, error) {
	if c.Bucket != "" {
		return c.Bucket, nil
	}
	dir, err := filepath.Abs(filepath.Join(c.DataDir, "bucket"))
	if err != nil {
		return "", fmt.Errorf("--data-dir: %w", err)
	}
	return "file://" + filepath.ToSlash(dir), nil
}

// localBucket tells whether the bucket answers at the speed of a disk, so that writes need not gather.
func (c Config) localBucket() bool {
	return c.Bucket == "" || strings.HasPrefix(c.Bucket, "file:") || strings.HasPrefix(c.Bucket, "mem:")
}
