package pprof

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"unsafe"

	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/tenant"
)

// Limits bound what a Decoder accepts. A limit of 0 is none, but for MaxBytes: a profile never exceeds 1 GiB.
type Limits struct {
	// MaxBytes bounds the profile after decompression.
	MaxBytes int
	// MaxRatio bounds how many times larger than the body a gzipped profile may be; the first MiB is free.
	MaxRatio int
	// MaxSamples bounds the samples of the profile.
	MaxSamples int
	// MaxSampleTypes bounds the values of a sample.
	MaxSampleTypes int
	// MaxSampleLabels bounds the labels of a sample.
	MaxSampleLabels int
}

// LimitsOf returns what a tenant's limits say of one profile.
func LimitsOf(t tenant.Limits) Limits {
	return Limits{
		MaxBytes:        t.MaxProfileBytes,
		MaxRatio:        t.MaxRatio,
		MaxSamples:      t.MaxSamples,
		MaxSampleTypes:  t.MaxSampleTypes,
		MaxSampleLabels: t.MaxSampleLabels,
	}
}

// Decoder reads profiles. It keeps its memory from one to the next. The zero value is ready for use;
// not safe for concurrent use.
type Decoder struct {
	inflater inflater
	p        *profile.Profile
	lim      Limits

	// Until resolve has checked them, Profile.Stacks, Location.Mapping and Line.Function hold ids, not indexes.
	locations, mappings, functions ids
	// valueEnds[i] is where the values of sample i end in Profile.Values.
	valueEnds []uint32
	// strings counts the string table of the profile.
	strings uint32
}

// NewDecoder returns a decoder.
func NewDecoder() *Decoder { return &Decoder{} }

// Decode reads the profile in body, gzipped or not, into p, whatever p held before. It keeps no reference
// to body or p. The errors wrap ErrMalformed or ErrTooLarge; p is of no use after one.
func (d *Decoder) Decode(body []byte, lim Limits, p *profile.Profile) error {
	d.p, d.lim = p, lim
	defer func() { d.p = nil }()
	p.Reset()
	data, err := d.inflater.inflate(p.Data, body, lim)
	p.Data = data
	if err != nil {
		return err
	}
	err = d.read(false)
	if errors.Is(err, errWide) {
		p.Reset()
		p.Data = data
		err = d.read(true)
	}
	p.Wire = err == nil
	return err
}

// Bytes returns the memory that the decoder holds on to, about. It grows with the largest profile; the profiles
// themselves count their own.
func (d *Decoder) Bytes() int {
	return d.locations.bytes() + d.mappings.bytes() + d.functions.bytes() + 4*cap(d.valueEnds) + int(unsafe.Sizeof(*d))
}

// errCut says that a message ends in the middle of a field.
var errCut = errors.New("it ends in the middle of a field")

// errWide says that ids do not fit the narrow form: see ids.
var errWide = errors.New("ids need to be numbered")

// read makes one pass over the input and one over the arrays.
func (d *Decoder) read(wide bool) error {
	d.locations.reset(wide)
	d.mappings.reset(wide)
	d.functions.reset(wide)
	d.valueEnds = d.valueEnds[:0]
	d.p.Strings = d.p.Strings[:0]
	if err := d.profile(d.p.Data); err != nil {
		return err
	}
	return d.resolve()
}

// profile reads the outermost message.
func (d *Decoder) profile(b []byte) error {
	p := d.p
	for i := 0; i < len(b); {
		var err error
		tag, v, n := next(b, i)
		switch tag {
		case bytes2:
			err = d.sample(b[n-int(v) : n])
		case bytes6:
			p.Strings = append(p.Strings, profile.Span{Off: uint32(n - int(v)), Len: uint32(v)})
		case bytes4:
			err = d.location(b[n-int(v) : n])
		case bytes5:
			err = d.function(b[n-int(v) : n])
		case bytes3:
			err = d.mapping(b[n-int(v) : n])
		case bytes1:
			var t profile.ValueType
			err = valueType(b[n-int(v):n], &t)
			p.SampleTypes = append(p.SampleTypes, t)
			if d.lim.MaxSampleTypes > 0 && len(p.SampleTypes) > d.lim.MaxSampleTypes {
				return &LimitError{"sample types", d.lim.MaxSampleTypes}
			}
		case bytes11:
			err = valueType(b[n-int(v):n], &p.PeriodType)
		case varint9:
			p.TimeNanos = int64(v)
		case varint10:
			p.DurationNanos = int64(v)
		case varint12:
			p.Period = int64(v)
		case varint7, varint8, varint13, bytes13, varint14, varint15:
			n, err = skip(b, i, n, 0)
		default:
			n, err = skip(b, i, n, 15)
		}
		if n < 0 {
			err = errCut
		}
		if err != nil {
			return explain(err, b[i]>>3, i)
		}
		i = n
	}
	return nil
}

// explain says in which field of the profile, and where, an error was.
func explain(err error, number byte, at int) error {
	if errors.Is(err, errWide) || errors.Is(err, ErrTooLarge) {
		return err
	}
	names := [...]string{1: "sample_type", 2: "sample", 3: "mapping", 4: "location", 5: "function", 6: "string_table", 11: "period_type"}
	if int(number) < len(names) && names[number] != "" {
		return malformed("%s at byte %d: %w", names[number], at, err)
	}
	return malformed("at byte %d: %w", at, err)
}

// narrow returns the number of a string in 32 bits. What does not fit becomes the largest number, which no
// table has, so that it is found out with the others.
func narrow(v uint64) uint32 { return uint32(min(v, math.MaxUint32)) }

func valueType(b []byte, t *profile.ValueType) (err error) {
	for i := 0; i < len(b) && err == nil; {
		tag, v, n := next(b, i)
		switch tag {
		case varint1:
			t.Type = narrow(v)
		case varint2:
			t.Unit = narrow(v)
		default:
			n, err = skip(b, i, n, 2)
		}
		if i = n; n < 0 {
			err = errCut
		}
	}
	return err
}

func (d *Decoder) sample(b []byte) (err error) {
	p := d.p
	if d.lim.MaxSamples > 0 && len(p.StackEnds) >= d.lim.MaxSamples {
		return &LimitError{"samples", d.lim.MaxSamples}
	}
	labels := len(p.SampleLabels)
	for i := 0; i < len(b); {
		tag, v, n := next(b, i)
		switch tag {
		case bytes1:
			err = d.stack(b[n-int(v) : n])
		case varint1:
			var id uint32
			id, err = d.locations.refer(v)
			p.Stacks = append(p.Stacks, id)
		case bytes2:
			err = d.values(b[n-int(v) : n])
		case varint2:
			p.Values = append(p.Values, int64(v))
		case bytes3:
			err = d.label(b[n-int(v) : n])
			if d.lim.MaxSampleLabels > 0 && len(p.SampleLabels)-labels > d.lim.MaxSampleLabels {
				return &LimitError{"labels of a sample", d.lim.MaxSampleLabels}
			}
		default:
			n, err = skip(b, i, n, 3)
		}
		if n < 0 {
			return errCut
		}
		if err != nil {
			return err
		}
		i = n
	}
	p.StackEnds = append(p.StackEnds, uint32(len(p.Stacks)))
	p.LabelEnds = append(p.LabelEnds, uint32(len(p.SampleLabels)))
	d.valueEnds = append(d.valueEnds, uint32(len(p.Values)))
	return nil
}

// stack reads packed location ids. Most of a profile is here: ids of one or two bytes are read in place.
func (d *Decoder) stack(b []byte) error {
	// No id takes less than a byte. Long ids have to be numbered, whatever their own length.
	out := slices.Grow(d.p.Stacks, len(b))
	n := len(out)
	out = out[:n+len(b)]
	short := !d.locations.wide
	for i := 0; i < len(b); n++ {
		v := uint32(b[i])
		if v < 0x80 && short {
			i++
		} else if i+1 < len(b) && b[i+1] < 0x80 && short {
			v = v&0x7f | uint32(b[i+1])<<7
			i += 2
		} else {
			var long uint64
			var err error
			if long, i = varint(b, i); i < 0 {
				return fmt.Errorf("location_id: %w", errCut)
			}
			if v, err = d.locations.refer(long); err != nil {
				return err
			}
		}
		out[n] = v
	}
	d.p.Stacks = out[:n]
	return nil
}

// values reads packed values.
func (d *Decoder) values(b []byte) error {
	out := d.p.Values
	for i := 0; i < len(b); {
		v := uint64(b[i])
		if v < 0x80 {
			i++
		} else if v, i = varint(b, i); i < 0 {
			return fmt.Errorf("value: %w", errCut)
		}
		out = append(out, int64(v))
	}
	d.p.Values = out
	return nil
}

func (d *Decoder) label(b []byte) (err error) {
	var l profile.SampleLabel
	for i := 0; i < len(b) && err == nil; {
		tag, v, n, ok := small(b, i)
		if !ok {
			tag, v, n = next(b, i)
		}
		switch tag {
		case varint1:
			l.Key = narrow(v)
		case varint2:
			l.Str = narrow(v)
		case varint3:
			l.Num = int64(v)
		case varint4:
			l.Unit = narrow(v)
		default:
			n, err = skip(b, i, n, 4)
		}
		if i = n; n < 0 {
			err = errCut
		}
	}
	d.p.SampleLabels = append(d.p.SampleLabels, l)
	return err
}

func (d *Decoder) location(b []byte) (err error) {
	p := d.p
	l := profile.Location{FirstLine: uint32(len(p.Lines))}
	var id uint64
	for i := 0; i < len(b) && err == nil; {
		tag, v, n, ok := small(b, i)
		if !ok {
			tag, v, n = next(b, i)
		}
		switch tag {
		case varint1:
			id = v
		case varint2:
			l.Mapping, err = d.mappings.refer(v)
		case varint3:
			l.Address = v
		case bytes4:
			err = d.line(b[n-int(v) : n])
		case varint5:
			l.Folded = v != 0
		default:
			n, err = skip(b, i, n, 5)
		}
		if i = n; n < 0 {
			err = errCut
		}
	}
	if err != nil {
		return err
	}
	l.Lines = uint32(len(p.Lines)) - l.FirstLine
	p.Locations = append(p.Locations, l)
	return d.locations.define(id)
}

func (d *Decoder) line(b []byte) (err error) {
	var l profile.Line
	for i := 0; i < len(b) && err == nil; {
		tag, v, n, ok := small(b, i)
		if !ok {
			tag, v, n = next(b, i)
		}
		switch tag {
		case varint1:
			l.Function, err = d.functions.refer(v)
		case varint2:
			l.Line = int64(v)
		case varint3:
			l.Column = int64(v)
		default:
			n, err = skip(b, i, n, 3)
		}
		if i = n; n < 0 {
			err = errCut
		}
	}
	d.p.Lines = append(d.p.Lines, l)
	return err
}

func (d *Decoder) function(b []byte) (err error) {
	var f profile.Function
	var id uint64
	for i := 0; i < len(b) && err == nil; {
		tag, v, n, ok := small(b, i)
		if !ok {
			tag, v, n = next(b, i)
		}
		switch tag {
		case varint1:
			id = v
		case varint2:
			f.Name = narrow(v)
		case varint3:
			f.SystemName = narrow(v)
		case varint4:
			f.File = narrow(v)
		case varint5:
			f.StartLine = int64(v)
		default:
			n, err = skip(b, i, n, 5)
		}
		if i = n; n < 0 {
			err = errCut
		}
	}
	if err != nil {
		return err
	}
	d.p.Functions = append(d.p.Functions, f)
	return d.functions.define(id)
}

func (d *Decoder) mapping(b []byte) (err error) {
	var m profile.Mapping
	var id uint64
	for i := 0; i < len(b) && err == nil; {
		tag, v, n := next(b, i)
		switch tag {
		case varint1:
			id = v
		case varint2:
			m.Start = v
		case varint3:
			m.Limit = v
		case varint4:
			m.Offset = v
		case varint5:
			m.File = narrow(v)
		case varint6:
			m.BuildID = narrow(v)
		case varint7:
			m.HasFunctions = v != 0
		case varint8:
			m.HasFilenames = v != 0
		case varint9:
			m.HasLineNumbers = v != 0
		case varint10:
			m.HasInlineFrames = v != 0
		default:
			n, err = skip(b, i, n, 10)
		}
		if i = n; n < 0 {
			err = errCut
		}
	}
	if err != nil {
		return err
	}
	d.p.Mappings = append(d.p.Mappings, m)
	return d.mappings.define(id)
}
