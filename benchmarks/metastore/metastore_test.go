package metastore

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	adminv1 "github.com/kilndb/kiln/api/kiln/admin/v1"
	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	"github.com/kilndb/kiln/api/kiln/metastore/v1/metastorev1connect"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/benchmarks/workload"
	"github.com/kilndb/kiln/metastore"
	"github.com/kilndb/kiln/metastore/client"
	"github.com/kilndb/kiln/objstore/memory"
)

// serve runs a metastore over dir until stop, and returns how long it took until it was ready.
func serve(b *testing.B, dir string) (m *metastore.Metastore, ready time.Duration, stop func()) {
	b.Helper()
	begun := time.Now()
	cfg := metastore.DefaultConfig(dir)
	cfg.MaxWaitingJobs = 1 // nobody takes jobs here
	m, err := metastore.Open(cfg, memory.New(), slog.New(slog.NewTextHandler(io.Discard, nil)), prometheus.NewRegistry())
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	for m.Ready() != nil {
		if time.Since(begun) > 5*time.Minute {
			b.Fatalf("not ready: %v", m.Ready())
		}
		time.Sleep(time.Millisecond)
	}
	return m, time.Since(begun), func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	}
}

// loopback is the operating system's network.
type loopback struct{ net.Dialer }

// Listen opens a TCP port.
func (*loopback) Listen(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }

// three runs a group of three on loopback until stop, and returns the member that leads and one that follows.
func three(b *testing.B) (lead, follower *metastore.Metastore, stop func()) {
	b.Helper()
	var peers []string
	for range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0") // an address that is free
		if err != nil {
			b.Fatal(err)
		}
		peers = append(peers, l.Addr().String())
		if err := l.Close(); err != nil {
			b.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	var members []*metastore.Metastore
	for _, address := range peers {
		cfg := metastore.DefaultConfig(b.TempDir())
		cfg.MaxWaitingJobs = 1 // nobody takes jobs here
		cfg.Raft.Address, cfg.Raft.Service, cfg.Raft.Network, cfg.Raft.Peers = address, "unused:1", &loopback{}, peers
		m, err := metastore.Open(cfg, memory.New(), slog.New(slog.NewTextHandler(io.Discard, nil)), prometheus.NewRegistry())
		if err != nil {
			b.Fatal(err)
		}
		members = append(members, m)
		running.Go(func() {
			if err := m.Run(ctx); err != nil {
				b.Error(err)
			}
		})
	}
	for begun := time.Now(); lead == nil; time.Sleep(time.Millisecond) {
		if time.Since(begun) > time.Minute {
			b.Fatal("no member leads")
		}
		for _, m := range members {
			if m.Ready() == nil && add(m, workload.Entry(0)) == nil {
				lead = m
			} else {
				follower = m
			}
		}
	}
	return lead, follower, func() {
		cancel()
		running.Wait()
	}
}

func add(m *metastore.Metastore, entries ...*storagev1.BlockMeta) error {
	_, err := m.Index().AddSegments(context.Background(), connect.NewRequest(&metastorev1.AddSegmentsRequest{Segments: entries}))
	return err
}

// fill adds entries [from, to) from several callers, batch by batch.
func fill(b *testing.B, m *metastore.Metastore, from, to, batch, callers int) {
	b.Helper()
	next := atomic.Int64{}
	next.Store(int64(from))
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for {
				first := int(next.Add(int64(batch))) - batch
				if first >= to {
					return
				}
				var entries []*storagev1.BlockMeta
				for i := first; i < min(to, first+batch); i++ {
					entries = append(entries, workload.Entry(i))
				}
				if err := add(m, entries...); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
}

// BenchmarkCommit measures registration with one member and with three: in batches of 100 and one by one, from 64 callers.
func BenchmarkCommit(b *testing.B) {
	for _, c := range []struct{ members, entries, batch, callers int }{{1, 200_000, 100, 64}, {1, 20_000, 1, 64}, {3, 200_000, 100, 64}, {3, 20_000, 1, 64}} {
		b.Run(fmt.Sprintf("members=%d/batch=%d/callers=%d", c.members, c.batch, c.callers), func(b *testing.B) {
			for range b.N {
				var m *metastore.Metastore
				var stop func()
				if c.members == 1 {
					m, _, stop = serve(b, b.TempDir())
				} else {
					m, _, stop = three(b)
				}
				begun := time.Now()
				fill(b, m, 0, c.entries, c.batch, c.callers)
				took := time.Since(begun).Seconds()
				b.ReportMetric(float64(c.entries)/took, "entries/s")
				b.ReportMetric(float64(c.entries/c.batch)/took, "calls/s")
				stop()
			}
		})
	}
}

// arrive adds one entry every pause until stop, and returns the longest and the 99th percentile of their latencies.
func arrive(b *testing.B, m *metastore.Metastore, from int, pause time.Duration) (stop func() (most, p99 time.Duration)) {
	done := make(chan struct{})
	var mu sync.Mutex
	var took []time.Duration
	var calls sync.WaitGroup
	calls.Go(func() {
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for n := from; ; n++ {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			calls.Go(func() {
				begun := time.Now()
				if err := add(m, workload.Entry(n)); err != nil {
					b.Error(err)
				}
				mu.Lock()
				took = append(took, time.Since(begun))
				mu.Unlock()
			})
		}
	})
	return func() (most, p99 time.Duration) {
		close(done)
		calls.Wait()
		slices.Sort(took)
		return took[len(took)-1], took[len(took)*99/100]
	}
}

// BenchmarkPlan measures Find over 100,000 entries, in a window of an hour, while 500 entries arrive each second.
func BenchmarkPlan(b *testing.B) {
	const n = 100_000
	m, _, stop := serve(b, b.TempDir())
	defer stop()
	fill(b, m, 0, n, 500, 4)
	last := int64((n/workload.EntryTenants)-1) * int64(15*time.Second)
	for name, selector := range map[string]string{"service": `{service_name="service-03"}`, "regex": `{service_name=~"service-.3"}`, "all": "{}"} {
		b.Run(name, func(b *testing.B) {
			for range b.N {
				finish := arrive(b, m, n, 2*time.Millisecond)
				var took []time.Duration
				found := 0
				for begun := time.Now(); time.Since(begun) < 3*time.Second; {
					at := time.Now()
					answer, err := m.Index().Find(context.Background(), connect.NewRequest(&metastorev1.FindRequest{
						Tenants: []string{fmt.Sprintf("tenant-%d", len(took)%workload.EntryTenants)}, Start: last - int64(time.Hour), End: last, Selector: selector,
					}))
					if err != nil {
						b.Fatal(err)
					}
					took = append(took, time.Since(at))
					found += len(answer.Msg.GetEntries())
					time.Sleep(2 * time.Millisecond)
				}
				_, arrival := finish()
				slices.Sort(took)
				b.ReportMetric(float64(found)/float64(len(took)), "entries/answer")
				b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
				b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
				b.ReportMetric(float64(arrival.Microseconds())/1000, "add-p99-ms")
			}
		})
	}
}

// BenchmarkRestart measures memory, a snapshot and a restart with KILN_ENTRIES entries, a million if it is not set.
func BenchmarkRestart(b *testing.B) {
	n := 1_000_000
	if set, err := strconv.Atoi(os.Getenv("KILN_ENTRIES")); err == nil {
		n = set
	}
	for range b.N {
		dir := b.TempDir()
		m, _, stop := serve(b, dir)
		before := heap()
		fill(b, m, 0, n, 500, 4)
		b.ReportMetric(float64(heap()-before)/float64(n), "heap-B/entry")

		finish := arrive(b, m, n, 2*time.Millisecond)
		begun := time.Now()
		if err := m.Snapshot(context.Background()); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(begun).Seconds(), "snapshot-s")
		most, p99 := finish()
		b.ReportMetric(float64(most.Milliseconds()), "add-max-ms")
		b.ReportMetric(float64(p99.Milliseconds()), "add-p99-ms")
		stop()

		_, ready, stop := serve(b, dir)
		b.ReportMetric(ready.Seconds(), "restart-s")
		stop()
	}
}

// BenchmarkDelete measures the deletion of one tenant of ten, of 100,000 entries: for so long nothing else is applied.
func BenchmarkDelete(b *testing.B) {
	for range b.N {
		m, _, stop := serve(b, b.TempDir())
		fill(b, m, 0, 100_000, 500, 4)
		begun := time.Now()
		answer, err := m.Deletions().Delete(context.Background(), connect.NewRequest(&adminv1.DeleteRequest{Tenant: "tenant-3"}))
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(time.Since(begun).Milliseconds()), "ms")
		b.ReportMetric(float64(answer.Msg.GetDeletion().GetObjects()), "entries")
		stop()
	}
}

func heap() uint64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

// BenchmarkPages measures Find of a tenant's 10,000 entries from another process, in pages, and what of that is writing the entries.
func BenchmarkPages(b *testing.B) {
	m, _, stop := serve(b, b.TempDir())
	defer stop()
	fill(b, m, 0, 10_000*workload.EntryTenants, 500, 4)
	mux := http.NewServeMux()
	mux.Handle(metastorev1connect.NewIndexPagesServiceHandler(m.IndexPages()))
	door := httptest.NewUnstartedServer(mux)
	door.Config.Protocols = new(http.Protocols)
	door.Config.Protocols.SetUnencryptedHTTP2(true)
	door.Start()
	defer door.Close()
	transport := &http.Transport{Protocols: door.Config.Protocols}
	defer transport.CloseIdleConnections()
	question := &metastorev1.FindRequest{Tenants: []string{"tenant-1"}}
	find := func(b *testing.B, from interface {
		Find(context.Context, *connect.Request[metastorev1.FindRequest]) (*connect.Response[metastorev1.FindResponse], error)
	}) *metastorev1.FindResponse {
		answer, err := from.Find(context.Background(), connect.NewRequest(question))
		if err != nil || len(answer.Msg.GetEntries()) != 10_000 {
			b.Fatalf("%d entries, %v", len(answer.Msg.GetEntries()), err)
		}
		return answer.Msg
	}
	b.Run("in-process", func(b *testing.B) {
		for b.Loop() {
			find(b, m.Index())
		}
	})
	b.Run("remote", func(b *testing.B) {
		c := client.New([]string{door.Listener.Addr().String()}, &http.Client{Transport: transport})
		for b.Loop() {
			find(b, c)
		}
	})
	b.Run("write", func(b *testing.B) {
		answer, buffer := find(b, m.Index()), []byte(nil)
		for b.Loop() {
			var err error
			if buffer, err = (proto.MarshalOptions{}).MarshalAppend(buffer[:0], answer); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(len(buffer))/10_000, "B/entry")
	})
	b.Run("read", func(b *testing.B) {
		buffer, err := proto.Marshal(find(b, m.Index()))
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if err := proto.Unmarshal(buffer, &metastorev1.FindResponse{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
