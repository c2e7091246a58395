package inspect

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/block/column"
	"github.com/kilndb/kiln/block/samples"
)

// Section is one section of a group.
type Section struct {
	Type   string `json:"type"`
	Offset uint64 `json:"offset"`
	CRC    string `json:"crc"`
	// Service and Kind are whose section it is, where it is not everybody's.
	Service string `json:"service,omitempty"`
	Kind    string `json:"kind,omitempty"`
	// Raw and Stored are the columns' and what is beside them: counts and directory, which are not compressed.
	Raw    int64 `json:"raw"`
	Stored int64 `json:"stored"`
	// Counts are how many strings, nodes, rows and so on there are.
	Counts  map[string]uint64 `json:"counts,omitempty"`
	Columns []Column          `json:"columns,omitempty"`
	// Problem is why there are no columns.
	Problem string `json:"problem,omitempty"`
}

// Column is one column of a section.
type Column struct {
	Name string `json:"name"`
	// Encoding is plain or zstd, in Parquet what Parquet calls it, and mixed where it is not the same everywhere. Of a
	// column that is not stored it is the column and the factor that it is made of: "samples count × 10000000".
	Encoding string `json:"encoding"`
	Raw      int64  `json:"raw"`
	Stored   int64  `json:"stored"`
	// Pages are those of a column of SAMPLES or ROLLUP.
	Pages []Page `json:"pages,omitempty"`
}

// Page is a part of a column that inflates alone.
type Page struct {
	Encoding string `json:"encoding"`
	Rows     uint64 `json:"rows"`
	Raw      int64  `json:"raw"`
	Stored   int64  `json:"stored"`
}

// layout says what is in a section that is a set of columns.
type layout struct {
	counts, columns []string
}

var (
	symbolsLayout = layout{
		counts: []string{"strings", "mappings", "functions", "locations", "lines"},
		columns: []string{
			"string lengths", "string bytes", "function names", "function system names", "function files", "function first lines",
			"location mappings", "location addresses", "location lines", "line functions", "line numbers", "line columns", "mappings",
		},
	}
	seriesLayout = layout{
		counts:  []string{"strings", "series", "labels"},
		columns: []string{"string lengths", "string bytes", "labels per series", "label names", "label values"},
	}
	// treesLayouts are those of the forms 0 and 1.
	treesLayouts = []layout{
		{counts: []string{"stack nodes"}, columns: []string{"stack locations", "stack parents"}},
		{
			counts:  []string{"stack nodes", "call nodes"},
			columns: []string{"stack locations", "stack parents", "call parents", "call names", "call node of stack node"},
		},
	}
)

// section takes one section apart. An error means that it could not be read.
func (o *object) section(ctx context.Context, ref sectionRef) (Section, error) {
	m := o.meta.Groups[ref.group].Sections[ref.section]
	n := int64(m.GetLength())
	s := Section{Type: typeName(m.GetType()), Offset: m.GetOffset(), CRC: fmt.Sprintf("%08x", m.GetCrc()), Raw: n, Stored: n}
	o.owner(&s, o.uses[ref])
	b, err := o.fetch(ctx, m)
	if err == nil {
		err = o.takeApart(ctx, &s, b, ref, m.GetType())
	}
	switch {
	case err == nil:
		for _, c := range s.Columns {
			s.Raw += c.Raw - c.Stored
		}
	case isCorrupt(err):
		s.Problem, s.Columns, s.Counts = err.Error(), nil, nil
	default:
		return Section{}, fmt.Errorf("section %s at byte %d: %w", s.Type, s.Offset, err)
	}
	return s, nil
}

// owner names service and kind of a section, if they are the same for all rows that name it.
func (o *object) owner(s *Section, users []use) {
	for i, u := range users {
		service := o.meta.Strings[o.meta.Datasets[u.dataset].GetService()]
		kind := o.kind(o.rows(u).GetKind()).Name
		if i == 0 {
			s.Service, s.Kind = service, kind
		}
		if s.Service != service {
			s.Service = ""
		}
		if s.Kind != kind {
			s.Kind = ""
		}
	}
}

// takeApart finds the columns of a section.
func (o *object) takeApart(ctx context.Context, s *Section, b []byte, ref sectionRef, t storagev1.SectionType) error {
	switch t {
	case storagev1.SectionType_SECTION_TYPE_SYMBOLS:
		return s.set(column.Cursor{Data: b}, symbolsLayout)
	case storagev1.SectionType_SECTION_TYPE_SERIES:
		return s.set(column.Cursor{Data: b}, seriesLayout)
	case storagev1.SectionType_SECTION_TYPE_TREES:
		c := column.Cursor{Data: b}
		form := int(c.Byte())
		if form >= len(treesLayouts) {
			return fmt.Errorf("%w: trees of form %d", block.ErrCorrupt, form)
		}
		return s.set(c, treesLayouts[form])
	case storagev1.SectionType_SECTION_TYPE_SAMPLES:
		return s.pages(b, o.columns(ref), o.extras(ref))
	case storagev1.SectionType_SECTION_TYPE_ROLLUP:
		names := o.columns(ref)
		return s.rollup(b, names[:len(names)-len(o.extras(ref))])
	case storagev1.SectionType_SECTION_TYPE_PROFILES:
		return o.table(ctx, s, b, ref.group)
	}
	return nil // a type that came later
}

// set reads counts and the directory of a set of columns.
func (s *Section) set(c column.Cursor, l layout) error {
	s.Counts = map[string]uint64{}
	for _, name := range l.counts {
		s.Counts[name] = c.Uvarint()
	}
	n := int(c.Byte())
	lengths := make([]uint64, 2*n)
	left := uint64(len(c.Data))
	for i := range lengths {
		lengths[i] = c.Uvarint()
		if i%2 == 1 {
			if c.Err == nil {
				c.Err = column.CheckLengths(lengths[i-1], lengths[i])
			}
			left -= min(left, lengths[i])
		}
	}
	if c.Err != nil {
		return c.Err
	}
	if left != uint64(c.Pos) {
		return fmt.Errorf("%w: columns do not take up the %d bytes of the section", block.ErrCorrupt, len(c.Data))
	}
	for i := range n {
		s.Columns = append(s.Columns, newColumn(nameOf(l.columns, i), lengths[2*i], lengths[2*i+1]))
	}
	return nil
}

func newColumn(name string, raw, stored uint64) Column {
	return Column{Name: name, Encoding: encoding(raw, stored), Raw: int64(raw), Stored: int64(stored)}
}

// encoding of a column or page: it is kept as it is if the lengths are equal.
func encoding(raw, stored uint64) string {
	if raw == stored {
		return "plain"
	}
	return "zstd"
}

// nameOf returns the name of a column, which a later writer may have added.
func nameOf(names []string, i int) string {
	if i < len(names) {
		return names[i]
	}
	return fmt.Sprintf("column %d", i)
}

// columns names those of SAMPLES.
func (o *object) columns(ref sectionRef) []string {
	names := []string{"stacks"}
	if users := o.uses[ref]; len(users) > 0 {
		for _, t := range o.kind(o.rows(users[0]).GetKind()).SampleTypes {
			names = append(names, t.Type+" "+t.Unit)
		}
	}
	for _, e := range o.extras(ref) {
		names = append(names, e.String())
	}
	return names
}

// extras are the last columns of SAMPLES.
func (o *object) extras(ref sectionRef) []samples.Extra {
	if users := o.uses[ref]; len(users) > 0 {
		return block.ExtrasOf(o.rows(users[0]))
	}
	return nil
}

// rollup reads the index and the directory of ROLLUP.
func (s *Section) rollup(b []byte, names []string) error {
	c := column.Cursor{Data: b}
	n := c.Uvarint()
	if c.Err == nil && n > uint64(len(b)-c.Pos) {
		c.Err = fmt.Errorf("%w: an index of %d bytes in a rollup of %d", block.ErrCorrupt, n, len(b))
	}
	if c.Err != nil {
		return c.Err
	}
	index := layout{counts: []string{"runs"}, columns: []string{"buckets", "series", "run rows"}}
	for _, name := range names {
		index.columns = append(index.columns, "run bytes of "+name)
	}
	end := c.Pos + int(n)
	if err := s.set(column.Cursor{Data: b[c.Pos:end]}, index); err != nil {
		return err
	}
	return s.pages(b[end:], names, nil)
}

// pages reads the directory of SAMPLES, the last of whose columns are extras.
func (s *Section) pages(b []byte, names []string, extras []samples.Extra) error {
	if len(b) < 4 {
		return fmt.Errorf("%w: samples of %d bytes", block.ErrCorrupt, len(b))
	}
	end := len(b) - 4
	n := int64(binary.LittleEndian.Uint32(b[end:]))
	if n > int64(end) {
		return fmt.Errorf("%w: a directory of %d bytes in samples of %d", block.ErrCorrupt, n, len(b))
	}
	c := column.Cursor{Data: b[end-int(n) : end]}
	columns := int(c.Below(math.MaxUint8 + samples.NumExtras + 1))
	if c.Err != nil {
		return c.Err
	}
	section, err := samples.Parse(b, max(columns-len(extras), 1), extras...)
	if err != nil {
		return err
	}
	first := len(s.Columns) // those of a rollup's index come before
	for i := range columns {
		s.Columns = append(s.Columns, Column{Name: nameOf(names, i)})
	}
	for p := range section.Pages() {
		for i := range columns {
			s.Columns[first+i].page(pageOf(section, p, i, names))
		}
	}
	if s.Counts == nil {
		s.Counts = map[string]uint64{}
	}
	s.Counts["rows"], s.Counts["pages"] = section.Rows(), uint64(section.Pages())
	return nil
}

func pageOf(s *samples.Section, p, c int, names []string) Page {
	from, to := s.Bounds(p, c)
	page := Page{Rows: uint64(s.PageRows(p)), Raw: int64(to - from), Stored: int64(len(s.Stored(p, c)))}
	page.Encoding = encoding(to-from, uint64(page.Stored))
	if base, times, ok := s.Multiple(p, c); ok {
		page.Encoding = fmt.Sprintf("%s × %d", nameOf(names, base), times)
	}
	return page
}

func (c *Column) page(p Page) {
	if len(c.Pages) > 0 && c.Encoding != p.Encoding {
		c.Encoding = "mixed"
	} else {
		c.Encoding = p.Encoding
	}
	c.Raw += p.Raw
	c.Stored += p.Stored
	c.Pages = append(c.Pages, p)
}
