package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/kilndb/kiln/node"
)

// serverCommand is `kiln server`. Its defaults are node.DefaultConfig's.
type serverCommand struct {
	DataDir             string        `default:"data" help:"Directory of the metastore's log and state, and of the objects unless --bucket is given. Default: ${default}." placeholder:"DIR"`
	HTTP                string        `name:"http" default:"127.0.0.1:4040" help:"Address of the API and the page. Use :4040 to listen on every interface. Default: ${default}." placeholder:"ADDR"`
	RPC                 string        `name:"rpc" help:"Separate address for the calls of other nodes. Default: --http, when --roles names some roles." placeholder:"ADDR"`
	Advertise           string        `help:"host:port under which other nodes reach this one. Default: the address it listens on." placeholder:"ADDR"`
	Roles               string        `default:"all" help:"Roles to play, comma-separated: metastore, segmentwriter, distributor, compactionworker, querybackend, queryfrontend. Default: ${default}." placeholder:"LIST"`
	Metastore           []string      `help:"Addresses of the metastore, for a process that does not play it: host:port, dns+host:port for all addresses that the host has, dnssrv+_name._tcp.host for all that the service has." placeholder:"ADDRS"`
	Raft                raftFlags     `embed:"" prefix:"metastore."`
	Bucket              string        `help:"Object store: file:///dir, s3://bucket?endpoint=..., mem://. Default: a directory under --data-dir." placeholder:"URL"`
	Shards              uint32        `default:"4" help:"Write partitions; the same on every distributor."`
	PutsPerSecond       *float64      `help:"Segments that this process puts into the bucket a second, on average: with fewer of them pushes wait longer, up to 2s. 0: no limit. Default: 4, and no limit in a directory." placeholder:"N"`
	SelfProfile         bool          `default:"true" negatable:"" help:"Push this process's own CPU and heap profiles to itself."`
	SelfProfileInterval time.Duration `default:"5s" help:"Length of one capture of --self-profile."`
	MultiTenant         bool          `help:"Require a tenant id (header X-Scope-OrgID) with every call."`
	MaxConnections      int           `default:"10000" help:"Connections that one address takes; beyond them those that are idle make room."`
	LimitsFile          string        `help:"YAML file with limits for all tenants (defaults) and for some (tenants). Read again when it changes, and on SIGHUP." placeholder:"FILE"`
	CompactAfter        time.Duration `default:"10s" help:"Compact the segments of a shard when the oldest is this old."`
	DeleteAfter         time.Duration `default:"10m" help:"Delete a replaced object after this time; longer than any query."`
	SnapshotInterval    time.Duration `default:"1h" help:"Store a snapshot of the index in the bucket this often; more often while replaced objects wait for it to be deleted."`
	SnapshotsKept       int           `default:"24" help:"Snapshots of the index that stay in the bucket."`
	SweepDryRun         bool          `help:"Count objects that nobody names (kiln_metastore_orphans) and leave them in the bucket."`
	Retention           time.Duration `default:"0" help:"Delete profiles this long after their own time, such as 720h, where the limits file does not say. Default: never."`
	LogLevel            slog.Level    `default:"INFO" help:"Least level to log: DEBUG, INFO, WARN, ERROR."`
}

// raftFlags make the metastore of this process a member of a group.
type raftFlags struct {
	Raft          string   `help:"Address to listen on for other members of the metastore's group. Default: none, the metastore is alone." placeholder:"ADDR"`
	RaftAdvertise string   `help:"host:port under which the other members reach this one. Default: --metastore.raft." placeholder:"ADDR"`
	Peers         []string `help:"Addresses (--metastore.raft) of all members of the group, this one included; the same for each." placeholder:"ADDRS"`
	Learner       bool     `help:"Follow the group's log without ever voting."`
	RaftTLSCert   string   `name:"raft-tls-cert" help:"PEM file of this member's certificate: members then talk over TLS." placeholder:"FILE"`
	RaftTLSKey    string   `name:"raft-tls-key" help:"PEM file of its key." placeholder:"FILE"`
	RaftTLSCA     string   `name:"raft-tls-ca" help:"PEM file of the authorities whose members are let in." placeholder:"FILE"`
}

func (f raftFlags) config() node.Raft {
	return node.Raft{
		Address: f.Raft, Advertise: f.RaftAdvertise, Peers: f.Peers, Learner: f.Learner,
		TLS: node.TLSFiles{Cert: f.RaftTLSCert, Key: f.RaftTLSKey, CA: f.RaftTLSCA},
	}
}

// Run serves until the process is told to stop.
func (c *serverCommand) Run(ctx context.Context) error {
	cfg, err := c.config()
	if err != nil {
		return err
	}
	relax()
	useHugePages()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: c.LogLevel}))
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	n, err := node.Open(ctx, cfg, node.Env{Log: log, Network: &network{}, Hangups: hangups})
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "\n  kiln is at http://%s\n\n", browsable(n.Addr()))
	return within(ctx, stopWithin, n.Run)
}

// stopWithin is when a process that was told to stop ends in any case. What still hangs then, on a disk for instance, holds nothing that
// was acknowledged.
const stopWithin = 29 * time.Second

// within runs until run returns, or until limit after ctx has ended.
func within(ctx context.Context, limit time.Duration, run func(context.Context) error) error {
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-ended:
		return err
	case <-time.After(limit):
		return fmt.Errorf("still running %s after it was told to stop", limit)
	}
}

func (c *serverCommand) config() (node.Config, error) {
	roles, err := node.ParseRoles(c.Roles)
	if err != nil {
		return node.Config{}, fmt.Errorf("--roles: %w", err)
	}
	cfg := node.DefaultConfig()
	cfg.DataDir, cfg.HTTP, cfg.RPC, cfg.Advertise = c.DataDir, c.HTTP, c.RPC, c.Advertise
	cfg.Roles, cfg.Metastore, cfg.Bucket, cfg.Shards = roles, c.Metastore, c.Bucket, c.Shards
	cfg.PutsPerSecond = c.PutsPerSecond
	cfg.SelfProfile, cfg.SelfProfileInterval, cfg.MultiTenant = c.SelfProfile, c.SelfProfileInterval, c.MultiTenant
	cfg.MaxConnections, cfg.LimitsFile = c.MaxConnections, c.LimitsFile
	cfg.CompactAfter, cfg.DeleteAfter, cfg.Retention = c.CompactAfter, c.DeleteAfter, c.Retention
	cfg.SnapshotInterval, cfg.SnapshotsKept = c.SnapshotInterval, c.SnapshotsKept
	cfg.SweepDryRun, cfg.Raft = c.SweepDryRun, c.Raft.config()
	return cfg, nil
}

// browsable is an address that a browser on this machine can open.
func browsable(addr net.Addr) string {
	if tcp, ok := addr.(*net.TCPAddr); ok && (tcp.IP.IsUnspecified() || tcp.IP.IsLoopback()) {
		return fmt.Sprintf("localhost:%d", tcp.Port)
	}
	return addr.String()
}

// network is the operating system's.
type network struct{ net.Dialer }

// Listen opens a TCP port.
func (*network) Listen(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }
