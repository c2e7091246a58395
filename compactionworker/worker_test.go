package compactionworker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	compactionv1 "github.com/kilndb/kiln/api/kiln/compaction/v1"
	"github.com/kilndb/kiln/api/kiln/compaction/v1/compactionv1connect"
	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/metastore/metastoretest"
	"github.com/kilndb/kiln/objstore"
	"github.com/kilndb/kiln/objstore/memory"
	"github.com/kilndb/kiln/objstore/objstoretest"
	"github.com/kilndb/kiln/profile"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var cpu = profile.Kind{
	Name: "process_cpu", PeriodType: "cpu", PeriodUnit: "nanoseconds",
	SampleTypes: []profile.SampleType{{Type: "samples", Unit: "count"}, {Type: "cpu", Unit: "nanoseconds"}},
}

// segment writes a segment of one profile per tenant and service, such as "a/web", each worth value in main → leaf.
func segment(t testing.TB, leaf string, value int64, services ...string) ([]byte, *storagev1.BlockMeta) {
	t.Helper()
	var b bytes.Buffer
	w := block.NewWriter(&b, block.Header{ID: ulid.Make().String(), Shard: 3, Writer: "test"})
	byTenant := map[string][]string{}
	var tenants []string
	for _, s := range services {
		tenant, service, _ := strings.Cut(s, "/")
		if byTenant[tenant] == nil {
			tenants = append(tenants, tenant)
		}
		byTenant[tenant] = append(byTenant[tenant], service)
	}
	for _, tenant := range tenants {
		writeGroup(t, w.Group(tenant, false), leaf, value, byTenant[tenant])
	}
	meta, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), meta
}

func writeGroup(t testing.TB, g *block.GroupWriter, leaf string, value int64, services []string) {
	t.Helper()
	names := profile.NewTable()
	for i, name := range []string{"main", leaf} {
		names.Functions = append(names.Functions, profile.Function{Name: names.AddString([]byte(name))})
		names.Lines = append(names.Lines, profile.Line{Function: uint32(i + 1), Line: 1})
		names.Locations = append(names.Locations, profile.Location{FirstLine: uint32(i), Lines: 1})
	}
	g.Symbols(&names.Symbols)
	var series []labels.Labels
	for _, s := range services {
		series = append(series, labels.FromStrings("service_name", s))
	}
	g.Series(series)
	trees := g.Trees(&profile.StackTree{Parents: []uint32{0, 0, 1}, Locations: []uint32{0, 0, 1}}, nil)
	for i, s := range services {
		p := block.Profile{Time: time.Now().UnixNano(), Series: uint32(i), ID: profile.NewID(), Duration: 1, Period: 1}
		if err := g.Rows(s, cpu, trees).Append(p, []uint32{2}, [][]int64{{value}, {value * 10}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
}

// house is a bucket, a metastore and a worker.
type house struct {
	t      *testing.T
	bucket *objstoretest.Faulty
	server *metastoretest.Server
	stop   func()
}

func newHouse(t *testing.T, change ...func(*Config)) *house {
	t.Helper()
	h := &house{t: t, bucket: objstoretest.NewFaulty(memory.New())}
	h.server = metastoretest.Start(t, h.bucket)
	h.work(h.server, change...)
	return h
}

// work starts a worker over jobs, until stop.
func (h *house) work(jobs compactionv1connect.WorkerServiceClient, change ...func(*Config)) {
	h.t.Helper()
	cfg := DefaultConfig("worker")
	cfg.Jobs = 2
	for _, c := range change {
		c(&cfg)
	}
	w, err := New(cfg, h.bucket, jobs, slog.New(slog.NewTextHandler(h.t.Output(), nil)), prometheus.NewRegistry())
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	h.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Error(err)
		}
	})
	h.t.Cleanup(h.stop)
}

// push stores and registers a segment and returns its id.
func (h *house) push(leaf string, value int64, services ...string) string {
	h.t.Helper()
	b, meta := segment(h.t, leaf, value, services...)
	if err := h.bucket.Put(h.t.Context(), block.Key(meta), b); err != nil {
		h.t.Fatal(err)
	}
	_, err := h.server.AddSegments(h.t.Context(), connect.NewRequest(&metastorev1.AddSegmentsRequest{Segments: []*storagev1.BlockMeta{meta}}))
	if err != nil {
		h.t.Fatal(err)
	}
	return meta.GetId()
}

func (h *house) entries(tenant string) []*storagev1.BlockMeta {
	h.t.Helper()
	answer, err := h.server.Find(h.t.Context(), connect.NewRequest(&metastorev1.FindRequest{Tenants: []string{tenant}}))
	if err != nil {
		h.t.Fatal(err)
	}
	return answer.Msg.GetEntries()
}

func (h *house) list() *compactionv1.ListResponse {
	h.t.Helper()
	answer, err := h.server.List(h.t.Context(), connect.NewRequest(&compactionv1.ListRequest{}))
	if err != nil {
		h.t.Fatal(err)
	}
	return answer.Msg
}

// totals reads a tenant's entries and returns the samples per service and stack.
func (h *house) totals(tenant string) map[string]int64 {
	h.t.Helper()
	totals := map[string]int64{}
	for _, m := range h.entries(tenant) {
		r, err := block.Open(objstore.Object(h.bucket, block.Key(m), int64(m.GetSize())), m)
		if err != nil {
			h.t.Fatal(err)
		}
		for _, d := range r.Datasets() {
			if d.Tenant == tenant {
				h.addTotals(totals, d)
			}
		}
	}
	return totals
}

func (h *house) addTotals(totals map[string]int64, d *block.Dataset) {
	h.t.Helper()
	ctx := h.t.Context()
	names, err := d.Symbols(ctx)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, rows := range d.Rows {
		stacks, _, err := rows.Trees(ctx)
		if err != nil {
			h.t.Fatal(err)
		}
		profiles, err := rows.Profiles(ctx)
		if err != nil {
			h.t.Fatal(err)
		}
		samples, err := rows.Samples(ctx, profiles, 0)
		if err != nil {
			h.t.Fatal(err)
		}
		sums := make([]int64, len(stacks.Parents))
		if err := samples.Sum(0, nil, sums); err != nil {
			h.t.Fatal(err)
		}
		for node, v := range sums {
			if v == 0 {
				continue
			}
			stack := ""
			for n := uint32(node); n != 0; n = stacks.Parents[n] {
				line := names.LinesOf(stacks.Locations[n])[0]
				stack = ";" + string(names.String(names.Functions[line.Function].Name)) + stack
			}
			totals[d.Service+stack] += v
		}
	}
}

func equal(t *testing.T, what string, got, want map[string]int64) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// A job has the memory that is left of Config.Memory, and no more.
func TestJobsHaveABudget(t *testing.T) {
	bucket := memory.New()
	b, meta := segment(t, "x", 1, "a/web")
	if err := bucket.Put(t.Context(), block.Key(meta), b); err != nil {
		t.Fatal(err)
	}
	w := newWorker(t, bucket)
	job := &compactionv1.Assignment{Sources: []*storagev1.BlockMeta{meta}}
	if err := (&merge{worker: w, job: job}).run(t.Context()); err != nil {
		t.Errorf("the default: %v", err)
	}
	w.cfg.Memory = w.cfg.MemoryBuffer + 1000
	if err := (&merge{worker: w, job: job}).run(t.Context()); !errors.Is(err, block.ErrBudget) {
		t.Errorf("error %v, want ErrBudget", err)
	}
	if _, err := New(w.cfg, w.bucket, nil, w.log, prometheus.NewRegistry()); err == nil {
		t.Error("a worker with 1000 bytes is opened")
	}
}

func TestSegmentsBecomeBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, func(c *Config) { c.MemoryBuffer = 100 }) // through a temporary file
		for i := range int64(5) {
			h.push("x", 1+i, "a/db", "a/web", "b/web")
			h.push("y", 100, "a/web")
		}
		before := map[string]map[string]int64{"a": h.totals("a"), "b": h.totals("b")}
		equal(t, "segments", before["a"], map[string]int64{"web;main;x": 15, "web;main;y": 500, "db;main;x": 15})
		time.Sleep(12 * time.Second) // the oldest is old enough
		synctest.Wait()
		for _, tenant := range []string{"a", "b"} {
			entries := h.entries(tenant)
			if len(entries) != 1 || entries[0].GetLevel() != 1 || entries[0].GetStrings()[entries[0].GetTenant()] != tenant {
				t.Fatalf("tenant %s has the entries %v", tenant, entries)
			}
			equal(t, "blocks of "+tenant, h.totals(tenant), before[tenant])
		}
		l := h.list()
		if l.GetTombstones() != 10 || len(l.GetJobs()) != 1 || l.GetJobs()[0].GetState() != compactionv1.JobState_JOB_STATE_DONE {
			t.Errorf("listed: %v", l)
		}
		time.Sleep(11 * time.Minute) // longer than the grace
		synctest.Wait()
		for _, tenant := range []string{"a", "b"} {
			equal(t, "after the sources are gone, "+tenant, h.totals(tenant), before[tenant])
		}
		var keys []string
		if err := h.bucket.List(t.Context(), "", func(a objstore.Attributes) error {
			if !strings.HasPrefix(a.Key, "snapshots/") {
				keys = append(keys, a.Key)
			}
			return nil
		}); err != nil || len(keys) != 2 {
			t.Errorf("the bucket has %v (%v), want the two blocks", keys, err)
		}
	})
}

func TestASourceThatIsMissingOrDamagedFailsAloneAndLoudly(t *testing.T) {
	for name, damage := range map[string]func(h *house, key string){
		"missing": func(h *house, key string) {
			if err := h.bucket.Delete(h.t.Context(), key); err != nil {
				h.t.Fatal(err)
			}
		},
		"damaged": func(h *house, key string) {
			b, err := h.bucket.Get(h.t.Context(), key)
			if err != nil {
				h.t.Fatal(err)
			}
			b[len(b)/8] ^= 1
			if err := h.bucket.Put(h.t.Context(), key, b); err != nil {
				h.t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t)
				var bad string
				for i := range 8 {
					id := h.push("x", 1, "a/web", "b/web")
					if i == 5 {
						bad = id
					}
				}
				damage(h, "segments/3/"+bad)
				time.Sleep(30 * time.Second)
				synctest.Wait()
				l := h.list()
				var parked []*compactionv1.Job
				for _, j := range l.GetJobs() {
					if j.GetState() != compactionv1.JobState_JOB_STATE_DONE {
						parked = append(parked, j)
					}
				}
				if len(parked) != 1 || parked[0].GetSources() != 1 || !strings.Contains(parked[0].GetLastFailure(), bad) {
					t.Errorf("parked: %v, want the job of %s alone, naming it", parked, bad)
				}
				var left []string
				for _, m := range h.entries("a") {
					if m.GetLevel() == 0 {
						left = append(left, m.GetId())
					}
				}
				if !slices.Equal(left, []string{bad}) {
					t.Errorf("segments left: %v, want %s", left, bad)
				}
				objects := 0 // what failed attempts had uploaded is gone
				if err := h.bucket.List(t.Context(), "blocks/", func(objstore.Attributes) error { objects++; return nil }); err != nil {
					t.Fatal(err)
				}
				if blocks := int(l.GetLevels()[1].GetEntries()); objects != blocks {
					t.Errorf("%d blocks in the bucket, %d in the index", objects, blocks)
				}
			})
		})
	}
}

func TestABucketThatFailsForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.push("x", 7, "a/web", "b/web")
		h.bucket.FailPrefix(objstoretest.BeforePut, "blocks/", errors.New("bucket is down"), 1)
		h.bucket.FailPrefix(objstoretest.AfterPut, "blocks/", errors.New("answer lost"), 1)
		time.Sleep(15 * time.Second)
		synctest.Wait()
		equal(t, "after the third attempt", h.totals("b"), map[string]int64{"web;main;x": 7})
		if e := h.entries("a"); len(e) != 1 || e[0].GetLevel() != 1 {
			t.Errorf("entries: %v", e)
		}
	})
}

func TestALostLeaseEndsTheJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.stop()
		asleep := &forgetful{WorkerServiceClient: h.server}
		h.work(asleep)
		h.push("x", 7, "a/web")
		hold := h.bucket.Hold(objstoretest.BeforePut)
		<-hold.Reached() // the job is there, and its output about to be put
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if asleep.completed() != 0 {
			t.Error("a job was reported whose lease was lost")
		}
		hold.Release()
		time.Sleep(40 * time.Second)
		synctest.Wait()
		equal(t, "in the end", h.totals("a"), map[string]int64{"web;main;x": 7})
	})
}

// forgetful loses all renewals until a job was lost.
type forgetful struct {
	compactionv1connect.WorkerServiceClient
	mu        sync.Mutex
	completes int
}

func (f *forgetful) completed() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.completes
}

func (f *forgetful) Renew(context.Context, *connect.Request[compactionv1.RenewRequest]) (*connect.Response[compactionv1.RenewResponse], error) {
	return nil, connect.NewError(connect.CodeUnavailable, errors.New("no answer"))
}

func (f *forgetful) Complete(ctx context.Context, req *connect.Request[compactionv1.CompleteRequest]) (*connect.Response[compactionv1.CompleteResponse], error) {
	f.mu.Lock()
	f.completes++
	f.mu.Unlock()
	return f.WorkerServiceClient.Complete(ctx, req)
}

func TestItStopsWithinItsGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.push("x", 7, "a/web")
		hold := h.bucket.Hold(objstoretest.BeforePut)
		<-hold.Reached()
		begun := time.Now()
		h.stop()
		if took := time.Since(begun); took > DefaultConfig("w").StopGrace+time.Second {
			t.Errorf("it stopped after %v", took)
		}
		l := h.list()
		if len(l.GetJobs()) != 1 || l.GetJobs()[0].GetState() != compactionv1.JobState_JOB_STATE_WAITING ||
			!strings.Contains(l.GetJobs()[0].GetLastFailure(), "stopping") {
			t.Errorf("the job was not given back: %v", l.GetJobs())
		}
		h.bucket.Heal()
		h.work(h.server)
		synctest.Wait()
		equal(t, "with the next worker", h.totals("a"), map[string]int64{"web;main;x": 7})

		h.push("x", 1, "a/web")
		hold = h.bucket.Hold(objstoretest.BeforePut)
		<-hold.Reached()
		go func() {
			time.Sleep(5 * time.Second)
			hold.Release()
		}()
		h.stop() // a job that finishes within the grace is reported
		if l := h.list(); len(l.GetJobs()) != 2 || l.GetJobs()[1].GetState() != compactionv1.JobState_JOB_STATE_DONE {
			t.Errorf("the running job was not finished: %v", l.GetJobs())
		}
	})
}

func TestAnOutputHasABudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, func(c *Config) { c.MaxOutput = 100 })
		h.push("x", 7, "a/web")
		time.Sleep(15 * time.Second)
		synctest.Wait()
		l := h.list()
		if len(l.GetJobs()) != 1 || !strings.Contains(l.GetJobs()[0].GetLastFailure(), ErrOutputTooLarge.Error()) {
			t.Errorf("listed: %v", l.GetJobs())
		}
		if e := h.entries("a"); len(e) != 1 || e[0].GetLevel() != 0 {
			t.Errorf("entries: %v", e)
		}
	})
}

func TestSpool(t *testing.T) {
	for _, memory := range []int64{0, 5, 100} {
		s := newSpool(Config{MemoryBuffer: memory, MaxOutput: 20, TempDir: t.TempDir()})
		for _, part := range []string{"kiln", "", "spool", "!"} {
			if _, err := s.Write([]byte(part)); err != nil {
				t.Fatal(err)
			}
		}
		got := make([]byte, s.Size())
		if _, err := s.ReadAt(got, 0); err != nil || string(got) != "kilnspool!" {
			t.Errorf("memory %d: read %q, %v", memory, got, err)
		}
		if n, err := s.ReadAt(got, 4); n != 6 || err == nil {
			t.Errorf("memory %d: read past the end: %d, %v", memory, n, err)
		}
		if _, err := s.Write(make([]byte, 11)); !errors.Is(err, ErrOutputTooLarge) {
			t.Errorf("memory %d: %v", memory, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestConfig(t *testing.T) {
	for _, change := range []func(*Config){
		func(c *Config) { c.Name = "" },
		func(c *Config) { c.Jobs = 0 },
		func(c *Config) { c.PollWait = time.Hour },
		func(c *Config) { c.StopGrace = -1 },
		func(c *Config) { c.MaxOutput = 0 },
	} {
		cfg := DefaultConfig("w")
		change(&cfg)
		if _, err := New(cfg, memory.New(), nil, slog.New(slog.DiscardHandler), prometheus.NewRegistry()); err == nil {
			t.Errorf("accepted: %+v", cfg)
		}
	}
}
