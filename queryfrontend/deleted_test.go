package queryfrontend_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	querierv1 "github.com/grafana/pyroscope/api/gen/proto/go/querier/v1"
	typesv1 "github.com/grafana/pyroscope/api/gen/proto/go/types/v1"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"

	adminv1 "github.com/kilndb/kiln/api/kiln/admin/v1"
	compactionv1 "github.com/kilndb/kiln/api/kiln/compaction/v1"
	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/metastore/metastoretest"
	"github.com/kilndb/kiln/objstore"
	"github.com/kilndb/kiln/profile/oracle"
	"github.com/kilndb/kiln/querybackend/querybackendtest"
	"github.com/kilndb/kiln/queryfrontend"
	"github.com/kilndb/kiln/segmentwriter/segmentwritertest"
	"github.com/kilndb/kiln/tenant"
)

// erasing is a bucket and a metastore, pushes and deletions in any order while merges go on, and the model of what is left.
type erasing struct {
	*testing.T
	random *rand.Rand
	store  *querybackendtest.Store // the bucket, and how segments are made
	index  *metastoretest.Server
	model  querybackendtest.Model
	held   []*compactionv1.Assignment // of workers that are slow
	ids    []string                   // of deletions
	steps  []string
}

var erasingSelectors = []string{
	`{pod="1"}`, `{pod=~"1|2",region="eu"}`, `{region!=""}`, `{service_name="regexp",pod!="0"}`, `{service_name=~"net.*"}`, `{__name__="memory",pod="0"}`,
	`memory{}`, `{endpoint!=""}`, `{pod!="3",service_name!~"api.*",region=~".+"}`, `{"odd.name"="x"}`, `{__service_name__="api-gateway",pod="3"}`, `{pod="nobody"}`,
	`{__period_unit__="nanoseconds",pod="2"}`,
}

// push stores and registers a segment of a few profiles.
func (e *erasing) push() {
	files := []string{"api-gateway-cpu-0", "net-http-cpu-0", "api-gateway-heap-0", "regexp-cpu-0", "regexp-mem-0", "api-gateway-cpu-1"}
	var pushed []querybackendtest.Pushed
	for range 1 + e.random.IntN(3) {
		at := epoch.Add(time.Duration(e.random.IntN(40)) * 3 * time.Minute)
		p := querybackendtest.Push([]string{"one", "one", "two"}[e.random.IntN(3)], files[e.random.IntN(len(files))], at, "pod", fmt.Sprint(e.random.IntN(4)))
		if e.random.IntN(2) == 0 {
			p.Labels = p.Labels.With("region", []string{"eu", "us"}[e.random.IntN(2)]).With("odd.name", "x")
		}
		if e.random.IntN(3) == 0 && p.Kind == "process_cpu" {
			p.Body = e.inSpans(p.Body)
		}
		pushed = append(pushed, p)
	}
	m := e.store.Segment(e, pushed...)
	e.register(m)
	if e.random.IntN(4) == 0 {
		e.register(m) // its first answer got lost
	}
	e.model = append(e.model, querybackendtest.NewModel(pushed...)...)
}

func (e *erasing) register(m *storagev1.BlockMeta) {
	e.Helper()
	if _, err := e.index.AddSegments(e.Context(), connect.NewRequest(&metastorev1.AddSegmentsRequest{Segments: []*storagev1.BlockMeta{m}})); err != nil {
		e.Fatal(err)
	}
}

// inSpans returns a profile of which most samples were taken in one of a few spans.
func (e *erasing) inSpans(body []byte) []byte {
	p := oracle.Parse(body)
	for i, s := range p.Sample {
		if s.Label == nil {
			s.Label = map[string][]string{}
		}
		if n := i % 4; n > 0 {
			s.Label["span_id"] = []string{span(n)}
		}
	}
	var out bytes.Buffer
	if err := p.WriteUncompressed(&out); err != nil {
		e.Fatal(err)
	}
	return out.Bytes()
}

// delete deletes series of somebody.
func (e *erasing) delete() {
	req := &adminv1.DeleteRequest{Tenant: []string{"one", "one", "two"}[e.random.IntN(3)], Selector: erasingSelectors[e.random.IntN(len(erasingSelectors))]}
	if e.random.IntN(3) == 0 {
		service := []string{"api-gateway", "regexp"}[e.random.IntN(2)]
		req.Service = &service
	}
	e.steps = append(e.steps, fmt.Sprint("delete ", req))
	answer, err := e.index.Delete(e.Context(), connect.NewRequest(req))
	if err != nil {
		e.Fatal(err)
	}
	d := answer.Msg.GetDeletion()
	if d.GetState() == adminv1.DeletionState_DELETION_STATE_UNSPECIFIED || d.GetSelector() == "" || d.GetObjects() != d.GetRemaining() {
		e.Errorf("deletion begins as %v", d)
	}
	e.ids = append(e.ids, d.GetId())
	if req.Service != nil {
		req.Selector = strings.Replace(req.Selector, "{", fmt.Sprintf("{service_name=%q,", *req.Service), 1)
	}
	e.model = e.model.Without(req.Tenant, req.Selector)
}

// work does the jobs that are due, or takes them and is slow.
func (e *erasing) work(slow bool) (did int) {
	answer, err := e.index.Poll(e.Context(), connect.NewRequest(&compactionv1.PollRequest{Worker: "w", Capacity: 8, WaitMs: 100, Excludes: true}))
	if err != nil {
		e.Fatal(err)
	}
	for _, a := range answer.Msg.GetAssignments() {
		e.steps = append(e.steps, fmt.Sprintf("job of level %d, %d sources, slow: %v", a.GetLevel(), len(a.GetSources()), slow))
		if slow {
			e.held = append(e.held, a)
		} else if err := e.merge(a); err != nil {
			e.Errorf("job: %v", err)
		}
	}
	return len(answer.Msg.GetAssignments())
}

// merge does what a worker does, and reports it.
func (e *erasing) merge(a *compactionv1.Assignment) error {
	var readers []*block.Reader
	var sources []string
	for _, m := range a.GetSources() {
		r, err := block.Open(objstore.Object(e.store.Bucket, block.Key(m), int64(m.GetSize())), m)
		if err != nil {
			e.Fatal(err)
		}
		readers, sources = append(readers, r), append(sources, m.GetId())
	}
	var outputs []*storagev1.BlockMeta
	for _, name := range block.Tenants(readers...) {
		var out bytes.Buffer
		w := block.NewWriter(&out, block.Header{ID: ulid.Make().String(), Tenant: name, Shard: a.GetShard(), Level: a.GetOutputLevel(), Sources: sources, Writer: "w"})
		if err := block.Merge(e.Context(), name, readers, w); err != nil {
			e.Fatal(err)
		}
		meta, err := w.Finish()
		if err != nil {
			e.Fatal(err)
		}
		if len(meta.GetDatasets()) == 0 {
			continue
		}
		if err := e.store.Bucket.Put(e.Context(), block.Key(meta), out.Bytes()); err != nil {
			e.Fatal(err)
		}
		outputs = append(outputs, meta)
	}
	_, err := e.index.Complete(e.Context(), connect.NewRequest(&compactionv1.CompleteRequest{Worker: "w", Job: a.GetJob(), Token: a.GetToken(), Outputs: outputs}))
	return err
}

// report lets the slow workers go on. Whether their jobs are still theirs is up to the metastore.
func (e *erasing) report() {
	for _, a := range e.held {
		if err := e.merge(a); err != nil && connect.CodeOf(err) != connect.CodeFailedPrecondition {
			e.Errorf("late result: %v", err)
		}
	}
	e.held = nil
}

// check asks every kind of question of one tenant, about a part or all of what there is.
func (e *erasing) check(as tenant.ID) {
	e.Helper()
	cfg := queryfrontend.Config{Limits: func(tenant.ID) tenant.Limits { return tenant.DefaultLimits() }, LeafBytes: int64(e.random.IntN(2))}
	f := fixture{e.T, queryfrontend.New(cfg, e.index, e.store.Backend(), slog.New(slog.DiscardHandler), prometheus.NewRegistry()), tenant.NewContext(e.Context(), as), nil}
	var model querybackendtest.Model // of the tenant, who is called one here
	for _, r := range e.model {
		if r.Tenant == string(as) {
			r.Tenant = "one"
			model = append(model, r)
		}
	}
	start, end := epoch.UnixMilli(), epoch.Add(2*time.Hour).UnixMilli()
	all := scope{start, end, `{}`}
	some := scope{start + int64(e.random.IntN(30))*60_000, end - int64(e.random.IntN(30))*60_000, erasingSelectors[e.random.IntN(len(erasingSelectors))]}
	for _, s := range []scope{all, some} {
		from, until := s.nanos()
		for _, id := range []string{cpu, allocSpace} {
			f.mustEqual(s, id, querybackendtest.Sum(model.Pick("one", from, until, s.selector, id)))
		}
		mustEqualLabels(f, model, s)
		picked := model.Pick("one", from, until, s.selector, cpu)
		spans := []string{span(1), span(3)}
		if of := querybackendtest.Requested(picked, "span_id", spans...); len(of) > 0 {
			f.mustEqualOf(s, func(r *querierv1.SelectMergeStacktracesRequest) { r.SpanSelector = spans }, of)
		}
		if len(picked) > 0 {
			id := picked[0].ID.String()
			of := slices.DeleteFunc(slices.Clone(picked), func(p querybackendtest.Picked) bool { return p.ID.String() != id })
			f.mustEqualOf(s, func(r *querierv1.SelectMergeStacktracesRequest) { r.ProfileIdSelector = []string{id} }, of)
		}
		got := f.series(&querierv1.SelectSeriesRequest{ProfileTypeID: cpu, LabelSelector: s.selector, Start: s.start, End: s.end, Step: 600, GroupBy: []string{"pod", "endpoint"}})
		if want := modelSeries(model, s, cpu, 600_000, []string{"pod", "endpoint"}, false); !maps.EqualFunc(got, want, maps.Equal[map[int64]float64]) {
			e.Errorf("%v: series are\n%v, want\n%v", s, got, want)
		}
	}
	checkCatalogue(f, model, all)
}

// checkCatalogue asks what the index answers alone where it can.
func checkCatalogue(f fixture, m querybackendtest.Model, s scope) {
	f.Helper()
	from, until := s.nanos()
	types, pairs := map[string]bool{}, map[string]bool{}
	for _, p := range m.Pick("one", from, until, `{}`, "") {
		types[p.Labels.Get(labels.ProfileType)] = true
		pairs[p.Labels.Project([]string{"service_name", "__profile_type__"}).String()] = true
	}
	for _, req := range []*querierv1.ProfileTypesRequest{{}, {Start: s.start, End: s.end}} {
		answer, err := f.ProfileTypes(f.ctx, connect.NewRequest(req))
		if err != nil {
			f.Fatal(err)
		}
		var got []string
		for _, t := range answer.Msg.ProfileTypes {
			got = append(got, t.ID)
		}
		mustEqualSet(f, "profile types", got, types)
	}
	series, err := f.Series(f.ctx, connect.NewRequest(&querierv1.SeriesRequest{LabelNames: []string{"service_name", "__profile_type__"}, Start: s.start, End: s.end}))
	if err != nil {
		f.Fatal(err)
	}
	mustEqualSet(f, "services and their types", labelSetsOf(series.Msg.LabelsSet), pairs)
	stats, err := f.GetProfileStats(f.ctx, connect.NewRequest(&typesv1.GetProfileStatsRequest{}))
	if err != nil || stats.Msg.DataIngested != (len(types) > 0) {
		f.Errorf("there is data: %v (%v), want %v", stats.Msg.DataIngested, err, len(types) > 0)
	}
}

// finished waits for all deletions, and compares what lies in the bucket with the model.
func (e *erasing) finished() {
	e.Helper()
	for idle := 0; idle < 3; idle++ {
		if e.work(false) > 0 {
			idle = 0
		}
		time.Sleep(time.Minute)
	}
	time.Sleep(15 * time.Minute) // longer than the grace
	synctest.Wait()
	for _, id := range e.ids {
		answer, err := e.index.GetDeletion(e.Context(), connect.NewRequest(&adminv1.GetDeletionRequest{Id: id}))
		if d := answer.Msg.GetDeletion(); err != nil || d.GetState() != adminv1.DeletionState_DELETION_STATE_FINISHED || d.GetRemaining() != 0 {
			e.Errorf("deletion ends as %v (%v)", d, err)
		}
	}
	want := map[string]int{}
	for _, r := range e.model {
		want[fmt.Sprint(r.Tenant, r.Kind.Name, r.Labels, r.ID, r.Time)]++
	}
	got := map[string]int{}
	if err := e.store.Bucket.List(e.Context(), "", func(a objstore.Attributes) error {
		if !strings.HasPrefix(a.Key, "snapshots/") {
			e.stored(a, got)
		}
		return nil
	}); err != nil {
		e.Fatal(err)
	}
	if !maps.Equal(got, want) {
		e.Errorf("the bucket has %d profiles of series, want %d", len(got), len(want))
	}
}

// stored counts the profiles of series in an object, whatever the index shows of it.
func (e *erasing) stored(a objstore.Attributes, count map[string]int) {
	e.Helper()
	object := objstore.Object(e.store.Bucket, a.Key, a.Size)
	meta, err := block.ReadMeta(e.Context(), object)
	if err != nil {
		e.Fatal(err)
	}
	r, err := block.Open(object, meta)
	if err != nil {
		e.Fatal(err)
	}
	for _, d := range r.Datasets() {
		series, err := d.Series(e.Context())
		if err != nil {
			e.Fatal(err)
		}
		for _, rows := range d.Rows {
			p, err := rows.Profiles(e.Context())
			if err != nil {
				e.Fatal(err)
			}
			for i := range p.Len() {
				count[fmt.Sprint(d.Tenant, rows.Kind.Name, series[p.Series[i]], p.IDs[i], p.Times[i])]++
			}
		}
	}
}

// Whatever is pushed, deleted and merged in whatever order: every answer is that of the profiles which are left, from the
// moment that a deletion returns, and in the end the bucket has these and no others.
func TestDeletedSeriesAreInNoAnswer(t *testing.T) {
	seeds := uint64(3)
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			segmentwritertest.Bubble(t, func(t *testing.T) {
				e := &erasing{T: t, random: rand.New(rand.NewPCG(seed, 5)), store: querybackendtest.New()}
				e.index = metastoretest.Start(t, e.store.Bucket, metastoretest.Deep(4, 5*time.Minute))
				for range 20 {
					switch n := e.random.IntN(20); {
					case n < 7:
						e.push()
					case n < 11:
						e.delete()
					case n < 16:
						e.work(e.random.IntN(4) == 0)
					case n < 18:
						e.report()
					default:
						time.Sleep([]time.Duration{time.Second, 20 * time.Second, 6 * time.Minute}[e.random.IntN(3)])
						continue
					}
					e.check([]tenant.ID{"one", "one", "two"}[e.random.IntN(3)])
					if t.Failed() {
						t.Fatalf("after %s", strings.Join(e.steps, "\n"))
					}
				}
				e.report()
				e.finished()
				e.check("one")
				e.check("two")
			})
		})
	}
}
