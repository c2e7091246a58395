package inspect

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/profile"
)

const (
	// headSize is magic and version; tailSize is footer length, CRC, version and magic.
	headSize = 5
	tailSize = 13
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// object is an object whose footer has been read and leads everywhere it says.
type object struct {
	src  *held
	meta *storagev1.BlockMeta
	// footer is its length in bytes, without head and tail of the object.
	footer int64
	// uses are the rows that refer to a section, in the order of the footer.
	uses map[sectionRef][]use
	// groups are the rows of each group, in the order of the footer.
	groups [][]use
}

// sectionRef names a section by the indexes of its group and of itself.
type sectionRef struct{ group, section int }

// use names rows by the indexes of their dataset and of themselves.
type use struct{ dataset, rows int }

func open(ctx context.Context, src block.Source) (*object, error) {
	meta, err := block.ReadMeta(ctx, src)
	if err != nil {
		return nil, err
	}
	if _, err := block.Open(src, meta); err != nil {
		return nil, err
	}
	tail, err := src.ReadRange(ctx, src.Size()-tailSize, tailSize)
	if err != nil {
		return nil, fmt.Errorf("read the end of the object: %w", err)
	}
	o := &object{
		src: &held{Source: src}, meta: meta, footer: int64(binary.LittleEndian.Uint32(tail)),
		uses: map[sectionRef][]use{}, groups: make([][]use, len(meta.GetGroups())),
	}
	for i, d := range meta.GetDatasets() {
		for j, r := range d.GetRows() {
			o.groups[d.GetGroup()] = append(o.groups[d.GetGroup()], use{i, j})
			sections := []uint32{r.GetTreesSection(), r.GetSamplesSection()}
			for _, m := range r.GetRollups() {
				sections = append(sections, m.GetSection())
			}
			for _, s := range sections {
				ref := sectionRef{int(d.GetGroup()), int(s)}
				o.uses[ref] = append(o.uses[ref], use{i, j})
			}
		}
	}
	return o, nil
}

// usesOf returns the rows that a section is for: those that name it, or all of its group if no rows name it.
func (o *object) usesOf(ref sectionRef) []use {
	if all := o.uses[ref]; len(all) > 0 {
		return all
	}
	return o.groups[ref.group]
}

func (o *object) rows(u use) *storagev1.Rows { return o.meta.Datasets[u.dataset].Rows[u.rows] }

// kind returns a kind with its names.
func (o *object) kind(i uint32) profile.Kind {
	m, s := o.meta.Kinds[i], o.meta.Strings
	k := profile.Kind{Name: s[m.GetName()], PeriodType: s[m.GetPeriodType()], PeriodUnit: s[m.GetPeriodUnit()]}
	for _, t := range m.GetSampleTypes() {
		k.SampleTypes = append(k.SampleTypes, profile.SampleType{Type: s[t.GetType()], Unit: s[t.GetUnit()]})
	}
	return k
}

// fetch reads a section and checks its CRC. An error that wraps block.ErrCorrupt is the object's fault.
func (o *object) fetch(ctx context.Context, s *storagev1.Section) ([]byte, error) {
	b, err := o.src.hold(ctx, int64(s.GetOffset()), int64(s.GetLength()))
	if err != nil {
		return nil, err
	}
	if crc := crc32.Checksum(b, castagnoli); crc != s.GetCrc() {
		return nil, fmt.Errorf("%w: CRC %08x, want %08x", block.ErrCorrupt, crc, s.GetCrc())
	}
	return b, nil
}

// typeName is the name of a section's type as the format's page writes it.
func typeName(t storagev1.SectionType) string {
	const prefix = "SECTION_TYPE_"
	if name, ok := storagev1.SectionType_name[int32(t)]; ok {
		return name[len(prefix):]
	}
	return fmt.Sprintf("TYPE %d", t)
}

// held is a Source that keeps the sections at hand, so that a block.Reader beside it reads nothing twice.
type held struct {
	block.Source
	ranges map[[2]int64][]byte
}

// hold reads a range and keeps it until release.
func (h *held) hold(ctx context.Context, off, n int64) ([]byte, error) {
	b, err := h.ReadRange(ctx, off, n)
	if err != nil {
		return nil, err
	}
	if int64(len(b)) != n {
		return nil, fmt.Errorf("%w: read %d bytes of %d", block.ErrCorrupt, len(b), n)
	}
	if h.ranges == nil {
		h.ranges = map[[2]int64][]byte{}
	}
	h.ranges[[2]int64{off, n}] = b
	return b, nil
}

// ReadRange returns what is kept, or reads it.
func (h *held) ReadRange(ctx context.Context, off, n int64) ([]byte, error) {
	if b, ok := h.ranges[[2]int64{off, n}]; ok {
		return b, nil
	}
	return h.Source.ReadRange(ctx, off, n)
}

func (h *held) release() { clear(h.ranges) }

// Alone returns the entry of an object in which it has one group only, which is group 0 there, and the datasets of
// that group. A block.Reader of it holds no more than that group. Meta must be one that block.Open accepts; the
// result shares memory with it.
func Alone(meta *storagev1.BlockMeta, group int) *storagev1.BlockMeta {
	alone := &storagev1.BlockMeta{}
	m := alone.ProtoReflect()
	meta.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		m.Set(f, v)
		return true
	})
	alone.Groups = meta.Groups[group : group+1]
	alone.Datasets = nil
	for _, d := range meta.GetDatasets() {
		if int(d.GetGroup()) == group {
			d = proto.CloneOf(d)
			d.Group = 0
			alone.Datasets = append(alone.Datasets, d)
		}
	}
	return alone
}
