package inspect

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/block/inspect/inspecttest"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
)

func TestGoodObjects(t *testing.T) {
	for name, o := range objects(t) {
		problems, err := Verify(t.Context(), o)
		if err != nil || len(problems) > 0 {
			t.Errorf("%s: %v, error %v", name, problems, err)
		}
	}
}

// Whatever byte is flipped, the section that it is in is named.
func TestFlippedBytes(t *testing.T) {
	for name, o := range map[string]inspecttest.Object{"segment": small(t), "block": inspecttest.Merge(t, "acme", 1, small(t)), "spans": spanned(t)} {
		r, err := Inspect(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(o); i += 1 + i%13 {
			b := inspecttest.Object(bytes.Clone(o))
			b[i] ^= []byte{0x01, 0x80, 0xff, 0x10}[i%4]
			want := whereIs(r, uint64(i))
			problems, err := Verify(t.Context(), b)
			if err != nil || len(problems) != 1 || !strings.HasPrefix(problems[0].Section, want) {
				t.Errorf("%s, byte %d: %v, error %v, want one problem in %s", name, i, problems, err, want)
			}
		}
	}
}

// whereIs names what a byte of an object is part of.
func whereIs(r *Report, i uint64) string {
	if i < headSize {
		return "head"
	}
	for group, g := range r.Groups {
		for section, s := range g.Sections {
			if i >= s.Offset && i < s.Offset+uint64(s.Stored) {
				return fmt.Sprintf("%s (group %d, section %d, ", s.Type, group, section)
			}
		}
	}
	return "footer"
}

// Where a flipped byte is sealed again, it may be another good object; most are not, and none makes a check fail itself.
func TestSealedFlips(t *testing.T) {
	for name, o := range map[string]inspecttest.Object{
		"segment": small(t), "block": inspecttest.Merge(t, "acme", 1, small(t)), "spans": inspecttest.Merge(t, "acme", 1, spanned(t)),
	} {
		meta := inspecttest.Open(t, o).Meta()
		tried, found := 0, 0
		for _, g := range meta.Groups {
			for _, s := range g.Sections {
				for i := s.Offset; i < s.Offset+s.Length; i += 1 + i%7 {
					b := inspecttest.Object(bytes.Clone(o))
					b[i] ^= []byte{0x01, 0x80, 0xff, 0x10}[i%4]
					b = inspecttest.Reseal(t, b)
					problems, err := Verify(t.Context(), b)
					if err != nil {
						t.Fatalf("%s, byte %d: %v", name, i, err)
					}
					if _, err := Inspect(t.Context(), b); err != nil {
						t.Fatalf("%s, byte %d: %v", name, i, err)
					}
					if tried++; len(problems) > 0 {
						found++
					}
				}
			}
		}
		t.Logf("%s: %d of %d sealed flips were found", name, found, tried)
		if found < tried/3 {
			t.Errorf("%s: only %d of %d sealed flips were found", name, found, tried)
		}
	}
}

// What is wrong with a run of spans behind a good CRC.
func TestLyingSpans(t *testing.T) {
	id := func(b byte) []byte { return []byte{b, 0, 0, 0, 0, 0, 0, 0} }
	run := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	written := run([]byte{2}, id(1), id(2), []byte{0, 1, 2, 0, 0, 0})
	p := good()
	p.rows, p.times = []uint32{0, 1, 1, 2, 3, 4}, p.times[:1]
	p.extras.Spans = []profile.SpanID{{}, {1}, {2}, {}, {}, {}}
	o := p.write(t)
	if problems, err := Verify(t.Context(), o); err != nil || len(problems) > 0 || bytes.Count(o, written) != 1 {
		t.Fatalf("problems %v, error %v, the run is there %d times", problems, err, bytes.Count(o, written))
	}
	for says, spans := range map[string][]byte{
		"row 2 of profile 0 is not after the one before it": run([]byte{2}, id(1), id(2), []byte{0, 2, 1, 0, 0, 0}),
		"no row has 1 of 2 spans":                           run([]byte{2}, id(1), id(2), []byte{0, 0, 1, 0, 0, 0}),
		"spans 0100000000000000 after":                      run([]byte{2}, id(2), id(1), []byte{0, 1, 2, 0, 0, 0}),
		"a run of spans with none among them":               run([]byte{2}, id(0), id(1), []byte{0, 1, 2, 0, 0, 0}),
		"number 2 is 3, limit 3":                            run([]byte{2}, id(1), id(2), []byte{0, 1, 3, 0, 0, 0}),
		"with 9 spans":                                      run([]byte{9}, id(1), id(2), []byte{0, 1, 2, 0, 0, 0}),
		"bytes too many":                                    run([]byte{1}, id(1), []byte{0, 0, 1, 0, 0, 0}, id(0)),
		"the profiles' runs end at":                         run([]byte{0x81, 0}, id(1), []byte{0, 0, 1, 0, 0}, []byte{0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0}),
	} {
		o := inspecttest.Object(bytes.Replace(o, written, spans, 1))
		mustSay(t, inspecttest.Reseal(t, o), says)
	}
}

// Where every section is as it was written, the footer must still say what they say.
func TestLyingFooters(t *testing.T) {
	first := func(m *storagev1.BlockMeta) *storagev1.Rows { return m.Datasets[0].Rows[0] }
	for _, c := range []struct {
		says   string
		change func(m *storagev1.BlockMeta)
	}{
		{"footer: level", func(m *storagev1.BlockMeta) { m.Level = 0 }},
		{"group 0 is sorted", func(m *storagev1.BlockMeta) { m.Groups[0].Sorted = false }},
		{"is there twice", func(m *storagev1.BlockMeta) { m.Strings = append(m.Strings, "acme") }},
		{"kind 2 is there twice", func(m *storagev1.BlockMeta) { m.Kinds = append(m.Kinds, m.Kinds[0], m.Kinds[0]) }},
		{"footer: profiles from", func(m *storagev1.BlockMeta) { m.MaxTime++ }},
		{"footer: service \"regexp\" from", func(m *storagev1.BlockMeta) { m.Datasets[0].MinTime--; m.MinTime-- }},
		{"has no rows", func(m *storagev1.BlockMeta) { m.Datasets[0].Rows = nil }},
		{"PROFILES", func(m *storagev1.BlockMeta) { first(m).Sums[0]++ }},
		{"PROFILES", func(m *storagev1.BlockMeta) { first(m).Samples++ }},
		{"SAMPLES", func(m *storagev1.BlockMeta) { first(m).ColumnStarts[1]++ }},
		{"is of service \"regexp\"", func(m *storagev1.BlockMeta) { m.Strings = append(m.Strings, "web"); m.Datasets[0].Service = 999 }},
		{"the footer begins at", func(m *storagev1.BlockMeta) {
			m.Groups[0].Sections = m.Groups[0].Sections[:5]
			m.Groups[0].Sections[4].Length--
		}},
		{"footer: ", func(m *storagev1.BlockMeta) { m.Datasets[0].Group = 9 }},
	} {
		o := inspecttest.Edit(t, inspecttest.Merge(t, "acme", 1, small(t)), func(m *storagev1.BlockMeta) {
			c.change(m)
			if m.Datasets[0].Service == 999 {
				m.Datasets[0].Service = uint32(len(m.Strings) - 1)
			}
		})
		mustSay(t, o, c.says)
	}
}

func mustSay(t *testing.T, o inspecttest.Object, says string) {
	t.Helper()
	problems, err := Verify(t.Context(), o)
	if err != nil {
		t.Errorf("%s: %v", says, err)
	}
	for _, p := range problems {
		if strings.Contains(p.String(), says) {
			return
		}
	}
	t.Errorf("no problem says %q: %q", says, problems)
}

// parts are what a block of one profile is made of.
type parts struct {
	names  []string
	series []labels.Labels
	stack  profile.StackTree
	call   profile.CallTree
	rows   []uint32
	times  []int64
	extras block.Extras
}

// write makes a block of parts, whatever they are. Location i has the address 16+i and function i+1, whose name is
// string i+1; the last one has no lines.
func (p parts) write(t *testing.T) inspecttest.Object {
	t.Helper()
	table := profile.NewTable()
	s := &table.Symbols
	for i, n := range p.names {
		table.AddString([]byte(n))
		if i == len(p.names)-1 {
			s.Locations = append(s.Locations, profile.Location{FirstLine: uint32(len(s.Lines)), Address: uint64(16 + i)})
			continue
		}
		s.Functions = append(s.Functions, profile.Function{Name: uint32(i + 1)})
		s.Locations = append(s.Locations, profile.Location{FirstLine: uint32(len(s.Lines)), Lines: 1, Address: uint64(16 + i)})
		s.Lines = append(s.Lines, profile.Line{Function: uint32(i + 1)})
	}
	var out bytes.Buffer
	w := block.NewWriter(&out, block.Header{ID: "01PARTS", Tenant: "acme", Level: 1, Writer: "worker-1", Sources: []string{"01SEGMENT"}})
	g := w.Group("acme", true)
	g.Symbols(s)
	g.Series(p.series)
	rows := g.Rows("api", profile.Kind{Name: "cpu", SampleTypes: []profile.SampleType{{Type: "cpu", Unit: "nanoseconds"}}}, g.Trees(&p.stack, &p.call))
	for _, at := range p.times {
		values := make([]int64, len(p.rows))
		for i := range values {
			values[i] = int64(i + 1)
		}
		if err := rows.AppendExtras(block.Profile{Time: at}, p.rows, [][]int64{values}, &p.extras); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// good are the stacks (), (a), (a b), (a 0x12) and (b), all in rows.
func good() parts {
	return parts{
		names:  []string{"0a", "0b", "0x12"},
		series: []labels.Labels{labels.FromStrings("service_name", "api")},
		stack:  profile.StackTree{Parents: []uint32{0, 0, 1, 1, 0}, Locations: []uint32{0, 0, 1, 2, 1}},
		call:   profile.CallTree{Parents: []uint32{0, 0, 1, 1, 0}, Names: []uint32{0, 1, 2, 3, 2}, OfStack: []uint32{0, 1, 2, 3, 4}},
		rows:   []uint32{0, 1, 2, 3, 4},
		times:  []int64{10, 20},
	}
}

// A writer that breaks the rules of a block, and seals it as it should, is found out.
func TestBrokenRules(t *testing.T) {
	if problems, err := Verify(t.Context(), good().write(t)); err != nil || len(problems) > 0 {
		t.Fatalf("the good block: %v, error %v", problems, err)
	}
	for _, c := range []struct {
		says   string
		change func(p *parts)
	}{
		{"SYMBOLS (group 0, section 0, bytes 5 to", func(p *parts) { p.names[0], p.names[1] = p.names[1], p.names[0] }},
		{"location 2 has no lines", func(p *parts) { p.names[2] = "0x13" }},
		{"SERIES (group 0, section 1", func(p *parts) { p.series[0] = labels.FromStrings("pod", "a") }},
		{"has a __name__", func(p *parts) { p.series[0] = p.series[0].With("__name__", "cpu") }},
		{"profile 0 is of service \"web\"", func(p *parts) { p.series[0] = labels.FromStrings("service_name", "web") }},
		{"is not after the one before", func(p *parts) { p.series = append(p.series, labels.FromStrings("pod", "a", "service_name", "api")) }},
		{"TREES (group 0, section 2", func(p *parts) { p.stack.Locations = []uint32{0, 0, 2, 1, 1} }},
		{"stack node 3 is not after its sibling", func(p *parts) { p.stack.Locations = []uint32{0, 0, 1, 1, 1} }},
		{"belongs to call node 2, which is not where its names lead", func(p *parts) { p.call.Names[2] = 1 }},
		{"call node 4 is not after its sibling", func(p *parts) { p.call.Names[4] = 1 }},
		{"call node 4 belongs to no stack node", func(p *parts) {
			p.stack.Parents, p.stack.Locations = p.stack.Parents[:4], p.stack.Locations[:4]
			p.call.OfStack, p.rows = p.call.OfStack[:4], p.rows[:4]
		}},
		{"stack node 4 is in no row", func(p *parts) { p.rows = p.rows[:4] }},
		{"profile 1 is not after the one before it", func(p *parts) { p.times = []int64{10, 10} }},
	} {
		p := good()
		c.change(&p)
		mustSay(t, p.write(t), c.says)
	}
}

// Sections that are sealed but hold something else than profiles say are found out.
func TestForeignSamples(t *testing.T) {
	o := good().write(t)
	r := inspecttest.Open(t, o)
	for i, s := range r.Meta().Groups[0].Sections {
		if s.Type == storagev1.SectionType_SECTION_TYPE_SAMPLES {
			b := inspecttest.Object(bytes.Clone(o))
			at := bytes.Index(b[s.Offset:s.Offset+s.Length], []byte{1, 2, 3, 4, 5})
			if at < 0 {
				t.Fatal("the values are compressed")
			}
			b[int(s.Offset)+at]++
			mustSay(t, inspecttest.Reseal(t, b), fmt.Sprintf("SAMPLES (group 0, section %d", i))
			mustSay(t, inspecttest.Reseal(t, b), "add up to 16 for sample type 0, its total is 15")
		}
	}
}

// A profile that the footer does not know of is found in both sections that it is in.
func TestHiddenProfile(t *testing.T) {
	o := inspecttest.Edit(t, good().write(t), func(m *storagev1.BlockMeta) {
		r := m.Datasets[0].Rows[0]
		r.Profiles, r.Samples, r.Sums = 1, 5, []int64{15}
		m.MaxTime, m.Datasets[0].MaxTime = 10, 10
	})
	mustSay(t, o, "): 2 rows, the footer knows of 1")
	mustSay(t, o, "): 10 rows, the profiles have 5")
}

var errDisk = errors.New("the disk is on fire")

// failing fails at a read.
type failing struct {
	inspecttest.Object
	reads *int
}

func (f failing) ReadRange(ctx context.Context, off, n int64) ([]byte, error) {
	if *f.reads--; *f.reads < 0 {
		return nil, errDisk
	}
	return f.Object.ReadRange(ctx, off, n)
}

// That an object cannot be read says nothing about it: it is an error, never a problem, and nothing is read twice.
func TestUnreadableObjects(t *testing.T) {
	o := small(t)
	for reads := 0; ; reads++ {
		left := reads
		problems, err := Verify(t.Context(), failing{o, &left})
		if err == nil {
			sections := 0
			for _, g := range inspecttest.Open(t, o).Meta().Groups {
				sections += len(g.Sections)
			}
			if len(problems) > 0 || reads != sections+3 { // head, tail, and the footer's length
				t.Errorf("%v after %d reads of %d sections", problems, reads, sections)
			}
			return
		}
		if !errors.Is(err, errDisk) || problems != nil {
			t.Fatalf("%d reads: %v, error %v", reads, problems, err)
		}
		left = reads
		if _, err := Inspect(t.Context(), failing{o, &left}); err != nil && !errors.Is(err, errDisk) {
			t.Fatalf("%d reads: %v", reads, err)
		}
	}
}
