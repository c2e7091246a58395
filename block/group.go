package block

import (
	"fmt"
	"math"
	"slices"
	"strings"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block/samples"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
)

// GroupWriter writes one group. Symbols and Series come first, each once; then Trees and Rows, by (service,
// kind) in ascending order; then Close.
//
// It keeps the columns of the PROFILES table and the sample pages of the group until Close. A group that
// is declared alone keeps no finished pages.
type GroupWriter struct {
	w      *Writer
	tenant string
	sorted bool
	// alone: the group has one service, so that each kind comes once and its pages can be written at once.
	alone bool
	index uint32
	meta  *storagev1.Group

	hasSymbols, hasSeries bool
	locations, names      uint32
	series                []labels.Labels
	// nodes of the stack tree in each section that is one.
	nodes map[int]uint32

	rows    rowBuffer
	kinds   []kindSamples
	current RowsWriter
	last    *rowsKey
	dataset *storagev1.Dataset
	// used are the series of the dataset, in a sorted group: the filter of its labels is made of them.
	used    sparse
	sets    []labels.Labels
	pending []pendingRollup
}

// kindSamples is the SAMPLES section of one kind.
type kindSamples struct {
	kind   uint32
	writer *samples.Writer
	rows   []*storagev1.Rows
	// extraStarts are the column starts of rows in the extra columns, of which it is known at the end which there are.
	extraStarts [][samples.NumExtras]uint64
	section     uint32
	raw         uint64 // inflated bytes
}

// rowsKey orders the rows of a group.
type rowsKey struct {
	service string
	kind    profile.Kind
}

func (k *rowsKey) compare(o *rowsKey) int {
	if c := strings.Compare(k.service, o.service); c != 0 {
		return c
	}
	return k.kind.Compare(o.kind)
}

// Group begins a group of the tenant. Sorted says that names, siblings and stacks are in the total order, and
// that every stack tree comes with its call tree. Only one group is open at a time.
func (w *Writer) Group(tenant string, sorted bool) *GroupWriter {
	return w.beginGroup(tenant, sorted, false)
}

func (w *Writer) beginGroup(tenant string, sorted, alone bool) *GroupWriter {
	if w.open != nil {
		w.misuse("a group is still open")
		w.open.release()
	}
	if w.done {
		w.misuse("the object has ended")
	}
	if w.header.Tenant != "" && tenant != w.header.Tenant {
		w.misuse("a group of tenant %q in an object of tenant %q", tenant, w.header.Tenant)
	}
	g := &w.group
	nodes := g.nodes
	if nodes == nil {
		nodes = map[int]uint32{}
	}
	clear(nodes)
	*g = GroupWriter{w: w, tenant: tenant, sorted: sorted, alone: alone, nodes: nodes, rows: g.rows, kinds: g.kinds[:0],
		current: RowsWriter{scratch: g.current.scratch}, pending: g.pending[:0], used: g.used, sets: g.sets[:0]}
	g.rows.reset()
	g.index = uint32(len(w.meta.Groups))
	g.meta = &storagev1.Group{Tenant: w.ref(tenant), Sorted: sorted}
	w.meta.Groups = append(w.meta.Groups, g.meta)
	w.open = g
	return g
}

// section writes one whole section and returns its index in the group.
func (g *GroupWriter) section(t storagev1.SectionType, b []byte) uint32 {
	g.w.begin(t)
	g.w.write(b)
	g.meta.Sections = append(g.meta.Sections, g.w.end())
	return uint32(len(g.meta.Sections) - 1)
}

// Symbols writes the names of the group.
func (g *GroupWriter) Symbols(s *profile.Symbols) {
	if g.hasSymbols {
		g.w.misuse("symbols of a group written twice")
	}
	if len(s.Strings) == 0 || len(s.Mappings) == 0 || len(s.Functions) == 0 {
		g.w.misuse("symbols without entry 0 of a table")
		return
	}
	g.hasSymbols = true
	g.locations, g.names = uint32(len(s.Locations)), uint32(len(s.Strings))
	b, err := g.w.symbols.AppendSymbols(g.w.buf[:0], s, g.w.level)
	if err != nil {
		g.w.misuse("symbols: %v", err)
	}
	g.w.buf = b
	g.section(storagev1.SectionType_SECTION_TYPE_SYMBOLS, b)
}

// Series writes the label sets of the group; their indexes are the series ids. The sets have a service name but
// not the name of a kind.
func (g *GroupWriter) Series(all []labels.Labels) {
	if g.hasSeries {
		g.w.misuse("series of a group written twice")
	}
	g.hasSeries, g.series = true, all
	b, err := g.w.series.Append(g.w.buf[:0], all, g.w.level)
	if err != nil {
		g.w.misuse("series: %v", err)
	}
	g.w.buf = b
	g.section(storagev1.SectionType_SECTION_TYPE_SERIES, b)
}

// Trees writes a stack tree and, in a sorted group, its call tree. It returns the number by which Rows names
// them.
func (g *GroupWriter) Trees(stack *profile.StackTree, call *profile.CallTree) (trees int) {
	g.endRows()
	switch {
	case !g.hasSymbols:
		g.w.misuse("trees before symbols")
	case g.sorted != (call != nil):
		g.w.misuse("a call tree is %t in a group that is sorted: %t", call != nil, g.sorted)
	case len(stack.Parents) == 0 || len(stack.Parents) != len(stack.Locations):
		g.w.misuse("a stack tree of %d parents and %d locations", len(stack.Parents), len(stack.Locations))
	case call != nil && len(call.OfStack) != len(stack.Parents):
		g.w.misuse("a call tree for %d stack nodes of %d", len(call.OfStack), len(stack.Parents))
	}
	if g.w.err != nil {
		return 0
	}
	b, err := g.w.symbols.AppendTrees(g.w.buf[:0], stack, call, g.w.level)
	if err != nil {
		g.w.misuse("%v", err)
		return 0
	}
	g.w.buf = b
	trees = int(g.section(storagev1.SectionType_SECTION_TYPE_TREES, b))
	g.nodes[trees] = uint32(len(stack.Parents))
	return trees
}

// Rows begins the rows of one kind of one service, whose stacks are nodes of those trees. The previous
// RowsWriter must not be used any more. Rows without a profile leave no trace.
func (g *GroupWriter) Rows(service string, k profile.Kind, trees int) *RowsWriter {
	g.endRows()
	key := &rowsKey{service, k}
	nodes, ok := g.nodes[trees]
	switch {
	case !ok:
		g.w.misuse("rows of trees %d, which are not in the group", trees)
	case !g.hasSeries:
		g.w.misuse("rows before series")
	case len(k.SampleTypes) == 0 || len(k.SampleTypes) > math.MaxUint8-1:
		g.w.misuse("a kind of %d sample types", len(k.SampleTypes))
	case g.last != nil && g.last.compare(key) >= 0:
		g.w.misuse("rows of %q %s after those of %q %s", service, k.Name, g.last.service, g.last.kind.Name)
	}
	if g.alone && g.dataset != nil && service != g.last.service {
		g.w.misuse("a second service in a group of one")
	}
	if g.last != nil && g.last.service != service {
		g.endDataset()
	}
	g.last = key
	r := &g.current
	*r = RowsWriter{g: g, service: service, kind: k, trees: uint32(trees), nodes: nodes, scratch: r.scratch}
	r.sums = make([]int64, len(k.SampleTypes))
	return r
}

// endDataset ends the dataset at hand.
func (g *GroupWriter) endDataset() {
	if g.dataset != nil && g.sorted {
		g.dataset.LabelFilter = labelFilter(g.sets)
	}
	clear(g.sets)
	g.dataset, g.sets = nil, g.sets[:0]
}

// use notes that the dataset has a series.
func (g *GroupWriter) use(series uint32) {
	if !g.sorted {
		return
	}
	if _, ok := g.used.get(series); !ok {
		g.used.set(series, 0)
		g.sets = append(g.sets, g.series[series])
	}
}

// samplesOf returns the section of a kind, which it begins if there is none yet.
func (g *GroupWriter) samplesOf(kind uint32, types int) *kindSamples {
	if k := g.kindOf(kind); k != nil {
		return k
	}
	var sw *samples.Writer
	if n := len(g.w.idle); n > 0 {
		sw, g.w.idle = g.w.idle[n-1], g.w.idle[:n-1]
	} else {
		sw = &samples.Writer{}
	}
	if g.alone {
		g.w.begin(storagev1.SectionType_SECTION_TYPE_SAMPLES)
		sw.Reset(1+types, rowCompression, sectionWriter{g.w})
	} else {
		sw.Reset(1+types, rowCompression, nil)
	}
	g.kinds = append(g.kinds, kindSamples{kind: kind, writer: sw})
	return &g.kinds[len(g.kinds)-1]
}

// endRows ends the rows at hand, and their section if it was streamed.
func (g *GroupWriter) endRows() {
	if g.current.rows == nil {
		return
	}
	g.current.rows = nil
	if g.alone {
		g.finishSamples(&g.kinds[len(g.kinds)-1])
		g.writeRollups()
	}
}

// kindOf returns the section of a kind, nil if there is none.
func (g *GroupWriter) kindOf(kind uint32) *kindSamples {
	i := slices.IndexFunc(g.kinds, func(k kindSamples) bool { return k.kind == kind })
	if i < 0 {
		return nil
	}
	return &g.kinds[i]
}

func (g *GroupWriter) finishSamples(k *kindSamples) {
	extras := k.writer.Extras()
	b, err := k.writer.Finish()
	if err != nil {
		g.w.fail(fmt.Errorf("write samples: %w", err))
	}
	if g.alone {
		g.meta.Sections = append(g.meta.Sections, g.w.end())
		k.section = uint32(len(g.meta.Sections) - 1)
		g.w.idle = append(g.w.idle, k.writer) // the next kind uses the same memory
		k.writer = nil
	} else {
		k.section = g.section(storagev1.SectionType_SECTION_TYPE_SAMPLES, b)
	}
	for i, r := range k.rows {
		r.SamplesSection = k.section
		for _, e := range extras {
			r.Columns = append(r.Columns, rowColumn(e))
			r.ColumnStarts = append(r.ColumnStarts, k.extraStarts[i][e])
		}
	}
}

// Close ends the group and returns the first error of the Writer so far.
func (g *GroupWriter) Close() error {
	if g.w.open != g {
		g.w.misuse("group closed twice")
		return g.w.err
	}
	g.endRows()
	g.endDataset()
	if !g.hasSymbols || !g.hasSeries {
		g.w.misuse("a group without symbols or series")
	}
	if g.w.err == nil {
		if !g.alone {
			for i := range g.kinds {
				g.finishSamples(&g.kinds[i])
			}
			g.writeRollups()
		}
		g.profiles()
	}
	g.release()
	g.w.open = nil
	return g.w.err
}

// profiles writes the PROFILES table.
func (g *GroupWriter) profiles() {
	s := g.rows.shape()
	t := g.w.tables[s]
	if t == nil {
		t = newTableWriter(s)
		g.w.tables[s] = t
	}
	g.w.begin(storagev1.SectionType_SECTION_TYPE_PROFILES)
	if err := t.write(sectionWriter{g.w}, &g.rows); err != nil {
		g.w.fail(err)
		return
	}
	g.meta.Sections = append(g.meta.Sections, g.w.end())
}

// release gives the samples writers back.
func (g *GroupWriter) release() {
	g.w.section = 0
	g.series = nil
	clear(g.sets)
	for i := range g.kinds {
		if sw := g.kinds[i].writer; sw != nil {
			g.w.idle = append(g.w.idle, sw)
		}
		g.kinds[i] = kindSamples{}
	}
	g.kinds = g.kinds[:0]
}
