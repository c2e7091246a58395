package inspecttest

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/pprof"
)

// Push is one profile on its way into a segment.
type Push struct {
	Tenant, Service, Kind string
	Time                  int64
	ID                    profile.ID
	Labels                labels.Labels
	// Body is pprof, gzipped or not.
	Body []byte
	// Times are when each of its samples was seen; nil: nobody knows.
	Times [][]int64
}

// Object is an object in memory.
type Object []byte

// Size returns its length.
func (o Object) Size() int64 { return int64(len(o)) }

// ReadRange returns a part of it.
func (o Object) ReadRange(_ context.Context, off, n int64) ([]byte, error) {
	if off < 0 || n < 0 || off+n > int64(len(o)) {
		return nil, fmt.Errorf("read %d bytes at %d of %d", n, off, len(o))
	}
	return o[off : off+n : off+n], nil
}

// Open opens an object.
func Open(t testing.TB, o Object) *block.Reader {
	t.Helper()
	meta, err := block.ReadMeta(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	r, err := block.Open(o, meta)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Merge makes a block of a tenant's datasets.
func Merge(t testing.TB, tenant string, level uint32, sources ...Object) Object {
	t.Helper()
	var readers []*block.Reader
	var ids []string
	for _, s := range sources {
		r := Open(t, s)
		readers = append(readers, r)
		ids = append(ids, r.Meta().GetId())
	}
	var out bytes.Buffer
	w := block.NewWriter(&out, block.Header{ID: "01BLOCK", Tenant: tenant, Level: level, Shard: 3, Sources: ids, Writer: "worker-1"})
	if err := block.Merge(t.Context(), tenant, readers, w); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Segment writes the profiles as one segment.
func Segment(t testing.TB, pushes ...Push) Object {
	t.Helper()
	var out bytes.Buffer
	w := block.NewWriter(&out, block.Header{ID: "01SEGMENT", Shard: 3, Writer: "node-1"})
	tenants := map[string]*head{}
	var names []string
	for _, p := range pushes {
		h := tenants[p.Tenant]
		if h == nil {
			h = &head{table: profile.NewTable(), ids: map[string]uint32{}}
			tenants[p.Tenant] = h
			names = append(names, p.Tenant)
		}
		h.push(t, p)
	}
	slices.Sort(names)
	for _, n := range names {
		tenants[n].write(t, w.Group(n, false))
	}
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// head gathers the profiles of a tenant.
type head struct {
	table  *profile.Table
	stacks profile.StackSet
	remap  profile.Remap
	series []labels.Labels
	ids    map[string]uint32
	rows   []row
}

type row struct {
	service string
	kind    profile.Kind
	profile block.Profile
	samples []sample
	// Whether any sample has a span, a trace, a time.
	spans, traces, times bool
}

type sample struct {
	stack  uint32
	values []int64
	span   profile.SpanID
	trace  profile.TraceID
	times  []int64
}

func (h *head) push(t testing.TB, push Push) {
	t.Helper()
	p := &profile.Profile{}
	lim := pprof.Limits{MaxBytes: 64 << 20, MaxRatio: 10000, MaxSamples: 1 << 20, MaxSampleTypes: 32, MaxSampleLabels: 100}
	if err := pprof.NewDecoder().Decode(push.Body, lim, p); err != nil {
		t.Fatal(err)
	}
	for _, times := range push.Times {
		p.Times = append(p.Times, times...)
		p.TimeEnds = append(p.TimeEnds, uint32(len(p.Times)))
	}
	if _, err := p.Normalise(profile.Limits{MaxStackDepth: 1 << 20, MaxSymbolLength: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	h.table.Add(&p.Symbols, &h.remap)
	for _, s := range p.Series {
		ls := push.Labels.With(labels.ServiceName, push.Service)
		for _, l := range s.Labels {
			ls = ls.With(l.Name, l.Value)
		}
		r := row{service: push.Service, kind: p.Kind(push.Kind), profile: block.Profile{
			Time: push.Time, Series: h.id(ls), ID: push.ID, Duration: p.DurationNanos, Period: p.Period,
		}, spans: len(p.Spans) > 0, traces: len(p.Traces) > 0, times: len(p.TimeEnds) > 0}
		for _, i := range p.Order[s.First : s.First+s.Count] {
			var stack []uint32
			for _, l := range p.Stack(int(i)) {
				stack = append(stack, h.remap.Locations[l])
			}
			s := sample{stack: h.stacks.Add(stack), values: slices.Clone(p.Row(int(i))), times: slices.Clone(p.TimesOf(int(i)))}
			if r.spans {
				s.span = p.Spans[i]
			}
			if r.traces {
				s.trace = p.Traces[i]
			}
			r.samples = append(r.samples, s)
		}
		h.rows = append(h.rows, r)
	}
}

func (h *head) id(ls labels.Labels) uint32 {
	key := ls.String()
	id, ok := h.ids[key]
	if !ok {
		id = uint32(len(h.series))
		h.ids[key] = id
		h.series = append(h.series, ls)
	}
	return id
}

func (h *head) write(t testing.TB, g *block.GroupWriter) {
	t.Helper()
	var tree profile.StackTree
	nodes := h.stacks.Tree(&tree, nil)
	g.Symbols(&h.table.Symbols)
	g.Series(h.series)
	trees := g.Trees(&tree, nil)
	slices.SortFunc(h.rows, func(a, b row) int {
		return cmp.Or(strings.Compare(a.service, b.service), a.kind.Compare(b.kind), cmp.Compare(a.profile.Time, b.profile.Time),
			cmp.Compare(a.profile.Series, b.profile.Series), bytes.Compare(a.profile.ID[:], b.profile.ID[:]))
	})
	var w *block.RowsWriter
	for i := range h.rows {
		r := &h.rows[i]
		if i == 0 || h.rows[i-1].service != r.service || !h.rows[i-1].kind.Equal(r.kind) {
			w = g.Rows(r.service, r.kind, trees)
		}
		slices.SortFunc(r.samples, func(a, b sample) int {
			return cmp.Or(cmp.Compare(nodes[a.stack], nodes[b.stack]), bytes.Compare(a.span[:], b.span[:]), bytes.Compare(a.trace[:], b.trace[:]))
		})
		stacks, values := make([]uint32, len(r.samples)), make([][]int64, len(r.kind.SampleTypes))
		for j, s := range r.samples {
			stacks[j] = nodes[s.stack]
			for c, v := range s.values {
				values[c] = append(values[c], v)
			}
		}
		extras := r.extras()
		if err := w.AppendExtras(r.profile, stacks, values, &extras); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
}

// extras are the extra columns of a row, whose samples are in order.
func (r *row) extras() (x block.Extras) {
	for _, s := range r.samples {
		if r.spans {
			x.Spans = append(x.Spans, s.span)
		}
		if r.traces {
			x.Traces = append(x.Traces, s.trace)
		}
		if r.times {
			x.Times = append(x.Times, s.times...)
			x.TimeEnds = append(x.TimeEnds, uint32(len(x.Times)))
		}
	}
	return x
}
