package index

import (
	"errors"
	"iter"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
)

// Segments iterates over the bytes of each segment of an encoded AddSegments.
func Segments(data []byte) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		var d Decoder
		for f := (fields{rest: data}); d.next(&f); {
			if f.tag == 1<<3|length && !yield(f.bytes, nil) { // other fields are of later builds, and say nothing to this one
				return
			}
		}
		if d.strange {
			yield(nil, errors.New("list of segments is damaged"))
		}
	}
}

// The wire types that fields of an entry have, as the low bits of their tags.
const (
	varint  = uint64(protowire.VarintType)
	fixed64 = uint64(protowire.Fixed64Type)
	length  = uint64(protowire.BytesType)
	fixed32 = uint64(protowire.Fixed32Type)
)

// Decoder decodes one entry after the other into the same memory. It knows entries as they are usually written and leaves
// all else, such as a field of a later build, to proto.Unmarshal.
type Decoder struct {
	strange bool            // what was met is not what is usually written: what was decoded is of no use
	texts   strings.Builder // all of the entry; has room from the start

	entries     messages[storagev1.BlockMeta]
	kinds       messages[storagev1.Kind]
	sampleTypes messages[storagev1.SampleType]
	groups      messages[storagev1.Group]
	sections    messages[storagev1.Section]
	datasets    messages[storagev1.Dataset]
	rows        messages[storagev1.Rows]
	rollups     messages[storagev1.Rollup]
	strings     pile[string]
	filters     pile[byte]
	sums        pile[int64]
	starts      pile[uint64]
	references  pile[uint32]
	columns     pile[storagev1.RowColumn]
}

// Decode returns the entry that proto.Unmarshal makes of data. It shares nothing with data. The next call changes it, but
// for its texts.
func (d *Decoder) Decode(data []byte) (*storagev1.BlockMeta, error) {
	d.reset()
	if m := d.entry(data); !d.strange {
		return m, nil
	}
	return decode(data)
}

func (d *Decoder) reset() {
	d.strange = false
	d.texts.Reset() // who has the texts keeps them
	d.entries.reset()
	d.kinds.reset()
	d.sampleTypes.reset()
	d.groups.reset()
	d.sections.reset()
	d.datasets.reset()
	d.rows.reset()
	d.rollups.reset()
	d.strings.reset()
	d.filters.reset()
	d.sums.reset()
	d.starts.reset()
	d.references.reset()
	d.columns.reset()
}

// fields is a walk over the fields of a message.
type fields struct {
	rest  []byte
	tag   uint64 // number of the field, and its wire type in the low three bits
	value uint64 // of a number
	bytes []byte // of a field with a length
}

// next goes to the next field. It returns false where there is none, be it that something strange was met.
func (d *Decoder) next(f *fields) bool {
	if len(f.rest) == 0 || d.strange {
		return false
	}
	tag, n := number(f.rest)
	if n < 0 {
		d.strange = true
		return false
	}
	rest, size := f.rest[n:], 0
	switch tag & 7 {
	case varint:
		f.value, size = number(rest)
	case length:
		var header int
		if f.value, header = number(rest); header > 0 && f.value <= uint64(len(rest)-header) {
			size = header + int(f.value)
			f.bytes = rest[header:size]
		}
	case fixed64:
		f.value, size = protowire.ConsumeFixed64(rest)
	case fixed32:
		var v uint32
		v, size = protowire.ConsumeFixed32(rest)
		f.value = uint64(v)
	}
	if size <= 0 { // cut short, or of a wire type that no entry has
		d.strange = true
		return false
	}
	f.tag, f.rest = tag, rest[size:]
	return true
}

// number is protowire.ConsumeVarint, made for small numbers.
func number(b []byte) (v uint64, n int) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), 1
	}
	return protowire.ConsumeVarint(b)
}

// count returns how often a message has a field.
func (d *Decoder) count(message []byte, tag uint64) (n int) {
	for f := (fields{rest: message}); d.next(&f); {
		if f.tag == tag {
			n++
		}
	}
	return n
}

// text returns b as a part of the entry's texts.
func (d *Decoder) text(b []byte) string {
	d.strange = d.strange || !utf8.Valid(b)
	at := d.texts.Len()
	d.texts.Write(b)
	return d.texts.String()[at:]
}

// packed returns the numbers of a packed field, of which there is one in a message.
func packed[N ~int32 | ~int64 | ~uint32 | ~uint64](d *Decoder, p *pile[N], before []N, b []byte) []N {
	d.strange = d.strange || before != nil
	n := 0
	for _, c := range b {
		if c < 0x80 { // the last byte of a number
			n++
		}
	}
	numbers := p.take(n)
	for i := range numbers {
		v, size := number(b)
		if size < 0 {
			d.strange = true
			break
		}
		numbers[i], b = N(v), b[size:]
	}
	d.strange = d.strange || len(b) > 0
	return numbers
}

func (d *Decoder) entry(data []byte) *storagev1.BlockMeta {
	var n [14]int // how often there is each of the fields that repeat
	texts := 0
	for f := (fields{rest: data}); d.next(&f); {
		switch f.tag {
		case 7<<3 | length, 10<<3 | length, 11<<3 | length, 12<<3 | length, 13<<3 | length:
			n[f.tag>>3]++
		}
		switch f.tag {
		case 1<<3 | length, 7<<3 | length, 13<<3 | length:
			texts += len(f.bytes)
		}
	}
	if d.strange {
		return nil
	}
	d.texts.Grow(texts)
	m := d.entries.list(1)[0]
	m.Sources, m.Strings = d.strings.take(n[7])[:0], d.strings.take(n[13])[:0]
	m.Kinds, m.Groups, m.Datasets = d.kinds.list(n[10]), d.groups.list(n[11]), d.datasets.list(n[12])
	kinds, groups, datasets := m.Kinds, m.Groups, m.Datasets
	for f := (fields{rest: data}); d.next(&f); {
		switch f.tag {
		case 1<<3 | length:
			m.Id = d.text(f.bytes)
		case 2<<3 | varint:
			m.Tenant = uint32(f.value)
		case 3<<3 | varint:
			m.Shard = uint32(f.value)
		case 4<<3 | varint:
			m.Level = uint32(f.value)
		case 5<<3 | varint:
			m.MinTime = int64(f.value)
		case 6<<3 | varint:
			m.MaxTime = int64(f.value)
		case 7<<3 | length:
			m.Sources = append(m.Sources, d.text(f.bytes))
		case 8<<3 | varint:
			m.Writer = uint32(f.value)
		case 9<<3 | fixed64:
			m.Size = f.value
		case 10<<3 | length:
			d.kind(kinds[0], f.bytes)
			kinds = kinds[1:]
		case 11<<3 | length:
			d.group(groups[0], f.bytes)
			groups = groups[1:]
		case 12<<3 | length:
			d.dataset(datasets[0], f.bytes)
			datasets = datasets[1:]
		case 13<<3 | length:
			m.Strings = append(m.Strings, d.text(f.bytes))
		default:
			d.strange = true
		}
	}
	return m
}

func (d *Decoder) kind(k *storagev1.Kind, data []byte) {
	k.SampleTypes = d.sampleTypes.list(d.count(data, 4<<3|length))
	types := k.SampleTypes
	for f := (fields{rest: data}); d.next(&f); {
		switch f.tag {
		case 1<<3 | varint:
			k.Name = uint32(f.value)
		case 2<<3 | varint:
			k.PeriodType = uint32(f.value)
		case 3<<3 | varint:
			k.PeriodUnit = uint32(f.value)
		case 4<<3 | length:
			d.sampleType(types[0], f.bytes)
			types = types[1:]
		default:
			d.strange = true
		}
	}
}

func (d *Decoder) sampleType(t *storagev1.SampleType, data []byte) {
	for f := (fields{rest: data}); d.next(&f); {
		switch f.tag {
		case 1<<3 | varint:
			t.Type = uint32(f.value)
		case 2<<3 | varint:
			t.Unit = uint32(f.value)
		default:
			d.strange = true
		}
	}
}

func (d *Decoder) group(g *storagev1.Group, data []byte) {
	g.Sections = d.sections.list(d.count(data, 3<<3|length))
	sections := g.Sections
	for f := (fields{rest: data}); d.next(&f); {
		switch f.tag {
		case 1<<3 | varint:
			g.Tenant = uint32(f.value)
		case 2<<3 | varint:
			g.Sorted = f.value != 0
		case 3<<3 | length:
			d.section(sections[0], f.bytes)
			sections = sections[1:]
		default:
			d.strange = true
		}
	}
}

func (d *Decoder) section(s *storagev1.Section, data []byte) {
	for f := (fields{rest: data}); d.next(&f); {
		switch f.tag {
		case 1<<3 | varint:
			s.Type = storagev1.SectionType(f.value)
		case 2<<3 | varint:
			s.Offset = f.value
		case 3<<3 | varint:
			s.Length = f.value
		case 4<<3 | fixed32:
			s.Crc = uint32(f.value)
		default:
			d.strange = true
		}
	}
}

func (d *Decoder) dataset(s *storagev1.Dataset, data []byte) {
	s.Rows = d.rows.list(d.count(data, 6<<3|length))
	rows := s.Rows
	for f := (fields{rest: data}); d.next(&f); {
		switch f.tag {
		case 1<<3 | varint:
			s.Tenant = uint32(f.value)
		case 2<<3 | varint:
			s.Service = uint32(f.value)
		case 3<<3 | varint:
			s.Group = uint32(f.value)
		case 4<<3 | varint:
			s.MinTime = int64(f.value)
		case 5<<3 | varint:
			s.MaxTime = int64(f.value)
		case 6<<3 | length:
			d.rowsOf(rows[0], f.bytes)
			rows = rows[1:]
		case 7<<3 | length:
			s.LabelFilter = d.filters.take(len(f.bytes))
			copy(s.LabelFilter, f.bytes)
		case 8<<3 | length:
			s.Excluded = packed(d, &d.references, s.Excluded, f.bytes)
		default:
			d.strange = true
		}
	}
}

func (d *Decoder) rowsOf(r *storagev1.Rows, data []byte) {
	r.Rollups = d.rollups.list(d.count(data, 9<<3|length))
	rollups := r.Rollups
	for f := (fields{rest: data}); d.next(&f); {
		switch f.tag {
		case 1<<3 | varint:
			r.Kind = uint32(f.value)
		case 2<<3 | varint:
			r.FirstProfile = f.value
		case 3<<3 | varint:
			r.Profiles = f.value
		case 4<<3 | varint:
			r.Samples = f.value
		case 5<<3 | length:
			r.Sums = packed(d, &d.sums, r.Sums, f.bytes)
		case 6<<3 | varint:
			r.TreesSection = uint32(f.value)
		case 7<<3 | varint:
			r.SamplesSection = uint32(f.value)
		case 8<<3 | length:
			r.ColumnStarts = packed(d, &d.starts, r.ColumnStarts, f.bytes)
		case 9<<3 | length:
			d.rollup(rollups[0], f.bytes)
			rollups = rollups[1:]
		case 10<<3 | length:
			r.Columns = packed(d, &d.columns, r.Columns, f.bytes)
		default:
			d.strange = true
		}
	}
}

func (d *Decoder) rollup(r *storagev1.Rollup, data []byte) {
	for f := (fields{rest: data}); d.next(&f); {
		switch f.tag {
		case 1<<3 | varint:
			r.Bucket = int64(f.value)
		case 2<<3 | varint:
			r.PerSeries = f.value != 0
		case 3<<3 | varint:
			r.Section = uint32(f.value)
		default:
			d.strange = true
		}
	}
}
