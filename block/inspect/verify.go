package inspect

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/block/column"
	"github.com/kilndb/kiln/block/samples"
	"github.com/kilndb/kiln/block/series"
	"github.com/kilndb/kiln/block/symbols"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
)

// Problem is something that an object should not have.
type Problem struct {
	// Section is where: head, footer, or a section with its type, group, index and offset.
	Section string `json:"section"`
	// Text is what is wrong there. It may come from the object and is not fit for a terminal as it is.
	Text string `json:"problem"`
}

// String returns section and text.
func (p Problem) String() string { return p.Section + ": " + p.Text }

// verifier gathers the problems of an object.
type verifier struct {
	o        *object
	problems []Problem
}

// Verify reads the whole object: it compares every CRC, decodes every section and checks what the format promises of
// names, order, trees, rows, sums, rollups and label filters. It holds one group at a time. Of each kind of problem it
// reports the first in a section. An error means that the object could not be read, and says nothing about it.
func Verify(ctx context.Context, src block.Source) ([]Problem, error) {
	v := &verifier{}
	if err := v.head(ctx, src); err != nil {
		return nil, err
	}
	o, err := open(ctx, src)
	if err != nil {
		if !isCorrupt(err) {
			return nil, err
		}
		if len(v.problems) == 0 { // in a small object both look at the head
			v.fail("footer", "%v", err)
		}
		return v.problems, nil
	}
	v.o = o
	v.footer()
	v.layout()
	for i := range o.meta.GetGroups() {
		if err := v.group(ctx, i); err != nil {
			return nil, fmt.Errorf("object %s: %w", o.meta.GetId(), err)
		}
		o.src.release()
	}
	return v.problems, nil
}

func (v *verifier) fail(section, format string, args ...any) {
	v.problems = append(v.problems, Problem{section, fmt.Sprintf(format, args...)})
}

// check notes an error that is the object's fault. It returns any other.
func (v *verifier) check(section string, err error) (ok bool, _ error) {
	if err == nil || !isCorrupt(err) {
		return err == nil, err
	}
	v.fail(section, "%s", strings.TrimPrefix(err.Error(), block.ErrCorrupt.Error()+": "))
	return false, nil
}

// head checks the first bytes, which no CRC covers.
func (v *verifier) head(ctx context.Context, src block.Source) error {
	if src.Size() < headSize {
		return nil // ReadMeta says so
	}
	b, err := src.ReadRange(ctx, 0, headSize)
	if err != nil {
		return fmt.Errorf("read the beginning of the object: %w", err)
	}
	if string(b) != "KILN\x01" {
		v.fail("head", "begins with %q, want magic and version %q", b, "KILN\x01")
	}
	return nil
}

// place names a section.
func (v *verifier) place(group, section int) string {
	s := v.o.meta.Groups[group].Sections[section]
	return fmt.Sprintf("%s (group %d, section %d, bytes %d to %d)", typeName(s.GetType()), group, section, s.GetOffset(), s.GetOffset()+s.GetLength())
}

// contents are the decoded sections of a group. What is damaged is nil.
type contents struct {
	index int
	meta  *storagev1.Group
	// places and good tell, for each section, its name and whether its CRC is right and it could be decoded.
	places   []string
	good     []bool
	names    *profile.Symbols
	series   []labels.Labels
	trees    map[int]*trees
	samples  map[int]*pages
	rollups  map[int]*sums
	profiles int // index of the section
}

// trees is a TREES section; used are the stack nodes that rows name.
type trees struct {
	stack *profile.StackTree
	call  *profile.CallTree
	used  []bool
}

// pages is a SAMPLES section; ends are where the rows seen so far end in each column, and rows how many they are.
type pages struct {
	*samples.Section
	ends []uint64
	rows uint64
}

// group checks everything in one group.
func (v *verifier) group(ctx context.Context, i int) error {
	c := &contents{index: i, meta: v.o.meta.Groups[i], trees: map[int]*trees{}, samples: map[int]*pages{}, rollups: map[int]*sums{}}
	raw := make([][]byte, len(c.meta.GetSections()))
	for j, s := range c.meta.GetSections() {
		c.places = append(c.places, v.place(i, j))
		if s.GetType() == storagev1.SectionType_SECTION_TYPE_PROFILES {
			c.profiles = j
		}
		b, err := v.o.fetch(ctx, s)
		ok, err := v.check(c.places[j], err)
		if err != nil {
			return err
		}
		c.good = append(c.good, ok)
		raw[j] = b
	}
	// Trees are checked against the symbols, wherever these stand.
	for _, t := range []storagev1.SectionType{
		storagev1.SectionType_SECTION_TYPE_SYMBOLS, storagev1.SectionType_SECTION_TYPE_SERIES,
		storagev1.SectionType_SECTION_TYPE_TREES, storagev1.SectionType_SECTION_TYPE_SAMPLES,
		storagev1.SectionType_SECTION_TYPE_ROLLUP,
	} {
		for j, s := range c.meta.GetSections() {
			if s.GetType() != t || !c.good[j] {
				continue
			}
			ok, err := v.check(c.places[j], v.decode(c, j, raw[j]))
			if err != nil {
				return err
			}
			c.good[j] = ok
		}
	}
	return v.groupRows(ctx, c, raw[c.profiles])
}

// decode decodes section j of the group and checks it alone.
func (v *verifier) decode(c *contents, j int, b []byte) (err error) {
	sorted := c.meta.GetSorted()
	switch c.meta.Sections[j].GetType() {
	case storagev1.SectionType_SECTION_TYPE_SYMBOLS:
		if c.names, err = symbols.DecodeSymbols(b); err == nil && sorted {
			err = checkNames(c.names)
		}
	case storagev1.SectionType_SECTION_TYPE_SERIES:
		if c.series, err = series.Decode(b); err == nil {
			err = checkSeries(c.series, sorted)
		}
	case storagev1.SectionType_SECTION_TYPE_TREES:
		if c.names == nil {
			return nil
		}
		t := &trees{}
		if t.stack, t.call, err = symbols.DecodeTrees(b, countsOf(c.names)); err != nil {
			return err
		}
		t.used = make([]bool, len(t.stack.Parents))
		c.trees[j] = t
		err = checkTrees(c.names, t, sorted)
	case storagev1.SectionType_SECTION_TYPE_SAMPLES:
		var p *pages
		if p, err = v.pages(sectionRef{c.index, j}, b); err == nil {
			c.samples[j] = p
		}
	case storagev1.SectionType_SECTION_TYPE_ROLLUP:
		err = v.rollup(c, j, b)
	}
	return err
}

func countsOf(s *profile.Symbols) symbols.Counts {
	return symbols.Counts{
		Strings: len(s.Strings), Mappings: len(s.Mappings), Functions: len(s.Functions), Locations: len(s.Locations), Lines: len(s.Lines),
	}
}

// pages reads the directory of a SAMPLES section and inflates every page.
func (v *verifier) pages(ref sectionRef, b []byte) (*pages, error) {
	columns := 0
	var extras []samples.Extra
	if users := v.o.uses[ref]; len(users) > 0 {
		columns = 1 + len(v.o.kind(v.o.rows(users[0]).GetKind()).SampleTypes)
		extras = block.ExtrasOf(v.o.rows(users[0]))
	} else if len(b) >= 4 { // nobody's: it says itself how many columns it has
		end := int64(len(b)) - 4
		dir := column.Cursor{Data: b[max(0, end-int64(binary.LittleEndian.Uint32(b[end:]))):end]}
		columns = int(dir.Below(math.MaxUint8 + 1))
	}
	s, err := samples.Parse(b, columns, extras...)
	if err != nil {
		return nil, err
	}
	if err := inflateAll(s); err != nil {
		return nil, err
	}
	return &pages{Section: s, ends: make([]uint64, s.Columns())}, nil
}

// inflateAll inflates every page.
func inflateAll(s *samples.Section) error {
	var page []byte
	for p := range s.Pages() {
		for c := range s.Columns() {
			raw, err := s.Page(p, c, page)
			if err != nil {
				return err
			}
			if !s.Plain(p, c) {
				page = raw // keep what may have been allocated
			}
		}
	}
	return nil
}
