package block

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync/atomic"
	"testing"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/pprof"
)

// object is an object in memory that counts what is read of it.
type object struct {
	b     []byte
	reads atomic.Int64
	bytes atomic.Int64
}

func (o *object) Size() int64 { return int64(len(o.b)) }

func (o *object) ReadRange(_ context.Context, off, n int64) ([]byte, error) {
	o.reads.Add(1)
	o.bytes.Add(n)
	if off < 0 || n < 0 || off+n > int64(len(o.b)) {
		return nil, fmt.Errorf("read %d bytes at %d of %d", n, off, len(o.b))
	}
	return o.b[off : off+n : off+n], nil
}

func open(t testing.TB, b []byte) *Reader {
	t.Helper()
	src := &object{b: b}
	meta, err := ReadMeta(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open(src, meta)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// decoded is a profile that a test pushes.
type decoded struct {
	p       *profile.Profile
	service string
	kind    string
}

// decode decodes and normalises a corpus file.
func decode(t testing.TB, f corpus.File) decoded {
	t.Helper()
	p := &profile.Profile{}
	lim := pprof.Limits{MaxBytes: 64 << 20, MaxRatio: 10000, MaxSamples: 1 << 20, MaxSampleTypes: 32, MaxSampleLabels: 100}
	if err := pprof.NewDecoder().Decode(f.Gzipped, lim, p); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Normalise(profile.Limits{MaxStackDepth: 1 << 20, MaxSymbolLength: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	return decoded{p, f.Service(), f.Kind()}
}

// head gathers profiles as a segment-writer does and writes them as one object.
type head struct {
	tenants map[string]*tenantHead
}

type tenantHead struct {
	table  *profile.Table
	stacks profile.StackSet
	remap  profile.Remap
	series []labels.Labels
	ids    map[string]uint32
	rows   map[string]*headRows
	nodes  []uint32
}

type headRows struct {
	service string
	kind    profile.Kind
	rows    []headRow
}

type headRow struct {
	p      Profile
	stacks []uint32
	values [][]int64
	extras rowExtras
	// sorted says that stacks and values are in the order of stack nodes.
	sorted bool
}

func (h *head) tenant(name string) *tenantHead {
	if h.tenants == nil {
		h.tenants = map[string]*tenantHead{}
	}
	th := h.tenants[name]
	if th == nil {
		th = &tenantHead{table: profile.NewTable(), ids: map[string]uint32{}, rows: map[string]*headRows{}}
		h.tenants[name] = th
	}
	return th
}

// push takes every series of a profile into the head.
func (h *head) push(tenant string, d decoded, at int64, id profile.ID, base labels.Labels) {
	th := h.tenant(tenant)
	th.table.Add(&d.p.Symbols, &th.remap)
	for _, s := range d.p.Series {
		ls := base.With(labels.ServiceName, d.service)
		for _, l := range s.Labels {
			ls = ls.With(l.Name, l.Value)
		}
		row := headRow{p: Profile{Time: at, Series: th.id(ls), ID: id, Duration: d.p.DurationNanos, Period: d.p.Period}}
		row.values = make([][]int64, len(d.p.SampleTypes))
		for _, i := range d.p.Order[s.First : s.First+s.Count] {
			var stack []uint32
			for _, l := range d.p.Stack(int(i)) {
				stack = append(stack, th.remap.Locations[l])
			}
			row.stacks = append(row.stacks, th.stacks.Add(stack))
			for c, v := range d.p.Row(int(i)) {
				row.values[c] = append(row.values[c], v)
			}
			row.extras.addOf(d.p, int(i))
		}
		th.add(d.service, d.p.Kind(d.kind), row)
	}
}

func (th *tenantHead) id(ls labels.Labels) uint32 {
	key := ls.String()
	id, ok := th.ids[key]
	if !ok {
		id = uint32(len(th.series))
		th.ids[key] = id
		th.series = append(th.series, ls)
	}
	return id
}

func (th *tenantHead) add(service string, k profile.Kind, row headRow) {
	key := service + "\x00" + k.Key()
	hr := th.rows[key]
	if hr == nil {
		hr = &headRows{service: service, kind: k}
		th.rows[key] = hr
	}
	hr.rows = append(hr.rows, row)
}

// write writes the head as an unsorted object.
func (h *head) write(t testing.TB, w *Writer) *storagev1.BlockMeta {
	t.Helper()
	var names []string
	for n := range h.tenants {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		h.tenants[n].write(t, w.Group(n, false))
	}
	m, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (th *tenantHead) write(t testing.TB, g *GroupWriter) {
	t.Helper()
	var tree profile.StackTree
	nodes := th.stacks.Tree(&tree, nil)
	g.Symbols(&th.table.Symbols)
	g.Series(th.series)
	trees := g.Trees(&tree, nil)
	var all []*headRows
	for _, hr := range th.rows {
		all = append(all, hr)
	}
	slices.SortFunc(all, func(a, b *headRows) int {
		return cmp.Or(strings.Compare(a.service, b.service), a.kind.Compare(b.kind))
	})
	for _, hr := range all {
		rw := g.Rows(hr.service, hr.kind, trees)
		slices.SortStableFunc(hr.rows, func(a, b headRow) int { return a.p.compare(&b.p) })
		for i := range hr.rows {
			row := &hr.rows[i]
			row.sort(nodes)
			th.nodes = th.nodes[:0]
			for _, s := range row.stacks {
				th.nodes = append(th.nodes, nodes[s])
			}
			if err := rw.AppendExtras(row.p, th.nodes, row.values, &row.extras.Extras); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
}

// sort puts the row's stacks and values in the order of stack nodes, which later pushes do not change.
func (row *headRow) sort(nodes []uint32) {
	if row.sorted {
		return
	}
	row.sorted = true
	order := make([]int, len(row.stacks))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(nodes[row.stacks[a]], nodes[row.stacks[b]]), row.extras.Compare(a, b))
	})
	stacks, values := slices.Clone(row.stacks), make([][]int64, len(row.values))
	for i, o := range order {
		row.stacks[i] = stacks[o]
	}
	for c := range values {
		for _, o := range order {
			values[c] = append(values[c], row.values[c][o])
		}
	}
	row.values = values
	row.extras = row.extras.ordered(order)
}

// segment writes a head as a segment and returns its bytes.
func (h *head) segment(t testing.TB, id string) []byte {
	t.Helper()
	var out bytes.Buffer
	h.write(t, NewWriter(&out, Header{ID: id, Shard: 3, Writer: "node-1"}))
	return out.Bytes()
}

// stackText is a stack as text, root first: names, files, lines, addresses and mappings, as the oracle writes it.
func stackText(s *profile.Symbols, tree *profile.StackTree, node uint32) string {
	var parts []string
	for ; node != 0; node = tree.Parents[node] {
		parts = append(parts, locationText(s, tree.Locations[node]))
	}
	slices.Reverse(parts)
	return strings.Join(parts, ";")
}

func locationText(s *profile.Symbols, i uint32) string {
	l := s.Locations[i]
	var b strings.Builder
	fmt.Fprintf(&b, "0x%x", l.Address)
	if l.Mapping != 0 {
		m := s.Mappings[l.Mapping]
		fmt.Fprintf(&b, "@%x-%x+%x %s %s", m.Start, m.Limit, m.Offset, s.String(m.File), s.String(m.BuildID))
	}
	for _, ln := range s.LinesOf(i) {
		f := s.Functions[ln.Function]
		fmt.Fprintf(&b, "|%s %s %s:%d:%d:%d", s.String(f.Name), s.String(f.SystemName), s.String(f.File), f.StartLine, ln.Line, ln.Column)
	}
	return b.String()
}

// content is everything an object says about a tenant, as a map from text to value.
func content(t testing.TB, readers []*Reader, tenant string) map[string]int64 {
	t.Helper()
	all := map[string]int64{}
	for _, r := range readers {
		for _, d := range r.Datasets() {
			if d.Tenant == tenant {
				for _, rows := range d.Rows {
					addContent(t, all, d, rows)
				}
			}
		}
	}
	return all
}

func addContent(t testing.TB, all map[string]int64, d *Dataset, rows *Rows) {
	t.Helper()
	ctx := t.Context()
	sym, err := d.Symbols(ctx)
	if err != nil {
		t.Fatal(err)
	}
	series, err := d.Series(ctx)
	if err != nil {
		t.Fatal(err)
	}
	stack, _, err := rows.Trees(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ps, err := rows.Profiles(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ss, err := rows.Samples(ctx, ps)
	if err != nil {
		t.Fatal(err)
	}
	texts := map[uint32]string{}
	for i := range ps.Len() {
		stacks, values, err := ss.Profile(i)
		if err != nil {
			t.Fatal(err)
		}
		head := fmt.Sprintf("%s %s %d %s %s %d %d", d.Service, rows.Kind.Key(), ps.Times[i], series[ps.Series[i]], ps.IDs[i], ps.Durations[i], ps.Periods[i])
		for c := range rows.Kind.SampleTypes {
			all[fmt.Sprintf("%s total %d", head, c)] += ps.Totals[c][i]
		}
		x, err := ss.Extras(i)
		if err != nil {
			t.Fatal(err)
		}
		for j, node := range stacks {
			if texts[node] == "" {
				texts[node] = stackText(sym, stack, node)
			}
			for c := range values {
				all[fmt.Sprintf("%s %s %d%s", head, texts[node], c, extraText(x, j))] += values[c][j]
			}
		}
	}
}

func sameContent(t testing.TB, what string, got, want map[string]int64) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d rows, want %d", what, len(got), len(want))
	}
	shown := 0
	for k, v := range want {
		if g, ok := got[k]; g != v || !ok {
			t.Errorf("%s: %s is %d, want %d", what, k, g, v)
			if shown++; shown > 3 {
				t.FailNow()
			}
		}
	}
}
