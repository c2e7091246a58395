package block

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"strings"

	"google.golang.org/protobuf/proto"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
)

// Source is where the bytes of an object come from.
type Source interface {
	// ReadRange returns exactly n bytes from off on, which nobody will change. A short object is an error, never a
	// short read. It may be called concurrently.
	ReadRange(ctx context.Context, off, n int64) ([]byte, error)
	// Size returns the size of the object.
	Size() int64
}

// ReadMeta reads the footer of an object of which nothing is known but its bytes.
func ReadMeta(ctx context.Context, src Source) (*storagev1.BlockMeta, error) {
	size := src.Size()
	if size < int64(headSize+tailSize) {
		return nil, fmt.Errorf("%w: an object of %d bytes", ErrCorrupt, size)
	}
	n := min(size, firstRead)
	b, err := read(ctx, src, size-n, n)
	if err != nil {
		return nil, err
	}
	if n == size {
		if err := checkMagic("head", b[:len(magic)], b[len(magic)]); err != nil {
			return nil, err
		}
	}
	length, crc, err := decodeTail(b[len(b)-tailSize:], size)
	if err != nil {
		return nil, err
	}
	need := length + int64(tailSize)
	if need > n {
		if b, err = read(ctx, src, size-need, need); err != nil {
			return nil, err
		}
	}
	footer := b[int64(len(b))-need : len(b)-tailSize]
	if got := crc32.Checksum(footer, castagnoli); got != crc {
		return nil, fmt.Errorf("%w: the footer has CRC %08x, want %08x", ErrCorrupt, got, crc)
	}
	return decodeFooter(footer, size)
}

func read(ctx context.Context, src Source, off, n int64) ([]byte, error) {
	b, err := src.ReadRange(ctx, off, n)
	if err != nil {
		return nil, fmt.Errorf("read footer: %w", err)
	}
	if int64(len(b)) != n {
		return nil, fmt.Errorf("%w: read %d bytes at %d, want %d", ErrCorrupt, len(b), off, n)
	}
	return b, nil
}

// decodeTail is the mirror of the end of encodeFooter.
func decodeTail(b []byte, size int64) (length int64, crc uint32, err error) {
	if err := checkMagic("tail", b[9:], b[8]); err != nil {
		return 0, 0, err
	}
	length = int64(binary.LittleEndian.Uint32(b))
	if length > size-int64(headSize+tailSize) || length > maxFooter {
		return 0, 0, fmt.Errorf("%w: a footer of %d bytes in an object of %d", ErrCorrupt, length, size)
	}
	return length, binary.LittleEndian.Uint32(b[4:]), nil
}

func checkMagic(where string, m []byte, v byte) error {
	if string(m) != magic {
		return fmt.Errorf("%w: no %q at the %s of the object", ErrCorrupt, magic, where)
	}
	if v != version {
		return fmt.Errorf("%w: %d, this program knows up to %d", ErrVersion, v, version)
	}
	return nil
}

// decodeFooter decodes a footer whose CRC is right.
func decodeFooter(footer []byte, size int64) (*storagev1.BlockMeta, error) {
	m := &storagev1.BlockMeta{}
	if err := proto.Unmarshal(footer, m); err != nil {
		return nil, fmt.Errorf("%w: decode footer: %w", ErrCorrupt, err)
	}
	for _, d := range m.GetDatasets() {
		if len(d.GetExcluded()) > 0 {
			return nil, fmt.Errorf("%w: the footer of object %s says that series were deleted", ErrCorrupt, m.GetId())
		}
	}
	if m.GetSize() != uint64(size) {
		return nil, fmt.Errorf("%w: object %s has %d bytes, its footer says %d", ErrCorrupt, m.GetId(), size, m.GetSize())
	}
	return m, nil
}

// checker validates the references of a footer. The first error stays.
type checker struct {
	m   *storagev1.BlockMeta
	err error
	// extras says that some rows have extra columns.
	extras bool
}

// checkMeta tells whether every reference of a footer leads somewhere. It reads nothing.
func checkMeta(m *storagev1.BlockMeta) error {
	c := checker{m: m}
	if len(m.GetStrings()) == 0 || m.Strings[0] != "" {
		c.fail("strings without %q at 0", "")
	}
	c.ref("tenant", m.GetTenant())
	c.ref("writer", m.GetWriter())
	if m.GetSize() > math.MaxInt64 || m.GetSize() < uint64(headSize+tailSize) {
		c.fail("a size of %d", m.GetSize())
	}
	for i, k := range m.GetKinds() {
		c.kind(i, k)
	}
	for i, g := range m.GetGroups() {
		c.group(i, g)
	}
	for i, d := range m.GetDatasets() {
		c.dataset(i, d)
	}
	if c.extras && c.err == nil {
		c.sharedColumns()
	}
	return c.err
}

func (c *checker) fail(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf("%w: footer: %s", ErrCorrupt, fmt.Sprintf(format, args...))
	}
}

func (c *checker) ref(what string, i uint32) {
	if int64(i) >= int64(len(c.m.GetStrings())) {
		c.fail("%s is string %d of %d", what, i, len(c.m.GetStrings()))
	}
}

func (c *checker) kind(i int, k *storagev1.Kind) {
	c.ref("name of a kind", k.GetName())
	c.ref("period type of a kind", k.GetPeriodType())
	c.ref("period unit of a kind", k.GetPeriodUnit())
	if n := len(k.GetSampleTypes()); n == 0 || n >= math.MaxUint8 {
		c.fail("kind %d has %d sample types", i, n)
	}
	for _, t := range k.GetSampleTypes() {
		c.ref("sample type", t.GetType())
		c.ref("sample unit", t.GetUnit())
	}
}

func (c *checker) group(i int, g *storagev1.Group) {
	c.ref("tenant of a group", g.GetTenant())
	if c.m.GetTenant() != 0 && g.GetTenant() != c.m.GetTenant() {
		c.fail("group %d is another tenant's", i)
	}
	counts := map[storagev1.SectionType]int{}
	end := c.m.GetSize() - uint64(tailSize)
	for j, s := range g.GetSections() {
		counts[s.GetType()]++
		if s.GetOffset() < uint64(headSize) || s.GetOffset() > end || s.GetLength() > end-s.GetOffset() {
			c.fail("section %d of group %d is bytes %d, length %d, of an object of %d", j, i, s.GetOffset(), s.GetLength(), c.m.GetSize())
		}
	}
	for _, t := range []storagev1.SectionType{
		storagev1.SectionType_SECTION_TYPE_SYMBOLS,
		storagev1.SectionType_SECTION_TYPE_SERIES,
		storagev1.SectionType_SECTION_TYPE_PROFILES,
	} {
		if counts[t] != 1 {
			c.fail("group %d has %d sections of type %s", i, counts[t], t)
		}
	}
}

func (c *checker) dataset(i int, d *storagev1.Dataset) {
	c.ref("tenant of a dataset", d.GetTenant())
	c.ref("service of a dataset", d.GetService())
	for _, ref := range d.GetExcluded() {
		c.ref("selector of deleted series", ref)
	}
	if c.err != nil {
		return
	}
	if int64(d.GetGroup()) >= int64(len(c.m.GetGroups())) {
		c.fail("dataset %d is in group %d of %d", i, d.GetGroup(), len(c.m.GetGroups()))
		return
	}
	g := c.m.Groups[d.GetGroup()]
	if g.GetTenant() != d.GetTenant() {
		c.fail("dataset %d is another tenant's than its group", i)
	}
	if d.GetMinTime() > d.GetMaxTime() {
		c.fail("dataset %d ends before it begins", i)
	}
	if i > 0 && compareDatasets(c.m, c.m.Datasets[i-1], d) >= 0 {
		c.fail("dataset %d is not after the one before it", i)
	}
	for j, r := range d.GetRows() {
		c.rows(i, j, r, g)
		if j > 0 && d.Rows[j-1].GetKind() > r.GetKind() {
			c.fail("kinds of dataset %d are not ascending", i)
		}
	}
}

func compareDatasets(m *storagev1.BlockMeta, a, b *storagev1.Dataset) int {
	if c := strings.Compare(m.Strings[a.GetTenant()], m.Strings[b.GetTenant()]); c != 0 {
		return c
	}
	return strings.Compare(m.Strings[a.GetService()], m.Strings[b.GetService()])
}

func (c *checker) rows(i, j int, r *storagev1.Rows, g *storagev1.Group) {
	if int64(r.GetKind()) >= int64(len(c.m.GetKinds())) {
		c.fail("rows %d of dataset %d are of kind %d of %d", j, i, r.GetKind(), len(c.m.GetKinds()))
		return
	}
	types := len(c.m.Kinds[r.GetKind()].GetSampleTypes())
	if len(r.GetSums()) != types || len(r.GetColumnStarts()) != 1+types+len(r.GetColumns()) {
		c.fail("rows %d of dataset %d have %d sums and %d column starts for %d sample types and %d columns besides",
			j, i, len(r.GetSums()), len(r.GetColumnStarts()), types, len(r.GetColumns()))
	}
	for _, sum := range r.GetSums() {
		if sum < 0 {
			c.fail("rows %d of dataset %d have a negative sum", j, i)
		}
	}
	for _, start := range r.GetColumnStarts() {
		if start > math.MaxInt64 {
			c.fail("rows %d of dataset %d begin at byte %d", j, i, start)
		}
	}
	if r.GetProfiles() == 0 || r.GetProfiles() > math.MaxInt32 || r.GetFirstProfile() > math.MaxInt64/2 || r.GetSamples() > math.MaxInt64 {
		c.fail("rows %d of dataset %d are %d profiles from %d with %d samples", j, i, r.GetProfiles(), r.GetFirstProfile(), r.GetSamples())
	}
	c.section(i, r.GetTreesSection(), g, storagev1.SectionType_SECTION_TYPE_TREES)
	c.section(i, r.GetSamplesSection(), g, storagev1.SectionType_SECTION_TYPE_SAMPLES)
	c.columns(i, r)
	c.rollups(i, r, g)
}

func (c *checker) section(i int, s uint32, g *storagev1.Group, want storagev1.SectionType) {
	if int64(s) >= int64(len(g.GetSections())) || g.Sections[s].GetType() != want {
		c.fail("dataset %d names section %d of its group as %s", i, s, want)
	}
}
