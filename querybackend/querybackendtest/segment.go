package querybackendtest

import (
	"bytes"
	"cmp"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/pprof"
	"github.com/kilndb/kiln/tenant"
)

// head gathers the profiles of one tenant, slowly and obviously.
type head struct {
	t        testing.TB
	table    *profile.Table
	stacks   profile.StackSet
	series   []labels.Labels
	seriesOf map[string]uint32
	rows     []row
}

// row is one profile of one series.
type row struct {
	service string
	kind    profile.Kind
	profile block.Profile
	// Per sample, one value per sample type.
	values map[sample][]int64
	// Whether some sample has a span, or a trace.
	spans, traces bool
}

// sample is a stack of the set, and the request that it was taken in.
type sample struct {
	stack uint32
	span  profile.SpanID
	trace profile.TraceID
}

func writeSegment(t testing.TB, out io.Writer, profiles []Pushed) *storagev1.BlockMeta {
	t.Helper()
	heads := map[string]*head{}
	for _, p := range profiles {
		h := heads[p.Tenant]
		if h == nil {
			h = &head{t: t, table: profile.NewTable(), seriesOf: map[string]uint32{}}
			heads[p.Tenant] = h
		}
		h.add(p)
	}
	w := block.NewWriter(out, block.Header{ID: ulid.Make().String(), Writer: "test"})
	for _, tenant := range slices.Sorted(maps.Keys(heads)) {
		heads[tenant].write(w.Group(tenant, false))
	}
	meta, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return meta
}

func (h *head) add(pushed Pushed) {
	h.t.Helper()
	limits := tenant.DefaultLimits()
	var p profile.Profile
	if err := pprof.NewDecoder().Decode(pushed.Body, pprof.Limits{MaxBytes: 64 << 20}, &p); err != nil {
		h.t.Fatal(err)
	}
	if _, err := p.Normalise(profile.Limits{MaxStackDepth: limits.MaxStackDepth, MaxSymbolLength: limits.MaxSymbolLength}); err != nil {
		h.t.Fatal(err)
	}
	var remap profile.Remap
	h.table.Add(&p.Symbols, &remap)
	for _, s := range p.Series {
		ls := pushed.Labels
		for _, l := range s.Labels {
			ls = ls.With(l.Name, l.Value)
		}
		r := row{
			service: ls.Get(labels.ServiceName), kind: p.Kind(pushed.Kind), values: map[sample][]int64{},
			spans: len(p.Spans) > 0, traces: len(p.Traces) > 0,
			profile: block.Profile{Time: pushed.Time.UnixNano(), Series: h.seriesID(ls), ID: pushed.ID, Duration: p.DurationNanos, Period: p.Period},
		}
		for _, i := range p.Order[s.First : s.First+s.Count] {
			var stack []uint32
			for _, l := range p.Stack(int(i)) {
				stack = append(stack, remap.Locations[l])
			}
			id := sample{stack: h.stacks.Add(stack)}
			if r.spans {
				id.span = p.Spans[i]
			}
			if r.traces {
				id.trace = p.Traces[i]
			}
			if r.values[id] == nil {
				r.values[id] = make([]int64, len(p.SampleTypes))
			}
			for j, v := range p.Row(int(i)) {
				r.values[id][j] += v
			}
		}
		h.rows = append(h.rows, r)
	}
}

func (h *head) seriesID(ls labels.Labels) uint32 {
	id, ok := h.seriesOf[ls.String()]
	if !ok {
		id = uint32(len(h.series))
		h.seriesOf[ls.String()] = id
		h.series = append(h.series, ls)
	}
	return id
}

func (h *head) write(g *block.GroupWriter) {
	h.t.Helper()
	var tree profile.StackTree
	nodes := h.stacks.Tree(&tree, nil)
	g.Symbols(&h.table.Symbols)
	g.Series(h.series)
	trees := g.Trees(&tree, nil)
	slices.SortStableFunc(h.rows, func(a, b row) int {
		return cmp.Or(strings.Compare(a.service, b.service), a.kind.Compare(b.kind), cmp.Compare(a.profile.Time, b.profile.Time),
			cmp.Compare(a.profile.Series, b.profile.Series), bytes.Compare(a.profile.ID[:], b.profile.ID[:]))
	})
	var w *block.RowsWriter
	for i, r := range h.rows {
		if i == 0 || r.service != h.rows[i-1].service || !r.kind.Equal(h.rows[i-1].kind) {
			w = g.Rows(r.service, r.kind, trees)
		}
		samples := slices.SortedFunc(maps.Keys(r.values), func(a, b sample) int {
			return cmp.Or(cmp.Compare(nodes[a.stack], nodes[b.stack]), bytes.Compare(a.span[:], b.span[:]), bytes.Compare(a.trace[:], b.trace[:]))
		})
		var stacks []uint32
		var extras block.Extras
		columns := make([][]int64, len(r.kind.SampleTypes))
		for _, s := range samples {
			for c, v := range r.values[s] {
				columns[c] = append(columns[c], v)
			}
			stacks = append(stacks, nodes[s.stack])
			if r.spans {
				extras.Spans = append(extras.Spans, s.span)
			}
			if r.traces {
				extras.Traces = append(extras.Traces, s.trace)
			}
		}
		if err := w.AppendExtras(r.profile, stacks, columns, &extras); err != nil {
			h.t.Fatal(err)
		}
	}
	if err := g.Close(); err != nil {
		h.t.Fatal(err)
	}
}
