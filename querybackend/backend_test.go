package querybackend_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	queryv1 "github.com/kilndb/kiln/api/kiln/query/v1"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/flamegraph"
	"github.com/kilndb/kiln/objstore"
	"github.com/kilndb/kiln/profile/oracle"
	"github.com/kilndb/kiln/query"
	"github.com/kilndb/kiln/querybackend"
	"github.com/kilndb/kiln/querybackend/querybackendtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	cpu        = "process_cpu:cpu:nanoseconds:cpu:nanoseconds"
	allocSpace = "memory:alloc_space:bytes:space:bytes"
)

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// bucket is a Getter that a test may look over the shoulder of.
type bucket struct {
	objstore.Getter
	// before is called before each read; an error from it is what the read returns.
	before func(ctx context.Context, key string, off, n int64) error
}

func (b bucket) GetRange(ctx context.Context, key string, off, n int64) ([]byte, error) {
	if err := b.before(ctx, key, off, n); err != nil {
		return nil, err
	}
	return b.Getter.GetRange(ctx, key, off, n)
}

func open(b objstore.Getter, change ...func(*querybackend.Config)) *querybackend.Backend {
	cfg := querybackend.DefaultConfig()
	for _, c := range change {
		c(&cfg)
	}
	return querybackend.New(cfg, b, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
}

func hour(selector string) *queryv1.Question {
	return &queryv1.Question{Start: epoch.UnixNano(), End: epoch.Add(time.Hour).UnixNano(), Selector: selector}
}

func askTree(selector, profileType string) *queryv1.Question {
	q := hour(selector)
	q.ProfileType, q.Ask = profileType, &queryv1.Question_Tree{Tree: &queryv1.AskTree{}}
	return q
}

func askStacks(selector, profileType string) *queryv1.Question {
	q := hour(selector)
	q.ProfileType, q.Ask = profileType, &queryv1.Question_Stacks{Stacks: &queryv1.AskStacks{}}
	return q
}

func askTimeSeries(selector, profileType string, groupBy ...string) *queryv1.Question {
	q := hour(selector)
	q.ProfileType, q.Ask = profileType, &queryv1.Question_TimeSeries{TimeSeries: &queryv1.AskTimeSeries{GroupBy: groupBy, Step: int64(time.Minute), Origin: q.Start}}
	return q
}

func askNames(selector string) *queryv1.Question {
	q := hour(selector)
	q.Ask = &queryv1.Question_LabelNames{LabelNames: &queryv1.AskLabelNames{}}
	return q
}

func askValues(selector, name string) *queryv1.Question {
	q := hour(selector)
	q.Ask = &queryv1.Question_LabelValues{LabelValues: &queryv1.AskLabelValues{Name: name}}
	return q
}

func askSeries(selector string, names ...string) *queryv1.Question {
	q := hour(selector)
	q.Ask = &queryv1.Question_Series{Series: &queryv1.AskSeries{LabelNames: names}}
	return q
}

func leaf(entries ...*storagev1.BlockMeta) *queryv1.PlanNode {
	return &queryv1.PlanNode{Entries: entries}
}

func invoke(ctx context.Context, b *querybackend.Backend, tenant string, q *queryv1.Question, n *queryv1.PlanNode) (*queryv1.InvokeResponse, error) {
	res, err := b.Invoke(ctx, connect.NewRequest(&queryv1.InvokeRequest{Tenant: tenant, Question: q, Node: n}))
	if err != nil {
		return nil, err
	}
	return res.Msg, nil
}

func mustInvoke(t *testing.T, b *querybackend.Backend, tenant string, q *queryv1.Question, n *queryv1.PlanNode) *queryv1.InvokeResponse {
	t.Helper()
	res, err := invoke(t.Context(), b, tenant, q, n)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func mustFail(t *testing.T, err error, code connect.Code, says ...string) {
	t.Helper()
	if err == nil || connect.CodeOf(err) != code {
		t.Errorf("error is %v, want %s", err, code)
		return
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("error %q does not say %q", err, s)
		}
	}
}

// store has two tenants, whose services have the same names, in three segments.
func store(t *testing.T) *querybackendtest.Store {
	s := querybackendtest.New()
	s.Segment(t,
		querybackendtest.Push("one", "api-gateway-cpu-0", epoch.Add(time.Minute), "pod", "a"),
		querybackendtest.Push("two", "api-gateway-cpu-1", epoch.Add(time.Minute), "pod", "a", "secret", "yes"),
		querybackendtest.Push("one", "api-gateway-heap-0", epoch.Add(time.Minute), "pod", "a"))
	s.Segment(t, querybackendtest.Push("one", "regexp-cpu-0", epoch.Add(2*time.Minute), "pod", "b"))
	s.Segment(t,
		querybackendtest.Push("one", "api-gateway-cpu-2", epoch.Add(3*time.Minute), "pod", "b"),
		querybackendtest.Push("one", "regexp-cpu-1", epoch.Add(59*time.Minute), "pod", "a"))
	return s
}

func questions() map[string]*queryv1.Question {
	return map[string]*queryv1.Question{
		"tree": askTree(`{}`, cpu), "tree of a pod": askTree(`{pod="a"}`, cpu), "tree of heap": askTree(`{}`, allocSpace),
		"stacks": askStacks(`{service_name="api-gateway"}`, cpu), "time series": askTimeSeries(`{}`, cpu, "pod"),
		"names": askNames(`{}`), "values": askValues(`{}`, "endpoint"), "series": askSeries(`{pod="a"}`),
	}
}

// TestPlans: the shape of a plan does not show in the answer, and who executes its children neither.
func TestPlans(t *testing.T) {
	s := store(t)
	here := open(s.Bucket)
	elsewhere := open(s.Bucket, func(c *querybackend.Config) { c.Children = here })
	for name, q := range questions() {
		want := mustInvoke(t, here, "one", q, leaf(s.Entries()...)).Report
		for _, fan := range []int{2, 3} {
			plan := query.Plan(s.Entries(), 1, fan)
			if len(plan.Children) == 0 {
				t.Fatal("the plan has no inner node")
			}
			local := mustInvoke(t, here, "one", q, plan)
			if !sameReport(q, local.Report, want) {
				t.Errorf("%s: another plan of fan %d has another answer", name, fan)
			}
			remote := mustInvoke(t, elsewhere, "one", q, plan)
			if !sameReport(q, remote.Report, want) {
				t.Errorf("%s: children executed elsewhere have another answer", name)
			}
			if local.Statistics.Backends != 1 || remote.Statistics.Backends != uint64(1+len(plan.Children)) {
				t.Errorf("%s: %d and %d backends", name, local.Statistics.Backends, remote.Statistics.Backends)
			}
			local.Statistics.Backends, remote.Statistics.Backends = 0, 0
			if !proto.Equal(local.Statistics, remote.Statistics) {
				t.Errorf("%s: statistics are %v here and %v elsewhere", name, local.Statistics, remote.Statistics)
			}
		}
	}
}

// sameReport compares reports; stacks may be numbered in any order.
func sameReport(q *queryv1.Question, a, b *queryv1.Report) bool {
	if q.GetStacks() == nil {
		return proto.Equal(a, b)
	}
	return maps.Equal(stackSums(a.Stacks), stackSums(b.Stacks)) && a.Stacks.Profiles == b.Stacks.Profiles && a.Stacks.Duration == b.Stacks.Duration &&
		a.Stacks.Period == b.Stacks.Period && a.Stacks.Time == b.Stacks.Time
}

func stackSums(s *queryv1.Stacks) map[string]int64 {
	sums := map[string]int64{}
	for i, v := range s.Self {
		var frames []string
		for n := uint32(i); n != 0; n = s.Parents[n] {
			l := s.Locations[s.NodeLocations[n]]
			frame := fmt.Sprintf("%x", l.Address)
			for _, line := range l.Lines {
				frame += fmt.Sprintf("|%s:%d", s.Strings[s.Functions[line.Function].Name], line.Line)
			}
			frames = append(frames, frame)
		}
		if v != 0 {
			sums[strings.Join(frames, ";")] += v
		}
	}
	return sums
}

// TestOracle compares a tree and stacks with google/pprof.
func TestOracle(t *testing.T) {
	s := store(t)
	b := open(s.Bucket)
	model := querybackendtest.NewModel(
		querybackendtest.Push("one", "api-gateway-cpu-0", epoch, "pod", "a"), querybackendtest.Push("one", "regexp-cpu-0", epoch, "pod", "b"),
		querybackendtest.Push("one", "api-gateway-cpu-2", epoch, "pod", "b"), querybackendtest.Push("one", "regexp-cpu-1", epoch, "pod", "a"))
	for _, selector := range []string{`{}`, `{pod="b"}`, `{endpoint=~".+", pod="a"}`} {
		want := querybackendtest.Sum(model.Pick("one", 0, 1<<62, selector, cpu))
		tree, err := query.TreeFromProto(mustInvoke(t, b, "one", askTree(selector, cpu), leaf(s.Entries()...)).Report.Tree)
		if err != nil {
			t.Fatal(err)
		}
		functions := map[string]oracle.Weight{}
		for _, f := range flamegraph.Functions(tree) {
			functions[f.Name] = oracle.Weight{Self: f.Self, Total: f.Total}
		}
		if tree.Total() != want.Total || !maps.Equal(functions, want.Functions) {
			t.Errorf("%s: tree of %d, want %d", selector, tree.Total(), want.Total)
		}
		total := int64(0)
		for _, v := range mustInvoke(t, b, "one", askStacks(selector, cpu), leaf(s.Entries()...)).Report.Stacks.Self {
			total += v
		}
		if total != want.Total {
			t.Errorf("%s: stacks of %d, want %d", selector, total, want.Total)
		}
	}
}

// TestIsolation: a plan that names another tenant's datasets, or nothing else, reads none of them.
func TestIsolation(t *testing.T) {
	s := store(t)
	b := open(s.Bucket)
	both := s.Entries()[0]
	for name, q := range questions() {
		answer := fmt.Sprint(mustInvoke(t, b, "one", q, leaf(both)).Report)
		if strings.Contains(answer, "secret") {
			t.Errorf("%s: the other tenant's labels are in the answer", name)
		}
	}
	one := mustInvoke(t, b, "one", askTree(`{}`, cpu), leaf(both)).Report.Tree
	two := mustInvoke(t, b, "two", askTree(`{}`, cpu), leaf(both)).Report.Tree
	sum := func(tree *queryv1.Tree) (total int64) {
		for _, v := range tree.Self {
			total += v
		}
		return total
	}
	for tenant, tree := range map[string]*queryv1.Tree{"one": one, "two": two} {
		file := map[string]string{"one": "api-gateway-cpu-0", "two": "api-gateway-cpu-1"}[tenant]
		want := querybackendtest.Sum(querybackendtest.NewModel(querybackendtest.Push(tenant, file, epoch)).Pick(tenant, 0, 1<<62, `{}`, cpu)).Total
		if sum(tree) != want {
			t.Errorf("tenant %s has %d, want %d", tenant, sum(tree), want)
		}
	}

	s.Compact(t)
	unread := open(bucket{s.Bucket, func(_ context.Context, key string, _, _ int64) error {
		t.Errorf("%s was read for another tenant", key)
		return nil
	}})
	for _, e := range s.Entries() {
		for name, q := range questions() {
			other := map[string]string{"one": "two", "two": "one"}[e.Strings[e.Tenant]]
			if res := mustInvoke(t, unread, other, q, leaf(e)); proto.Size(res.Report) != 0 || res.Statistics.Datasets != 0 {
				t.Errorf("%s: tenant %s has %v of another's block", name, other, res)
			}
		}
	}
}

// TestReadsWhatItNeeds: totals and labels never cost samples, and what the footer says costs nothing.
func TestReadsWhatItNeeds(t *testing.T) {
	s := store(t)
	entries := s.Entries()
	var mu sync.Mutex
	read := map[storagev1.SectionType]bool{}
	b := open(bucket{s.Bucket, func(_ context.Context, key string, off, n int64) error {
		mu.Lock()
		defer mu.Unlock()
		for _, e := range entries {
			for _, g := range e.Groups {
				for _, section := range g.Sections {
					if block.Key(e) == key && off < int64(section.Offset+section.Length) && off+n > int64(section.Offset) {
						read[section.Type] = true
					}
				}
			}
		}
		return nil
	}})
	ask := func(q *queryv1.Question) []storagev1.SectionType {
		clear(read)
		mustInvoke(t, b, "one", q, leaf(entries...))
		return slices.Sorted(maps.Keys(read))
	}
	table := []storagev1.SectionType{storagev1.SectionType_SECTION_TYPE_SERIES, storagev1.SectionType_SECTION_TYPE_PROFILES}
	for name, c := range map[string]struct {
		q    *queryv1.Question
		want []storagev1.SectionType
	}{
		"time series":           {askTimeSeries(`{pod="a"}`, cpu, "pod"), table},
		"names":                 {askNames(`{pod="a"}`), table},
		"types":                 {askValues(`{}`, "__profile_type__"), nil},
		"services and types":    {askSeries(`{__type__="cpu"}`, "service_name", "__profile_type__"), nil},
		"another service":       {askTree(`{service_name="none"}`, cpu), nil},
		"another type":          {askTree(`{}`, "wall:wall:nanoseconds:wall:nanoseconds"), nil},
		"another type selected": {askTree(`{__type__="wall"}`, cpu), nil},
		"another pod":           {askTree(`{pod="none"}`, cpu), table},
	} {
		if got := ask(c.q); !slices.Equal(got, c.want) {
			t.Errorf("%s: sections %v were read, want %v", name, got, c.want)
		}
	}
	if got := ask(askTree(`{}`, cpu)); len(got) != 5 {
		t.Errorf("a tree read only %v: this tested nothing", got)
	}
}

func TestMissingObject(t *testing.T) {
	s := store(t)
	gone := s.Entries()[1]
	if err := s.Bucket.Delete(t.Context(), block.Key(gone)); err != nil {
		t.Fatal(err)
	}
	b := open(s.Bucket)
	_, err := invoke(t.Context(), b, "one", askTree(`{}`, cpu), query.Plan(s.Entries(), 1, 2))
	mustFail(t, err, connect.CodeNotFound, block.Key(gone))
}

// TestCorruption flips a byte of every section: what needs the section fails and names it, what does not need it
// has the whole answer.
func TestCorruption(t *testing.T) {
	s := store(t)
	good := open(s.Bucket)
	e := s.Entries()[0]
	object, err := s.Bucket.Get(t.Context(), block.Key(e))
	if err != nil {
		t.Fatal(err)
	}
	failed := map[storagev1.SectionType]bool{}
	for name, q := range questions() {
		want := mustInvoke(t, good, "one", q, leaf(e)).Report
		for _, g := range e.Groups {
			for _, section := range g.Sections {
				bad := slices.Clone(object)
				bad[section.Offset+section.Length/2] ^= 0x10
				damaged := querybackendtest.New()
				if err := damaged.Bucket.Put(t.Context(), block.Key(e), bad); err != nil {
					t.Fatal(err)
				}
				res, err := invoke(t.Context(), open(damaged.Bucket), "one", q, leaf(e))
				if err != nil {
					mustFail(t, err, connect.CodeDataLoss, block.Key(e), section.Type.String())
					failed[section.Type] = true
				} else if !sameReport(q, res.Report, want) {
					t.Errorf("%s: a damaged %s gave another answer", name, section.Type)
				}
			}
		}
	}
	if len(failed) != 5 {
		t.Errorf("damage was noticed in %v only", failed)
	}

	short := querybackendtest.New()
	if err := short.Bucket.Put(t.Context(), block.Key(e), object[:len(object)/3]); err != nil {
		t.Fatal(err)
	}
	_, err = invoke(t.Context(), open(short.Bucket), "one", askTree(`{}`, cpu), leaf(e))
	mustFail(t, err, connect.CodeDataLoss, block.Key(e))
	wrong := proto.Clone(e).(*storagev1.BlockMeta)
	wrong.Datasets[0].Group = 99
	_, err = invoke(t.Context(), good, "one", askTree(`{}`, cpu), leaf(wrong))
	mustFail(t, err, connect.CodeDataLoss, e.Id)
}

func TestLimits(t *testing.T) {
	s := store(t)
	b := open(s.Bucket, func(c *querybackend.Config) { c.MaxDecodedBytes = 1000 })
	for name, q := range questions() {
		_, err := invoke(t.Context(), b, "one", q, query.Plan(s.Entries(), 1, 2))
		mustFail(t, err, connect.CodeResourceExhausted, "1000 bytes", "MaxDecodedBytes")
		if err != nil && strings.Contains(err.Error(), "segments/") {
			t.Errorf("%s: a limit names an object: %v", name, err)
		}
	}
	// Just enough is enough.
	need := mustInvoke(t, open(s.Bucket), "one", askTree(`{}`, cpu), leaf(s.Entries()...)).Statistics.BytesDecoded
	for limit, ok := range map[uint64]bool{need: true, need - 1: false} {
		b := open(s.Bucket, func(c *querybackend.Config) { c.MaxDecodedBytes = int64(limit) })
		if _, err := invoke(t.Context(), b, "one", askTree(`{}`, cpu), leaf(s.Entries()...)); (err == nil) != ok {
			t.Errorf("limit %d of %d bytes needed: %v", limit, need, err)
		}
	}
}

func TestBadRequests(t *testing.T) {
	s := store(t)
	b := open(s.Bucket)
	entries := leaf(s.Entries()...)
	deep := entries
	for range 20 {
		deep = &queryv1.PlanNode{Children: []*queryv1.PlanNode{deep}}
	}
	backwards := askTree(`{}`, cpu)
	backwards.Start, backwards.End = 2, 1
	for name, c := range map[string]struct {
		tenant string
		q      *queryv1.Question
		n      *queryv1.PlanNode
		says   string
	}{
		"no tenant":         {"", askTree(`{}`, cpu), entries, "tenant"},
		"no node":           {"one", askTree(`{}`, cpu), nil, "node"},
		"no question":       {"one", nil, entries, "question"},
		"nothing asked":     {"one", hour(`{}`), entries, "ask"},
		"bad selector":      {"one", askTree(`{`, cpu), entries, "{"},
		"bad type":          {"one", askTree(`{}`, "cpu"), entries, "cpu"},
		"end first":         {"one", backwards, entries, "end 1"},
		"a node of both":    {"one", askTree(`{}`, cpu), &queryv1.PlanNode{Entries: s.Entries(), Children: []*queryv1.PlanNode{entries}}, "both"},
		"a plan like a pit": {"one", askTree(`{}`, cpu), deep, "16 levels"},
	} {
		_, err := invoke(t.Context(), b, c.tenant, c.q, c.n)
		t.Run(name, func(t *testing.T) { mustFail(t, err, connect.CodeInvalidArgument, c.says) })
	}
}

// TestBucketFails: an outage is no damage, and a panic is no end.
func TestBucketFails(t *testing.T) {
	s := store(t)
	plan := query.Plan(s.Entries(), 1, 2)
	down := open(bucket{s.Bucket, func(context.Context, string, int64, int64) error { return errors.New("503 slow down") }})
	_, err := invoke(t.Context(), down, "one", askTree(`{}`, cpu), plan)
	mustFail(t, err, connect.CodeUnavailable, "slow down")
	reg := prometheus.NewRegistry()
	mad := querybackend.New(querybackend.DefaultConfig(), bucket{s.Bucket, func(context.Context, string, int64, int64) error { panic("mad") }}, slog.New(slog.DiscardHandler), reg)
	_, err = invoke(t.Context(), mad, "one", askTree(`{}`, cpu), plan)
	code := connect.CodeOf(err)
	if err == nil || code != connect.CodeInternal && code != connect.CodeDataLoss {
		t.Errorf("a panic is answered with %v", err)
	}
	if n := querybackendtest.Counter(t, reg, "kiln_query_backend_requests_total", "code", code.String()); n != 1 {
		t.Errorf("%v calls were counted as %s, want 1", n, code)
	}
}

// TestCallerLeaves: work stops where it is, also where it only waits for its turn.
func TestCallerLeaves(t *testing.T) {
	s := store(t)
	ctx, leave := context.WithCancel(t.Context())
	var reads sync.WaitGroup
	reads.Add(1)
	once := sync.OnceFunc(reads.Done)
	b := open(bucket{s.Bucket, func(ctx context.Context, _ string, _, _ int64) error {
		once()
		<-ctx.Done()
		return ctx.Err()
	}}, func(c *querybackend.Config) { c.Leaves, c.Entries = 1, 1 })
	ended := make(chan error, 3)
	for range 3 { // one reads, the others wait for it
		go func() {
			_, err := invoke(ctx, b, "one", askTree(`{}`, cpu), leaf(s.Entries()...))
			ended <- err
		}()
	}
	reads.Wait()
	leave()
	for range 3 {
		mustFail(t, <-ended, connect.CodeCanceled)
	}
}

// TestLeavesWait: no more leaves work at once than the configuration says.
func TestLeavesWait(t *testing.T) {
	s := store(t)
	var mu sync.Mutex
	working, most := map[string]bool{}, 0
	b := open(bucket{s.Bucket, func(_ context.Context, key string, _, _ int64) error {
		mu.Lock()
		defer mu.Unlock()
		if !working[key] {
			clear(working) // with one leaf of one entry at a time, a new object means that the last is done
			working[key] = true
		}
		most = max(most, len(working))
		return nil
	}}, func(c *querybackend.Config) { c.Leaves, c.Entries = 1, 1 })
	plan := query.Plan(s.Entries(), 1, 3)
	want := mustInvoke(t, open(s.Bucket), "one", askTree(`{}`, cpu), plan).Report
	if got := mustInvoke(t, b, "one", askTree(`{}`, cpu), plan).Report; !proto.Equal(got, want) || most != 1 {
		t.Errorf("%d objects at once; the answer is the same: %t", most, proto.Equal(got, want))
	}
}

func TestStatistics(t *testing.T) {
	s := store(t)
	b := open(s.Bucket)
	// Of three entries one has no regexp; regexp-cpu has no sample labels, so each profile is one row.
	got := mustInvoke(t, b, "one", askTree(`{service_name="regexp"}`, cpu), leaf(s.Entries()...)).Statistics
	if got.Entries != 3 || got.Datasets != 2 || got.Profiles != 2 || got.Samples == 0 || got.BytesFetched == 0 || got.BytesDecoded == 0 || got.Backends != 1 {
		t.Errorf("statistics are %v", got)
	}
}

// TestEdges: the start of a range is in it, its end is not.
func TestEdges(t *testing.T) {
	s := querybackendtest.New()
	q := hour(`{}`)
	for i, at := range []int64{q.Start - 1, q.Start, q.End - 1, q.End} {
		s.Segment(t,
			querybackendtest.Push("one", "regexp-cpu-0", time.Unix(0, at), "at", fmt.Sprint(i)),
			querybackendtest.Push("one", "regexp-cpu-0", epoch.Add(time.Minute), "at", "between"))
	}
	b := open(s.Bucket)
	for range 2 { // each in an object of its own, and all in one
		got := mustInvoke(t, b, "one", askValues(`{}`, "at"), leaf(s.Entries()...)).Report.Names
		if !slices.Equal(got, []string{"1", "2", "between"}) {
			t.Errorf("series %v have rows in the range", got)
		}
		if tree := mustInvoke(t, b, "one", askStacks(`{at!="between"}`, cpu), leaf(s.Entries()...)).Report.Stacks; tree.Profiles != 2 {
			t.Errorf("%d profiles are in the range", tree.Profiles)
		}
		s.Compact(t)
	}
}
