package block

import (
	"fmt"
	"math"
	"slices"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
)

// chunkRows is how many profiles of an input are decoded at a time. It divides the rows of a page: the fewer, the less is
// held of each of a hundred inputs, but a page is decoded anew for each chunk.
const chunkRows = tablePageRows / 4

// inputProfiles are the profiles of one input of a merge. The table is held as it is stored, 25 to 55 bytes of a profile,
// and decoded a chunk at a time, as often as a pass goes over it: decoded, a profile takes twice as much or more. Of a
// source that is not sorted, and of which profiles come in another order, all are one chunk.
type inputProfiles struct {
	rows   *Rows
	table  *table
	series uint64 // limit of series ids
	n      int
	whole  bool
	ranks  *seriesRanks // nil: not yet known
	// excluded are the ids of series that are left out, ascending.
	excluded []uint32

	chunk  *Profiles // at hand; nil if none has been decoded
	number int       // of the chunk at hand
	// starts[k] is where chunk k begins in each column of the samples, for the chunks up to the first that has not yet
	// been decoded.
	starts [][]uint64
	sums   []int64
	count  uint64 // rows of samples
	extras extraTotals
	// span are the times of the first and the last profile that have been decoded.
	span [2]int64
}

// seriesRanks says which index in a merged service's label sets a series id of a dataset has. Ids ascend.
type seriesRanks struct{ ids, ranks []uint32 }

func (r *seriesRanks) of(id uint32) uint32 {
	if i := id - r.ids[0]; int(i) < len(r.ids) && r.ids[i] == id {
		return r.ranks[i]
	}
	i, _ := slices.BinarySearch(r.ids, id)
	return r.ranks[i]
}

// find is of for an id that there may not be.
func (r *seriesRanks) find(id uint32) (rank uint32, ok bool) {
	i, ok := slices.BinarySearch(r.ids, id)
	if !ok {
		return 0, false
	}
	return r.ranks[i], true
}

// newInputProfiles opens the profiles of rows; nothing is decoded yet.
func newInputProfiles(rows *Rows, t *table, series int) (*inputProfiles, error) {
	n := rows.ProfileCount
	if first := rows.meta.GetFirstProfile(); uint64(n) > uint64(t.rows) || first > uint64(t.rows)-uint64(n) {
		return nil, rows.wrap(storagev1.SectionType_SECTION_TYPE_PROFILES,
			fmt.Errorf("%w: %d profiles from row %d on, of %d", ErrCorrupt, n, first, t.rows))
	}
	return &inputProfiles{
		rows: rows, table: t, series: uint64(series), n: n, whole: n <= tablePageRows || !rows.dataset.Sorted(),
		starts: [][]uint64{rows.meta.GetColumnStarts()}, sums: make([]int64, len(rows.Kind.SampleTypes)),
	}, nil
}

// chunkOf returns which chunk profile i is in, and the first and the end of that. Pages of the table end where chunks do.
func (p *inputProfiles) chunkOf(i int) (number, first, end int) {
	if p.whole {
		return 0, 0, p.n
	}
	from := int(p.rows.meta.GetFirstProfile())
	chunk := (from + i) / chunkRows
	return chunk - from/chunkRows, max(chunk*chunkRows-from, 0), min((chunk+1)*chunkRows-from, p.n)
}

// seek makes the chunk that has profile i the one at hand, and returns its index there.
func (p *inputProfiles) seek(i int) (int, error) {
	number, first, end := p.chunkOf(i)
	if p.chunk == nil || number != p.number {
		if err := p.decode(number, first, end); err != nil {
			return 0, err
		}
	}
	return i - first, nil
}

// decode decodes the profiles [first, end), which are a chunk. The first time chunks come in their order.
func (p *inputProfiles) decode(number, first, end int) (err error) {
	defer p.rows.recover(storagev1.SectionType_SECTION_TYPE_PROFILES, &err)
	if number >= len(p.starts) {
		return p.wrap(fmt.Errorf("%w: profile %d is not in its order", ErrCorrupt, first))
	}
	read := p.table.read
	if !p.whole {
		read = p.table.readOnce
	}
	d := profileDecoder{t: p.table, read: read, from: int64(p.rows.meta.GetFirstProfile()) + int64(first), n: int64(end - first)}
	chunk := d.decode(p.rows, p.series, p.starts[number])
	if d.err != nil {
		return p.wrap(d.err)
	}
	if p.ranks != nil {
		p.rank(chunk)
	}
	p.chunk, p.number = chunk, number
	if number == len(p.starts)-1 {
		return p.note(end)
	}
	return nil
}

func (p *inputProfiles) wrap(err error) error {
	return p.rows.wrap(storagev1.SectionType_SECTION_TYPE_PROFILES, err)
}

// note takes account of a chunk that is decoded for the first time. After the last, the table and the footer must agree.
func (p *inputProfiles) note(end int) error {
	c := p.chunk
	next := make([]uint64, len(c.offsets))
	for i, offsets := range c.offsets {
		next[i] = offsets[len(offsets)-1]
	}
	p.starts = append(p.starts, next)
	for i, totals := range c.Totals {
		s, ok := sum(totals)
		if p.sums[i] += s; !ok || p.sums[i] < 0 {
			return p.wrap(fmt.Errorf("%w: totals of sample type %d are negative or add up to more than int64 holds", ErrCorrupt, i))
		}
	}
	for _, n := range c.Samples {
		p.count += uint64(n)
	}
	for e, column := range c.extras {
		if column > 0 {
			p.extras[e] += next[column] - c.offsets[column][0]
		}
	}
	if n := len(c.Times); n > 0 {
		if len(p.starts) == 2 {
			p.span[0] = c.Times[0]
		}
		p.span[1] = c.Times[n-1]
	}
	if end < p.n {
		return nil
	}
	if !slices.Equal(p.sums, p.rows.Sums) || p.count != uint64(p.rows.SampleCount) {
		return p.wrap(fmt.Errorf("%w: profiles have %d rows of samples that sum to %d, the footer says %d and %d",
			ErrCorrupt, p.count, p.sums, p.rows.SampleCount, p.rows.Sums))
	}
	return nil
}

// setRanks turns the series of profiles into ranks, from now on.
func (p *inputProfiles) setRanks(r *seriesRanks) {
	p.ranks = r
	if p.chunk != nil {
		p.rank(p.chunk)
	}
}

func (p *inputProfiles) rank(c *Profiles) {
	for i, id := range c.Series {
		if _, excluded := slices.BinarySearch(p.excluded, id); excluded {
			c.Series[i] = noSeries
		} else {
			c.Series[i] = p.ranks.of(id)
		}
	}
}

// noSeries is the rank of a series that is left out.
const noSeries = math.MaxUint32

// profile returns the row of profile i.
func (p *inputProfiles) profile(i int) (Profile, error) {
	i, err := p.seek(i)
	if err != nil {
		return Profile{}, err
	}
	c := p.chunk
	return Profile{Time: c.Times[i], Series: c.Series[i], ID: c.IDs[i], Duration: c.Durations[i], Period: c.Periods[i]}, nil
}

// decodedSize is about what a decoded profile takes.
func (p *inputProfiles) decodedSize() int64 {
	return 60 + 16*int64(len(p.sums)) + 8*int64(len(p.rows.meta.GetColumns()))
}

// stored is about what the profiles take in the table as it is stored.
func (p *inputProfiles) stored() int64 {
	return int64(float64(len(p.table.data)) * float64(p.n) / float64(max(p.table.rows, 1)))
}

// size is what is held besides the table.
func (p *inputProfiles) size() int64 {
	excluded := 4 * int64(len(p.excluded))
	if p.whole {
		return excluded + int64(p.n)*p.decodedSize()
	}
	return excluded + chunkRows*p.decodedSize() + int64(p.n/chunkRows+2)*int64(8*len(p.rows.meta.GetColumnStarts())+24)
}
