package main

import (
	"encoding/json"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	adminv1 "github.com/kilndb/kiln/api/kiln/admin/v1"
)

// freeAddresses returns addresses on the loopback at which nobody listens.
func freeAddresses(t *testing.T, n int) (addresses []string) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // all at once, so that they differ
		addresses = append(addresses, l.Addr().String())
	}
	return addresses
}

// trio is three processes with every role over one bucket.
type trio struct {
	t       *testing.T
	bucket  string
	http    []string
	raft    []string
	dirs    []string
	members []*process
}

func newTrio(t *testing.T) *trio {
	c := &trio{t: t, bucket: "file://" + t.TempDir(), members: make([]*process, 3)}
	addresses := freeAddresses(t, 6)
	c.http, c.raft = addresses[:3], addresses[3:]
	for range 3 {
		c.dirs = append(c.dirs, t.TempDir())
	}
	return c
}

// start starts members and waits until all of them are ready: the first may wait for the last.
func (c *trio) start(indexes ...int) {
	c.t.Helper()
	for _, i := range indexes {
		c.members[i] = launch(c.t, "--http", c.http[i], "--bucket", c.bucket, "--data-dir", c.dirs[i], "--compact-after", "500ms",
			"--metastore.raft", c.raft[i], "--metastore.peers", strings.Join(c.raft, ","))
	}
	for _, i := range indexes {
		c.members[i].waitReady()
	}
}

// status is what a member says of the cluster.
func (c *trio) status(i int) *adminv1.GetClusterResponse {
	c.t.Helper()
	var status adminv1.GetClusterResponse
	if err := protojson.Unmarshal([]byte(mustKiln(c.t, "cluster", "--server", c.members[i].url, "-o", "json")), &status); err != nil {
		c.t.Fatal(err)
	}
	return &status
}

// leader returns which member leads.
func (c *trio) leader(asked int) int {
	c.t.Helper()
	for _, m := range c.status(asked).GetMembers() {
		for i, address := range c.raft {
			if m.GetLeads() && m.GetRaftAddress() == address {
				return i
			}
		}
	}
	c.t.Fatal("nobody leads")
	return 0
}

// TestThreeProcessesAreACluster kills one after another of three processes, the leader first, and then all at once, while pushes go
// to whoever is there; and wants every acknowledged one to be there exactly once, wherever it is asked for.
func TestThreeProcessesAreACluster(t *testing.T) {
	c := newTrio(t)
	c.start(0, 1, 2)
	x := newPushes(mostPushes)
	var sent, over atomic.Int64
	var senders sync.WaitGroup
	for range 16 {
		senders.Go(func() {
			for i := int(sent.Add(1) - 1); i < mostPushes && over.Load() == 0; i = int(sent.Add(1) - 1) {
				pause := 50 * time.Millisecond // so that there is something to kill it in
				if x.send(pusher("http://"+c.http[rand.IntN(3)]), i) == 0 {
					pause = 200 * time.Millisecond
				}
				time.Sleep(pause)
			}
		})
	}
	victim := c.leader(0)
	for range 3 {
		x.waitAcked(t, 50) // more: it is killed at work
		c.members[victim].kill()
		next := (victim + 1) % 3
		c.members[next].waitReady()
		c.start(victim)
		victim = next
	}
	x.waitAcked(t, 50)
	for _, p := range c.members {
		p.kill()
	}
	begun := time.Now()
	c.start(0, 1, 2)
	t.Logf("all are ready %v after all were killed", time.Since(begun))
	mustKiln(t, "cluster", "verify", "--server", c.members[1].url) // while they apply
	x.waitAcked(t, 50)
	over.Store(1)
	senders.Wait()
	for _, p := range c.members {
		x.verify(t, p, "at "+p.url)
	}
	waitNoSegments(t, c.members[0])
	for _, p := range c.members {
		x.verify(t, p, "after compaction, at "+p.url)
	}
	if out := mustKiln(t, "cluster", "verify", "--server", c.members[2].url); !strings.Contains(out, "have the same state") {
		t.Errorf("kiln cluster verify says %q", out)
	}
	var report struct{ Problems []any }
	if err := json.Unmarshal([]byte(mustKiln(t, "bucket", "fsck", "--deep", "-o", "json", "--bucket", c.bucket, "--server", c.members[1].url)), &report); err != nil || len(report.Problems) > 0 {
		t.Errorf("fsck: %v %v", err, report)
	}
}

// TestTheGroupIsChangedFromTheCommandLine takes a member out, and another one in under its address.
func TestTheGroupIsChangedFromTheCommandLine(t *testing.T) {
	c := newTrio(t)
	c.start(0, 1, 2)
	server := []string{"--server", c.members[0].url}
	lead := c.leader(0)
	if out := mustKiln(t, append([]string{"cluster", "transfer"}, server...)...); !strings.Contains(out, " leads") || c.leader(0) == lead {
		t.Errorf("kiln cluster transfer says %q, and the leader is %d as before", out, lead)
	}
	lead = c.leader(0)
	other := (lead + 1) % 3
	var id string
	for _, m := range c.status(lead).GetMembers() {
		if m.GetRaftAddress() == c.raft[other] {
			id = m.GetId()
		}
	}
	server = []string{"--server", c.members[lead].url}
	if out := mustKiln(t, append([]string{"cluster", "remove", id}, server...)...); !strings.Contains(out, "removed") {
		t.Errorf("kiln cluster remove says %q", out)
	}
	if _, errs, err := kiln(t, append([]string{"cluster", "remove", id}, server...)...); err == nil || !strings.Contains(errs, "no such member") {
		t.Errorf("removed twice: %v, %s", err, errs)
	}
	c.members[other].stop()
	c.dirs[other] = t.TempDir()
	c.start(other)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		out := mustKiln(t, append([]string{"cluster"}, server...)...)
		if strings.Count(out, "  voter  ")+strings.Count(out, "  leader  ") == 3 && !strings.Contains(out, id) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the emptied member does not vote:\n%s", out)
		}
	}
}
