package block

import (
	"context"
	"fmt"
	"hash/crc32"
	"runtime/debug"
	"sort"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block/rollup"
	"github.com/kilndb/kiln/block/samples"
	"github.com/kilndb/kiln/block/series"
	"github.com/kilndb/kiln/block/symbols"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
)

// Reader reads one object. Each section is fetched with one range read, checked, decoded once and kept as long as
// the Reader. It is safe for concurrent use; what it returns is shared and must not be changed.
type Reader struct {
	src      Source
	meta     *storagev1.BlockMeta
	kinds    []profile.Kind
	groups   []*group
	datasets []*Dataset
}

// group is what the datasets of a group share: its sections, once they have been read.
type group struct {
	r        *Reader
	meta     *storagev1.Group
	symbols  cell[symbolTable]
	series   cell[[]labels.Labels]
	profiles cell[*table]
	trees    map[uint32]*cell[trees]
	samples  map[uint32]*cell[*samples.Section]
	rollups  map[uint32]*cell[*rollup.Section]
}

// symbolTable is a SYMBOLS section. The header is enough to check trees, and names are decoded only when asked
// for.
type symbolTable struct {
	section []byte
	counts  symbols.Counts
	decoded *cell[*profile.Symbols]
}

type trees struct {
	stack *profile.StackTree
	call  *profile.CallTree
}

// Open gives a Reader of the object that meta describes. It reads nothing, but checks that every reference in
// meta leads somewhere. Meta may name fewer datasets than the object has, and series to leave out of these; the
// Reader keeps it, so it must not be changed.
func Open(src Source, meta *storagev1.BlockMeta) (*Reader, error) {
	if err := checkMeta(meta); err != nil {
		return nil, fmt.Errorf("open object %s: %w", meta.GetId(), err)
	}
	if size := src.Size(); uint64(size) != meta.GetSize() {
		return nil, fmt.Errorf("open object %s: %w: %d bytes, its footer says %d", meta.GetId(), ErrCorrupt, size, meta.GetSize())
	}
	r := &Reader{src: src, meta: meta}
	for _, k := range meta.GetKinds() {
		r.kinds = append(r.kinds, r.kind(k))
	}
	for _, g := range meta.GetGroups() {
		r.groups = append(r.groups, newGroup(r, g))
	}
	selectors := map[uint32]labels.Selector{}
	for _, d := range meta.GetDatasets() {
		excluded, err := r.excluded(d, selectors)
		if err != nil {
			return nil, fmt.Errorf("open object %s: %w", meta.GetId(), err)
		}
		r.datasets = append(r.datasets, newDataset(r, d, excluded))
	}
	return r, nil
}

func (r *Reader) kind(m *storagev1.Kind) profile.Kind {
	name := func(i uint32) string { return r.meta.Strings[i] }
	k := profile.Kind{Name: name(m.GetName()), PeriodType: name(m.GetPeriodType()), PeriodUnit: name(m.GetPeriodUnit())}
	for _, t := range m.GetSampleTypes() {
		k.SampleTypes = append(k.SampleTypes, profile.SampleType{Type: name(t.GetType()), Unit: name(t.GetUnit())})
	}
	return k
}

func newGroup(r *Reader, m *storagev1.Group) *group {
	g := &group{r: r, meta: m, trees: map[uint32]*cell[trees]{}, samples: map[uint32]*cell[*samples.Section]{}, rollups: map[uint32]*cell[*rollup.Section]{}}
	for i, s := range m.GetSections() {
		switch s.GetType() {
		case storagev1.SectionType_SECTION_TYPE_TREES:
			g.trees[uint32(i)] = &cell[trees]{}
		case storagev1.SectionType_SECTION_TYPE_SAMPLES:
			g.samples[uint32(i)] = &cell[*samples.Section]{}
		case storagev1.SectionType_SECTION_TYPE_ROLLUP:
			g.rollups[uint32(i)] = &cell[*rollup.Section]{}
		}
	}
	return g
}

// Meta returns the footer.
func (r *Reader) Meta() *storagev1.BlockMeta { return r.meta }

// Datasets returns the datasets, sorted by (tenant, service).
func (r *Reader) Datasets() []*Dataset { return r.datasets }

// Tenants returns the tenants that have datasets in the objects, sorted.
func Tenants(readers ...*Reader) []string {
	seen := map[string]bool{}
	var all []string
	for _, r := range readers {
		for _, d := range r.datasets {
			if !seen[d.Tenant] {
				seen[d.Tenant] = true
				all = append(all, d.Tenant)
			}
		}
	}
	sort.Strings(all)
	return all
}

// fetch reads one section and checks its CRC.
func (g *group) fetch(ctx context.Context, s *storagev1.Section) ([]byte, error) {
	b, err := g.r.src.ReadRange(ctx, int64(s.GetOffset()), int64(s.GetLength()))
	if err != nil {
		return nil, err
	}
	if uint64(len(b)) != s.GetLength() {
		return nil, fmt.Errorf("%w: read %d bytes of %d", ErrCorrupt, len(b), s.GetLength())
	}
	if crc := crc32.Checksum(b, castagnoli); crc != s.GetCrc() {
		return nil, fmt.Errorf("%w: CRC %08x, want %08x", ErrCorrupt, crc, s.GetCrc())
	}
	return b, nil
}

// only returns the section of a type of which a group has one.
func (g *group) only(t storagev1.SectionType) *storagev1.Section {
	for _, s := range g.meta.GetSections() {
		if s.GetType() == t {
			return s
		}
	}
	panic(fmt.Sprintf("block: no section of type %s, which Open checked", t))
}

// load fetches and decodes a section. It names object and section in errors, and turns a panic of a decoder
// into one: kiln's own check before they index, but not every line below parquet-go does.
func load[T any](ctx context.Context, g *group, s *storagev1.Section, decode func([]byte) (T, error)) (v T, err error) {
	defer g.guard(s, &err)
	b, err := g.fetch(ctx, s)
	if err != nil {
		return v, err
	}
	return decode(b)
}

func (g *group) guard(s *storagev1.Section, err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%w: %v\n%s", ErrCorrupt, p, debug.Stack())
	}
	if *err != nil {
		*err = fmt.Errorf("object %s, section %s at byte %d: %w", g.r.meta.GetId(), s.GetType(), s.GetOffset(), *err)
	}
}

func (g *group) loadSymbols(ctx context.Context) (symbolTable, error) {
	return g.symbols.get(ctx, func() (symbolTable, error) {
		return load(ctx, g, g.only(storagev1.SectionType_SECTION_TYPE_SYMBOLS), func(b []byte) (symbolTable, error) {
			n, err := symbols.ReadCounts(b)
			return symbolTable{b, n, &cell[*profile.Symbols]{}}, err
		})
	})
}

func (g *group) loadNames(ctx context.Context) (*profile.Symbols, error) {
	t, err := g.loadSymbols(ctx)
	if err != nil {
		return nil, err
	}
	return t.decoded.get(ctx, func() (s *profile.Symbols, err error) {
		defer g.guard(g.only(storagev1.SectionType_SECTION_TYPE_SYMBOLS), &err)
		return symbols.DecodeSymbols(t.section)
	})
}

func (g *group) loadSeries(ctx context.Context) ([]labels.Labels, error) {
	return g.series.get(ctx, func() ([]labels.Labels, error) {
		return load(ctx, g, g.only(storagev1.SectionType_SECTION_TYPE_SERIES), series.Decode)
	})
}

func (g *group) loadProfiles(ctx context.Context) (*table, error) {
	return g.profiles.get(ctx, func() (*table, error) {
		return load(ctx, g, g.only(storagev1.SectionType_SECTION_TYPE_PROFILES), parseTable)
	})
}

func (g *group) loadTrees(ctx context.Context, i uint32) (trees, error) {
	t, err := g.loadSymbols(ctx)
	if err != nil {
		return trees{}, err
	}
	return g.trees[i].get(ctx, func() (trees, error) {
		return load(ctx, g, g.meta.Sections[i], func(b []byte) (trees, error) {
			stack, call, err := symbols.DecodeTrees(b, t.counts)
			if err == nil && g.meta.GetSorted() != (call != nil) {
				err = errCallTree(g, call != nil)
			}
			return trees{stack, call}, err
		})
	})
}

// readStackTree reads the stack tree of a TREES section and keeps nothing: a merge has no use for the call tree. The
// section is decoded by decode, which may know it from elsewhere, and which says whether there is a call tree.
func (g *group) readStackTree(ctx context.Context, i uint32, decode func([]byte) (*profile.StackTree, bool, error)) (*profile.StackTree, error) {
	return load(ctx, g, g.meta.Sections[i], func(b []byte) (*profile.StackTree, error) {
		stack, hasCall, err := decode(b)
		if err == nil && g.meta.GetSorted() != hasCall {
			err = errCallTree(g, hasCall)
		}
		return stack, err
	})
}

// errCallTree says that a TREES section is not of the form that its group asks for.
func errCallTree(g *group, has bool) error {
	return fmt.Errorf("%w: a call tree is %t in a group that is sorted: %t", ErrCorrupt, has, g.meta.GetSorted())
}

func (g *group) loadSamples(ctx context.Context, i uint32, columns int, extras ...samples.Extra) (*samples.Section, error) {
	return g.samples[i].get(ctx, func() (*samples.Section, error) {
		return load(ctx, g, g.meta.Sections[i], func(b []byte) (*samples.Section, error) {
			return samples.Parse(b, columns, extras...)
		})
	})
}
