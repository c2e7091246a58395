package index

import (
	"bytes"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
)

// drawMessage sets any of the fields of a message, those of messages within it too.
func drawMessage(t *rapid.T, m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch n := rapid.IntRange(0, 3).Draw(t, string(f.Name())); {
		case n == 0:
		case f.IsList():
			list := m.Mutable(f).List()
			for range n {
				if f.Kind() == protoreflect.MessageKind {
					drawMessage(t, list.AppendMutable().Message())
				} else {
					list.Append(drawValue(t, f))
				}
			}
		default:
			m.Set(f, drawValue(t, f))
		}
	}
}

func drawValue(t *rapid.T, f protoreflect.FieldDescriptor) protoreflect.Value {
	name := string(f.Name())
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(rapid.StringN(0, 9, -1).Draw(t, name))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(rapid.SliceOfN(rapid.Byte(), 0, 9).Draw(t, name))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(rapid.Bool().Draw(t, name))
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(rapid.Int32().Draw(t, name)))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(rapid.Int64().Draw(t, name))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(rapid.Uint64().Draw(t, name))
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(rapid.Uint32().Draw(t, name))
	}
	t.Fatalf("%s is of a kind that no entry had", f.FullName())
	return protoreflect.Value{}
}

// Whatever fields an entry has, it comes out as it went in, also of a decoder that has decoded others. No field is strange:
// one that is new in the protos must be known to the decoder, too.
func TestDecoderKnowsEveryField(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var d Decoder
		for range rapid.IntRange(1, 4).Draw(t, "entries") {
			want := &storagev1.BlockMeta{}
			drawMessage(t, want.ProtoReflect())
			data, err := encode(want)
			if err != nil {
				t.Fatal(err)
			}
			got, err := d.Decode(data)
			if err != nil || d.strange {
				t.Fatalf("strange: %v, %v", d.strange, err)
			}
			clear(data) // the log's memory is used again
			if !proto.Equal(got, want) {
				t.Fatalf("got %v, want %v", got, want)
			}
		}
	})
}

// typical is an entry as a segment-writer makes it.
func typical() *storagev1.BlockMeta {
	m := &storagev1.BlockMeta{
		Id: "01J0000000000000000000000A", Shard: 3, MinTime: 1_700_000_000_000_000_000, MaxTime: 1_700_000_015_000_000_000, Writer: 7, Size: 100_000,
		Strings: []string{"", "tenant", "service", "process_cpu", "cpu", "nanoseconds", "samples", "node-1"},
		Kinds:   []*storagev1.Kind{{Name: 3, PeriodType: 4, PeriodUnit: 5, SampleTypes: []*storagev1.SampleType{{Type: 6, Unit: 5}, {Type: 4, Unit: 5}}}},
		Groups:  []*storagev1.Group{{Tenant: 1, Sections: []*storagev1.Section{{Type: 1, Offset: 2, Length: 3, Crc: 4}, {Type: 2, Offset: 5, Length: 6, Crc: 7}}}},
		Datasets: []*storagev1.Dataset{{
			Tenant: 1, Service: 2, MinTime: 1_700_000_000_000_000_000, MaxTime: 1_700_000_015_000_000_000, LabelFilter: []byte{1, 2, 3}, Excluded: []uint32{1},
			Rows: []*storagev1.Rows{{
				FirstProfile: 1, Profiles: 2, Samples: 3, Sums: []int64{4, -1}, TreesSection: 1, SamplesSection: 1, ColumnStarts: []uint64{0, 300},
				Rollups: []*storagev1.Rollup{{Bucket: 1, PerSeries: true, Section: 1}}, Columns: []storagev1.RowColumn{1},
			}},
		}},
	}
	return m
}

// FuzzDecode holds Decoder to proto.Unmarshal for any bytes at all.
func FuzzDecode(f *testing.F) {
	data, err := encode(typical())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(data[:len(data)-3])
	f.Add(append(slices.Clone(data), data...))                                              // each field twice
	f.Add(protowire.AppendString(protowire.AppendTag(slices.Clone(data), 100, 2), "later")) // a field of a later build
	f.Add(protowire.AppendString(protowire.AppendTag(slices.Clone(data), 13, 2), "\xff"))   // no text
	f.Add(protowire.AppendVarint(protowire.AppendTag(slices.Clone(data), 1, 0), 1))         // another wire type
	f.Add([]byte{12<<3 | 2, 4, 8 << 3, 1, 8 << 3, 2})                                       // a list that is not packed
	f.Add([]byte{12<<3 | 2, 6, 8<<3 | 2, 1, 1, 8<<3 | 2, 1, 2})                             // a list in two parts
	f.Add([]byte{12<<3 | 2, 3, 8<<3 | 2, 1, 0x80})                                          // a number without an end
	f.Fuzz(func(t *testing.T, data []byte) {
		want := &storagev1.BlockMeta{}
		wantErr := proto.Unmarshal(data, want)
		var d Decoder
		for range 2 { // in new memory, and in used
			got, err := d.Decode(data)
			if (err == nil) != (wantErr == nil) {
				t.Fatalf("error %v, want %v", err, wantErr)
			}
			if err == nil && !proto.Equal(got, want) {
				t.Fatalf("got %v, want %v", got, want)
			}
		}
	})
}

func TestSegmentsAreThoseOfTheMessage(t *testing.T) {
	a, b := typical(), &storagev1.BlockMeta{Id: "b"}
	data, err := proto.Marshal(&storagev1.AddSegments{Segments: []*storagev1.BlockMeta{a, b}})
	if err != nil {
		t.Fatal(err)
	}
	data = protowire.AppendString(protowire.AppendTag(data, 100, protowire.BytesType), "of a later build")
	var got [][]byte
	for segment, err := range Segments(data) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, segment)
	}
	for i, m := range []*storagev1.BlockMeta{a, b} {
		if want, err := encode(m); err != nil || len(got) != 2 || !bytes.Equal(got[i], want) {
			t.Errorf("segment %d of %d is %x, want %x, %v", i, len(got), got[i], want, err)
		}
	}
	var last error
	for _, err := range Segments(data[:len(data)-1]) {
		last = err
	}
	if last == nil {
		t.Error("a damaged list has no error")
	}
}

// A decoder that has seen the like of an entry needs memory for its texts alone.
func TestDecoderUsesItsMemoryAgain(t *testing.T) {
	data, err := encode(typical())
	if err != nil {
		t.Fatal(err)
	}
	var d Decoder
	if n := testing.AllocsPerRun(100, func() {
		if _, err := d.Decode(data); err != nil {
			t.Fatal(err)
		}
	}); n > 1 {
		t.Errorf("%v allocations, want 1", n)
	}
}

func BenchmarkDecode(b *testing.B) {
	data, err := encode(typical())
	if err != nil {
		b.Fatal(err)
	}
	var d Decoder
	for name, decode := range map[string]func([]byte) (*storagev1.BlockMeta, error){"Decoder": d.Decode, "proto": decode} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := decode(data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
