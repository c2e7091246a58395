package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
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
	Metastore           []string      `help:"Addresses of the metastore, for a process that does not play it." placeholder:"ADDRS"`
	Bucket              string        `help:"Object store: file:///dir, s3://bucket?endpoint=..., mem://. Default: a directory under --data-dir." placeholder:"URL"`
	Shards              uint32        `default:"4" help:"Write partitions; the same on every distributor."`
	SelfProfile         bool          `default:"true" negatable:"" help:"Push this process's own CPU and heap profiles to itself."`
	SelfProfileInterval time.Duration `default:"5s" help:"Length of one capture of --self-profile."`
	MultiTenant         bool          `help:"Require a tenant id (header X-Scope-OrgID) with every call."`
	CompactAfter        time.Duration `default:"10s" help:"Compact the segments of a shard when the oldest is this old."`
	DeleteAfter         time.Duration `default:"10m" help:"Delete a replaced object after this time; longer than any query."`
	Retention           time.Duration `default:"0" help:"Delete profiles this long after their own time, such as 720h. Default: never."`
	LogLevel            slog.Level    `default:"INFO" help:"Least level to log: DEBUG, INFO, WARN, ERROR."`
}

// Run serves until the process is told to stop.
func (c *serverCommand) Run(ctx context.Context) error {
	cfg, err := c.config()
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: c.LogLevel}))
	n, err := node.Open(ctx, cfg, node.Env{Log: log, Network: &network{}})
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "\n  kiln is at http://%s\n\n", browsable(n.Addr()))
	return n.Run(ctx)
}

func (c *serverCommand) config() (node.Config, error) {
	roles, err := node.ParseRoles(c.Roles)
	if err != nil {
		return node.Config{}, fmt.Errorf("--roles: %w", err)
	}
	cfg := node.DefaultConfig()
	cfg.DataDir, cfg.HTTP, cfg.RPC, cfg.Advertise = c.DataDir, c.HTTP, c.RPC, c.Advertise
	cfg.Roles, cfg.Metastore, cfg.Bucket, cfg.Shards = roles, c.Metastore, c.Bucket, c.Shards
	cfg.SelfProfile, cfg.SelfProfileInterval, cfg.MultiTenant = c.SelfProfile, c.SelfProfileInterval, c.MultiTenant
	cfg.CompactAfter, cfg.DeleteAfter, cfg.Retention = c.CompactAfter, c.DeleteAfter, c.Retention
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
