package symbols

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/kilndb/kiln/block/column"
	"github.com/kilndb/kiln/internal/spare"
	"github.com/kilndb/kiln/profile"
)

// The columns of a SYMBOLS section, in order. Strings come first: a reader that wants only names stops there.
const (
	colStringLengths = iota
	colStringBytes
	colFunctionNames
	colFunctionSystemNames
	colFunctionFiles
	colFunctionLines
	colLocationMappings
	colLocationAddresses
	colLocationLines
	colLineFunctions
	colLineNumbers
	colLineColumns
	colMappings
	symbolColumns
)

// Flags of a mapping.
const (
	hasFunctions = 1 << iota
	hasFilenames
	hasLineNumbers
	hasInlineFrames
)

// Counts are the sizes of the tables of a SYMBOLS section, as its header tells them.
type Counts struct {
	Strings, Mappings, Functions, Locations, Lines int
}

// CountsOf returns the counts that a section of these symbols has.
func CountsOf(s *profile.Symbols) Counts {
	n := Counts{Strings: len(s.Strings), Mappings: len(s.Mappings), Functions: len(s.Functions), Locations: len(s.Locations)}
	for i := range s.Locations {
		n.Lines += int(s.Locations[i].Lines)
	}
	return n
}

// Encoder writes SYMBOLS and TREES sections. It is reused and not safe for concurrent use.
type Encoder struct {
	set column.Builder
	col []byte
	up  []uint32
	// like is a section that the next may be equal to.
	like []byte
}

// Like says that the next section may have columns in common with this one, which was written at the same level: what is
// equal is not compressed again.
func (e *Encoder) Like(section []byte) { e.like = section }

// Bytes is the memory that the encoder holds on to.
func (e *Encoder) Bytes() int { return e.set.Bytes() + cap(e.col) + 4*cap(e.up) }

// add ends the column at hand.
func (e *Encoder) add() {
	e.set.Add(e.col)
	e.col = e.col[:0]
}

func (e *Encoder) uvarint(v uint64) {
	if v < 0x80 {
		e.col = append(e.col, byte(v))
		return
	}
	e.col = binary.AppendUvarint(e.col, v)
}

// AppendSymbols appends the section that holds s to dst. It is an error if s is too large for any reader.
func (e *Encoder) AppendSymbols(dst []byte, s *profile.Symbols, level column.Level) ([]byte, error) {
	n := CountsOf(s)
	for _, n := range []int{n.Strings, n.Mappings, n.Functions, n.Locations, n.Lines} {
		dst = binary.AppendUvarint(dst, uint64(n))
	}
	e.begin(level, func(like []byte) (column.Set, error) {
		_, rest, err := readCounts(like)
		if err != nil {
			return column.Set{}, err
		}
		return column.Parse(rest, symbolColumns)
	})
	e.strings(s)
	e.functions(s)
	e.locations(s)
	e.lines(s)
	e.mappings(s)
	return e.set.Append(dst)
}

// begin begins a set of columns; parse finds that of the section it may be like.
func (e *Encoder) begin(level column.Level, parse func(like []byte) (column.Set, error)) {
	e.set.Reset(level)
	e.col = e.col[:0]
	if e.like == nil {
		return
	}
	if s, err := parse(e.like); err == nil {
		e.set.Like(s)
	}
	e.like = nil
}

func (e *Encoder) strings(s *profile.Symbols) {
	for _, sp := range s.Strings {
		e.uvarint(uint64(sp.Len))
	}
	e.add()
	for _, sp := range s.Strings {
		e.col = append(e.col, s.Data[sp.Off:sp.Off+sp.Len]...)
	}
	e.add()
}

func (e *Encoder) functions(s *profile.Symbols) {
	for i := range s.Functions {
		e.uvarint(uint64(s.Functions[i].Name))
	}
	e.add()
	for i := range s.Functions {
		e.uvarint(uint64(s.Functions[i].SystemName))
	}
	e.add()
	for i := range s.Functions {
		e.uvarint(uint64(s.Functions[i].File))
	}
	e.add()
	for i := range s.Functions {
		e.uvarint(column.Zigzag(s.Functions[i].StartLine))
	}
	e.add()
}

func (e *Encoder) locations(s *profile.Symbols) {
	for i := range s.Locations {
		e.uvarint(uint64(s.Locations[i].Mapping))
	}
	e.add()
	last := uint64(0)
	for i := range s.Locations {
		e.uvarint(column.Zigzag(int64(s.Locations[i].Address - last)))
		last = s.Locations[i].Address
	}
	e.add()
	for i := range s.Locations {
		v := uint64(s.Locations[i].Lines) << 1
		if s.Locations[i].Folded {
			v |= 1
		}
		e.uvarint(v)
	}
	e.add()
}

func (e *Encoder) lines(s *profile.Symbols) {
	for i := range s.Locations {
		for _, l := range s.LinesOf(uint32(i)) {
			e.uvarint(uint64(l.Function))
		}
	}
	e.add()
	for i := range s.Locations {
		for _, l := range s.LinesOf(uint32(i)) {
			e.uvarint(column.Zigzag(l.Line))
		}
	}
	e.add()
	for i := range s.Locations {
		for _, l := range s.LinesOf(uint32(i)) {
			e.uvarint(column.Zigzag(l.Column))
		}
	}
	e.add()
}

func (e *Encoder) mappings(s *profile.Symbols) {
	for i := range s.Mappings {
		m := &s.Mappings[i]
		e.uvarint(m.Start)
		e.uvarint(m.Limit)
		e.uvarint(m.Offset)
		e.uvarint(uint64(m.File))
		e.uvarint(uint64(m.BuildID))
		e.uvarint(uint64(flags(m)))
	}
	e.add()
}

func flags(m *profile.Mapping) (f uint32) {
	for i, set := range []bool{m.HasFunctions, m.HasFilenames, m.HasLineNumbers, m.HasInlineFrames} {
		if set {
			f |= 1 << i
		}
	}
	return f
}

// ReadCounts reads the header of a SYMBOLS section.
func ReadCounts(section []byte) (Counts, error) {
	n, _, err := readCounts(section)
	return n, err
}

func readCounts(section []byte) (Counts, []byte, error) {
	c := column.Cursor{Data: section}
	var n Counts
	for _, p := range []*int{&n.Strings, &n.Mappings, &n.Functions, &n.Locations, &n.Lines} {
		*p = int(c.Below(math.MaxInt32))
	}
	if c.Err != nil {
		return Counts{}, nil, c.Err
	}
	if n.Strings == 0 || n.Mappings == 0 || n.Functions == 0 {
		return Counts{}, nil, fmt.Errorf("%w: a table of names without its entry 0", column.ErrCorrupt)
	}
	return n, section[c.Pos:], nil
}

// DecodeSymbols reads a SYMBOLS section. The result may share the section's memory, which must not change.
func DecodeSymbols(section []byte) (*profile.Symbols, error) {
	n, rest, err := readCounts(section)
	if err != nil {
		return nil, err
	}
	set, err := column.Parse(rest, symbolColumns)
	if err != nil {
		return nil, err
	}
	// Every item has at least a byte in one of these columns; now tables of that size may be made.
	for _, c := range []struct{ column, items int }{
		{colStringLengths, n.Strings}, {colFunctionNames, n.Functions}, {colLocationMappings, n.Locations},
		{colLineFunctions, n.Lines}, {colMappings, n.Mappings},
	} {
		if err := set.CheckCount(c.column, uint64(c.items)); err != nil {
			return nil, err
		}
	}
	d := decoder{set: set, counts: n, out: &profile.Symbols{}, scratch: idle.Get()}
	defer d.release()
	for _, step := range []func() error{d.strings, d.functions, d.locations, d.lines, d.mappings, d.entry0} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return d.out, nil
}

// decoder reads the tables one after another.
type decoder struct {
	set    column.Set
	counts Counts
	out    *profile.Symbols
	*scratch
}

// scratch serves every column of numbers, and those of the next section.
type scratch struct {
	raw   []byte
	small []uint32
	large []uint64
}

// idle holds scratch and nothing else.
var idle = spare.Pool[*scratch]{New: func() *scratch { return new(scratch) }, Keep: keepIdle}

const (
	// keepIdle is how many bytes of scratch stay until the next section, which may be ten seconds away.
	keepIdle = 2 << 20
	// maxIdle is what a scratch may hold to be kept at all.
	maxIdle = 16 << 20
)

// release gives the scratch back.
func (d *decoder) release() {
	if n := cap(d.raw) + 4*cap(d.small) + 8*cap(d.large); n <= maxIdle {
		idle.Put(d.scratch, n)
	}
	d.scratch = nil
}

// column inflates a column that nothing will point into.
func (d *decoder) column(i int) ([]byte, error) {
	b, err := d.set.Column(i, d.raw)
	if err == nil && !d.set.Plain(i) {
		d.raw = b // keep what Inflate may have allocated
	}
	return b, err
}

// references reads a column of n indexes below limit.
func (d *decoder) references(i, n, limit int) ([]uint32, error) {
	b, err := d.items(i, n)
	if err != nil {
		return nil, err
	}
	if cap(d.small) < n {
		d.small = make([]uint32, n)
	}
	d.small = d.small[:n]
	return d.small, column.Uint32s(d.small, b, uint64(limit))
}

// numbers reads a column of n numbers of any size.
func (d *decoder) numbers(i, n int) ([]uint64, error) {
	b, err := d.items(i, n)
	if err != nil {
		return nil, err
	}
	if cap(d.large) < n {
		d.large = make([]uint64, n)
	}
	d.large = d.large[:n]
	return d.large, column.Uint64s(d.large, b)
}

// items inflates a column that must hold n items.
func (d *decoder) items(i, n int) ([]byte, error) {
	if err := d.set.CheckCount(i, uint64(n)); err != nil {
		return nil, err
	}
	return d.column(i)
}

func (d *decoder) strings() error {
	lengths, err := d.references(colStringLengths, d.counts.Strings, math.MaxUint32)
	if err != nil {
		return err
	}
	total := uint64(0)
	spans := make([]profile.Span, len(lengths))
	for i, n := range lengths {
		spans[i] = profile.Span{Off: uint32(total), Len: n}
		if total += uint64(n); total > column.MaxRaw {
			return fmt.Errorf("%w: strings of more than %d bytes", column.ErrCorrupt, column.MaxRaw)
		}
	}
	data, err := d.set.Column(colStringBytes, nil)
	if err != nil {
		return err
	}
	if uint64(len(data)) != total {
		return fmt.Errorf("%w: %d bytes of strings, their lengths add up to %d", column.ErrCorrupt, len(data), total)
	}
	d.out.Data, d.out.Strings = data, spans
	return nil
}

func (d *decoder) functions() error {
	out := make([]profile.Function, d.counts.Functions)
	names, err := d.references(colFunctionNames, len(out), d.counts.Strings)
	if err != nil {
		return err
	}
	for i, v := range names {
		out[i].Name = v
	}
	systemNames, err := d.references(colFunctionSystemNames, len(out), d.counts.Strings)
	if err != nil {
		return err
	}
	for i, v := range systemNames {
		out[i].SystemName = v
	}
	files, err := d.references(colFunctionFiles, len(out), d.counts.Strings)
	if err != nil {
		return err
	}
	for i, v := range files {
		out[i].File = v
	}
	lines, err := d.numbers(colFunctionLines, len(out))
	if err != nil {
		return err
	}
	for i, v := range lines {
		out[i].StartLine = column.Unzigzag(v)
	}
	d.out.Functions = out
	return nil
}

func (d *decoder) locations() error {
	out := make([]profile.Location, d.counts.Locations)
	mappings, err := d.references(colLocationMappings, len(out), d.counts.Mappings)
	if err != nil {
		return err
	}
	for i, v := range mappings {
		out[i].Mapping = v
	}
	addresses, err := d.numbers(colLocationAddresses, len(out))
	if err != nil {
		return err
	}
	last := uint64(0)
	for i, v := range addresses {
		last += uint64(column.Unzigzag(v))
		out[i].Address = last
	}
	lines, err := d.references(colLocationLines, len(out), math.MaxUint32)
	if err != nil {
		return err
	}
	first := uint64(0)
	for i, v := range lines {
		out[i].Folded = v&1 == 1
		out[i].FirstLine, out[i].Lines = uint32(first), v>>1
		if first += uint64(v >> 1); first > uint64(d.counts.Lines) {
			return fmt.Errorf("%w: locations have more than the %d lines there are", column.ErrCorrupt, d.counts.Lines)
		}
	}
	if first != uint64(d.counts.Lines) {
		return fmt.Errorf("%w: locations have %d lines of %d", column.ErrCorrupt, first, d.counts.Lines)
	}
	d.out.Locations = out
	return nil
}

func (d *decoder) lines() error {
	out := make([]profile.Line, d.counts.Lines)
	functions, err := d.references(colLineFunctions, len(out), d.counts.Functions)
	if err != nil {
		return err
	}
	for i, v := range functions {
		out[i].Function = v
	}
	numbers, err := d.numbers(colLineNumbers, len(out))
	if err != nil {
		return err
	}
	for i, v := range numbers {
		out[i].Line = column.Unzigzag(v)
	}
	columns, err := d.numbers(colLineColumns, len(out))
	if err != nil {
		return err
	}
	for i, v := range columns {
		out[i].Column = column.Unzigzag(v)
	}
	d.out.Lines = out
	return nil
}

func (d *decoder) mappings() error {
	b, err := d.column(colMappings)
	if err != nil {
		return err
	}
	c := column.Cursor{Data: b}
	out := make([]profile.Mapping, d.counts.Mappings)
	for i := range out {
		m := &out[i]
		m.Start, m.Limit, m.Offset = c.Uvarint(), c.Uvarint(), c.Uvarint()
		m.File, m.BuildID = c.Below(d.counts.Strings), c.Below(d.counts.Strings)
		f := c.Below(hasInlineFrames << 1)
		m.HasFunctions, m.HasFilenames = f&hasFunctions != 0, f&hasFilenames != 0
		m.HasLineNumbers, m.HasInlineFrames = f&hasLineNumbers != 0, f&hasInlineFrames != 0
		if c.Err != nil {
			return c.Err
		}
	}
	d.out.Mappings = out
	return c.End()
}

// entry0 checks what every table promises of its entry 0.
func (d *decoder) entry0() error {
	s := d.out
	if s.Strings[0].Len != 0 || s.Mappings[0] != (profile.Mapping{}) || s.Functions[0] != (profile.Function{}) {
		return fmt.Errorf("%w: entry 0 of a table of names is not empty", column.ErrCorrupt)
	}
	return nil
}
