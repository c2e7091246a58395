package metastore

import (
	"context"
	"crypto/rand"
	"io"
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

	compactionv1 "github.com/kilndb/kiln/api/kiln/compaction/v1"
	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/metastore/index"
	"github.com/kilndb/kiln/metastore/snapshots"
	"github.com/kilndb/kiln/objstore"
	"github.com/kilndb/kiln/objstore/memory"
)

// dataset is one dataset of a test's entry.
type dataset struct {
	tenant, service string
	from, to        int64
}

// segment returns a segment with the id and datasets.
func segment(id string, shard uint32, datasets ...dataset) *storagev1.BlockMeta {
	return object(id, "", shard, 0, nil, datasets...)
}

// object returns the entry of any object.
func object(id, tenant string, shard, level uint32, sources []string, datasets ...dataset) *storagev1.BlockMeta {
	m := &storagev1.BlockMeta{Id: id, Shard: shard, Level: level, Sources: sources, Size: 1000, Strings: []string{""}}
	ref := func(s string) uint32 {
		if i := slices.Index(m.Strings, s); i >= 0 {
			return uint32(i)
		}
		m.Strings = append(m.Strings, s)
		return uint32(len(m.Strings) - 1)
	}
	m.Tenant = ref(tenant)
	slices.SortFunc(datasets, func(a, b dataset) int {
		return strings.Compare(a.tenant+"\x00"+a.service, b.tenant+"\x00"+b.service)
	})
	for i, d := range datasets {
		if i == 0 || d.from < m.MinTime {
			m.MinTime = d.from
		}
		if i == 0 || d.to > m.MaxTime {
			m.MaxTime = d.to
		}
		group := slices.IndexFunc(m.Groups, func(g *storagev1.Group) bool { return m.Strings[g.Tenant] == d.tenant })
		if group < 0 {
			group = len(m.Groups)
			m.Groups = append(m.Groups, &storagev1.Group{Tenant: ref(d.tenant)})
		}
		m.Datasets = append(m.Datasets, &storagev1.Dataset{
			Tenant: ref(d.tenant), Service: ref(d.service), Group: uint32(group), MinTime: d.from, MaxTime: d.to,
		})
	}
	return m
}

// newID returns an id of now.
func newID() string { return ulid.MustNew(ulid.Timestamp(time.Now()), rand.Reader).String() }

// merged returns the outputs that a worker would report for an assignment: one block per tenant.
func merged(a *compactionv1.Assignment) []*storagev1.BlockMeta {
	var sources []string
	byTenant := map[string]map[string]dataset{}
	for _, m := range a.GetSources() {
		sources = append(sources, m.GetId())
		for _, d := range m.GetDatasets() {
			tenant, service := m.GetStrings()[d.GetTenant()], m.GetStrings()[d.GetService()]
			if byTenant[tenant] == nil {
				byTenant[tenant] = map[string]dataset{}
			}
			got, ok := byTenant[tenant][service]
			if !ok {
				got = dataset{tenant, service, d.GetMinTime(), d.GetMaxTime()}
			}
			got.from, got.to = min(got.from, d.GetMinTime()), max(got.to, d.GetMaxTime())
			byTenant[tenant][service] = got
		}
	}
	var outputs []*storagev1.BlockMeta
	for tenant, services := range byTenant {
		var ds []dataset
		for _, d := range services {
			ds = append(ds, d)
		}
		outputs = append(outputs, object(newID(), tenant, a.GetShard(), a.GetLevel()+1, sources, ds...))
	}
	return outputs
}

// deletions is a bucket that remembers what was deleted but for old snapshots, and fails where it is told to.
type deletions struct {
	mu   sync.Mutex
	keys []string
	fail func(key string) error

	made    sync.Once
	objects objstore.Bucket
}

func (d *deletions) bucket() objstore.Bucket {
	d.made.Do(func() {
		if d.objects == nil {
			d.objects = memory.New()
		}
	})
	return d.objects
}

func (d *deletions) Get(ctx context.Context, key string) ([]byte, error) {
	return d.bucket().Get(ctx, key)
}

func (d *deletions) GetRange(ctx context.Context, key string, off, n int64) ([]byte, error) {
	return d.bucket().GetRange(ctx, key, off, n)
}

func (d *deletions) Attributes(ctx context.Context, key string) (objstore.Attributes, error) {
	return d.bucket().Attributes(ctx, key)
}

func (d *deletions) List(ctx context.Context, prefix string, fn func(objstore.Attributes) error) error {
	return d.bucket().List(ctx, prefix, fn)
}

func (d *deletions) PutFrom(ctx context.Context, key string, src io.ReaderAt, size int64) error {
	return d.bucket().PutFrom(ctx, key, src, size)
}

func (d *deletions) Delete(ctx context.Context, key string) error {
	if err := d.bucket().Delete(ctx, key); err != nil || strings.HasPrefix(key, snapshots.Prefix) {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil {
		if err := d.fail(key); err != nil {
			return err
		}
	}
	d.keys = append(d.keys, key)
	return nil
}

func (d *deletions) deleted() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(slices.Values(d.keys))
}

// running is a metastore that runs until it is stopped or the test ends.
type running struct {
	*Metastore
	t    testing.TB
	reg  *prometheus.Registry
	stop func()
}

// start runs a metastore over dir.
func start(t testing.TB, dir string, bucket Bucket, change ...func(*Config)) *running {
	t.Helper()
	cfg := DefaultConfig(dir)
	for _, c := range change {
		c(&cfg)
	}
	reg := prometheus.NewRegistry()
	m, err := Open(cfg, bucket, slog.New(slog.NewTextHandler(t.Output(), nil)), reg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	r := &running{Metastore: m, t: t, reg: reg}
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

// serving is start, and waits until the metastore is ready.
func serving(t testing.TB, dir string, bucket Bucket, change ...func(*Config)) *running {
	t.Helper()
	r := start(t, dir, bucket, change...)
	r.until(func() bool { return r.Ready() == nil })
	return r
}

// until waits for a condition that something in the background brings about.
func (r *running) until(ok func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatal("condition is not met within a minute")
		}
	}
}

func (r *running) add(segments ...*storagev1.BlockMeta) error {
	_, err := r.Index().AddSegments(r.t.Context(), connect.NewRequest(&metastorev1.AddSegmentsRequest{Segments: segments}))
	return err
}

func (r *running) mustAdd(segments ...*storagev1.BlockMeta) {
	r.t.Helper()
	if err := r.add(segments...); err != nil {
		r.t.Fatal(err)
	}
}

// ids returns the ids of all entries of a tenant, at any time.
func (r *running) ids(tenant string) []string {
	r.t.Helper()
	found, err := r.Index().Find(r.t.Context(), connect.NewRequest(&metastorev1.FindRequest{Tenants: []string{tenant}}))
	if err != nil {
		r.t.Fatal(err)
	}
	ids := []string{}
	for _, m := range found.Msg.GetEntries() {
		ids = append(ids, m.GetId())
	}
	return ids
}

func (r *running) poll(worker string, capacity uint32, wait time.Duration) []*compactionv1.Assignment {
	r.t.Helper()
	return r.pollAs(&compactionv1.PollRequest{Worker: worker, Capacity: capacity, WaitMs: uint32(wait.Milliseconds()), Excludes: true})
}

func (r *running) pollAs(req *compactionv1.PollRequest) []*compactionv1.Assignment {
	r.t.Helper()
	answer, err := r.Workers().Poll(r.t.Context(), connect.NewRequest(req))
	if err != nil {
		r.t.Fatal(err)
	}
	return answer.Msg.GetAssignments()
}

func (r *running) complete(worker string, a *compactionv1.Assignment, outputs []*storagev1.BlockMeta) error {
	_, err := r.Workers().Complete(r.t.Context(), connect.NewRequest(&compactionv1.CompleteRequest{
		Worker: worker, Job: a.GetJob(), Token: a.GetToken(), Outputs: outputs,
	}))
	return err
}

func (r *running) fail(worker string, a *compactionv1.Assignment, reason string) error {
	_, err := r.Workers().Fail(r.t.Context(), connect.NewRequest(&compactionv1.FailRequest{
		Worker: worker, Job: a.GetJob(), Token: a.GetToken(), Reason: reason,
	}))
	return err
}

func (r *running) list() *compactionv1.ListResponse {
	r.t.Helper()
	answer, err := r.Jobs().List(r.t.Context(), connect.NewRequest(&compactionv1.ListRequest{}))
	if err != nil {
		r.t.Fatal(err)
	}
	return answer.Msg
}

func TestServesSoonAfterItsStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		r := serving(t, t.TempDir(), &deletions{})
		if took := time.Since(begun); took > 300*time.Millisecond { // of the bubble's clock: timers, not the disk
			t.Errorf("ready after %v", took)
		}
		id := newID()
		r.mustAdd(segment(id, 1, dataset{"a", "web", 10, 20}))
		if got := r.ids("a"); !slices.Equal(got, []string{id}) {
			t.Errorf("found %v, want %s", got, id)
		}
		if got := r.ids("b"); len(got) != 0 {
			t.Errorf("another tenant found %v", got)
		}
		r.stop()
		if r.Ready() == nil {
			t.Error("ready after it stopped")
		}
		if code := connect.CodeOf(r.add(segment(newID(), 1, dataset{"a", "web", 1, 2}))); code != connect.CodeUnavailable {
			t.Errorf("a registration after the stop ends with %v", code)
		}
	})
}

func TestCompactionFromRegistrationToDeletion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := &deletions{}
		r := serving(t, t.TempDir(), bucket)
		begun := time.Now()
		polled := make(chan []*compactionv1.Assignment)
		go func() { polled <- r.poll("w", 4, 30*time.Second) }()

		var keys []string
		for range 3 {
			id := newID()
			keys = append(keys, "segments/7/"+id)
			r.mustAdd(segment(id, 7, dataset{"a", "web", 10, 20}, dataset{"b", "db", 15, 40}))
		}
		jobs := <-polled
		if waited := time.Since(begun); waited < 9*time.Second || waited > 11*time.Second {
			t.Errorf("the job came after %v, want about 10 s", waited)
		}
		if len(jobs) != 1 || len(jobs[0].GetSources()) != 3 || jobs[0].GetShard() != 7 {
			t.Fatalf("jobs are %v, want one of three sources", jobs)
		}
		outputs := merged(jobs[0])
		if err := r.complete("w", jobs[0], outputs); err != nil {
			t.Fatal(err)
		}
		replaced := time.Now()
		for _, m := range outputs {
			if got := r.ids(m.GetStrings()[m.GetTenant()]); !slices.Equal(got, []string{m.GetId()}) {
				t.Errorf("after the compaction %v is found, want %s", got, m.GetId())
			}
		}
		if err := r.complete("w", jobs[0], outputs); err != nil {
			t.Errorf("the same report again: %v", err)
		}
		l := r.list()
		if l.GetTombstones() != 3 || len(l.GetJobs()) != 1 || l.GetJobs()[0].GetState() != compactionv1.JobState_JOB_STATE_DONE {
			t.Errorf("listed: %v", l)
		}
		if l.GetLevels()[0].GetEntries() != 0 || l.GetLevels()[1].GetEntries() != 2 || l.GetLevels()[1].GetBytes() != 2000 {
			t.Errorf("levels: %v", l.GetLevels())
		}
		if got := bucket.deleted(); len(got) != 0 {
			t.Errorf("%v deleted before the grace is over", got)
		}
		time.Sleep(10*time.Minute - time.Since(replaced) - time.Second)
		if got := bucket.deleted(); len(got) != 0 {
			t.Errorf("%v deleted before the grace is over", got)
		}
		r.until(func() bool { return len(bucket.deleted()) == 3 })
		if got := bucket.deleted(); !slices.Equal(got, slices.Sorted(slices.Values(keys))) {
			t.Errorf("deleted %v, want %v", got, keys)
		}
		r.until(func() bool { return r.list().GetTombstones() == 0 })
	})
}

// queryOf asks for everything of a tenant.
func queryOf(tenant string) index.Query { return index.Query{Tenants: []string{tenant}} }

// value returns a metric that has no labels; of a histogram the number of observations.
func value(t testing.TB, r *running, name string) float64 {
	t.Helper()
	families, err := r.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			m := f.GetMetric()[0]
			return m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}
