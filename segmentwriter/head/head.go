package head

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
)

// ErrOverflow is returned when values that belong together do not fit into 64 bits.
var ErrOverflow = errors.New("values overflow 64 bits")

// Head gathers profiles of one tenant.
type Head struct {
	table  *profile.Table
	stacks profile.StackSet

	series    []labels.Labels   // by number
	seriesIDs map[string]uint32 // by what seriesKey writes
	rows      map[string]*rows  // by what rowsKey writes
	free      []*rows           // of earlier segments, for their memory
	kept      int               // memory of free, and of the cutter, when the head was last emptied
	rowBytes  int               // memory of series and rows, estimated

	// seen tells for each stack whether the row that is being appended has it already, and where.
	seen       []seenStack
	generation uint32

	// What follows is scratch of one call.
	remap  profile.Remap
	sent   labels.Labels
	groups []group
	key    []byte
	mapped []uint32 // the stacks of a profile with the table's locations
	stack  []uint32 // the number of each
	cut    cutter
}

// seenStack is a place in the columns of rows; it is valid in one generation only.
type seenStack struct {
	generation, sample uint32
}

// group is the samples of a profile that carry the same labels, and the series that they belong to.
type group struct {
	series  uint32
	samples []uint32
}

// New returns an empty head.
func New() *Head {
	return &Head{table: profile.NewTable(), seriesIDs: map[string]uint32{}, rows: map[string]*rows{}}
}

// Append takes a profile that was decoded, normalised and given its time. series is what it was sent with, __name__
// and service_name among it. It keeps no reference to p or series. If it returns an error, nothing of the profile
// is in the head but some names and stacks.
func (h *Head) Append(p *profile.Profile, series labels.Labels, id profile.ID) error {
	r := h.rowsOf(p, series)
	h.table.Add(&p.Symbols, &h.remap)
	h.addStacks(p)
	h.assign(p, series)

	mark := r.mark()
	for i := 0; i < len(h.groups); {
		n := i + 1
		for n < len(h.groups) && h.groups[n].series == h.groups[i].series {
			n++
		}
		if err := h.appendRow(r, p, id, h.groups[i:n]); err != nil {
			r.rollback(mark)
			return err
		}
		i = n
	}
	h.rowBytes += r.bytesSince(mark)
	return nil
}

// appendRow adds the samples of groups, which are of one series, as one row.
func (h *Head) appendRow(r *rows, p *profile.Profile, id profile.ID, groups []group) error {
	h.generation++
	first := len(r.stacks)
	at := row{
		time: p.TimeNanos, duration: p.DurationNanos, period: p.Period,
		series: groups[0].series, id: id, first: uint32(first), extras: r.beginExtras(p),
	}
	for _, g := range groups {
		for _, sample := range g.samples {
			if at.extras.any() {
				if err := r.appendApart(h.stack[sample], p, int(sample)); err != nil {
					return err
				}
			} else if err := h.appendSample(r, h.stack[sample], p.Row(int(sample))); err != nil {
				return err
			}
		}
	}
	at.count = uint32(len(r.stacks) - first)
	r.rows = append(r.rows, at)
	return nil
}

// addStacks interns the stacks of p and fills h.stack.
func (h *Head) addStacks(p *profile.Profile) {
	h.mapped = slices.Grow(h.mapped[:0], len(p.Stacks))[:len(p.Stacks)]
	for i, l := range p.Stacks {
		h.mapped[i] = h.remap.Locations[l]
	}
	h.stack = h.stacks.AddAll(h.mapped, p.StackEnds, h.stack)
	if n := h.stacks.Len(); n > len(h.seen) {
		h.seen = append(h.seen, make([]seenStack, n-len(h.seen))...)
	}
}

// appendSample adds one sample, to the one with the same stack if the row has it: different locations of a profile
// may be the same once interned.
func (h *Head) appendSample(r *rows, n uint32, values []int64) error {
	if err := r.count(values); err != nil {
		return err
	}
	if s := h.seen[n]; s.generation == h.generation {
		r.addTo(s.sample, values)
		return nil
	}
	h.seen[n] = seenStack{h.generation, uint32(len(r.stacks))}
	r.stacks = append(r.stacks, n)
	r.values = append(r.values, values...)
	return nil
}

// assign fills h.groups: the samples of p by series, those of one series next to each other.
func (h *Head) assign(p *profile.Profile, sent labels.Labels) {
	h.sent = h.sent[:0]
	for _, l := range sent {
		if !private(l.Name) {
			h.sent = append(h.sent, l)
		}
	}
	h.groups = h.groups[:0]
	for _, s := range p.Series {
		h.groups = append(h.groups, group{h.seriesOf(s.Labels), p.Order[s.First : s.First+s.Count]})
	}
	if len(h.groups) > 1 {
		slices.SortStableFunc(h.groups, func(a, b group) int { return cmp.Compare(a.series, b.series) })
	}
}

// private tells whether a label is a note between programs and not a property of what was profiled.
func private(name string) bool {
	return len(name) > 4 && strings.HasPrefix(name, "__") && strings.HasSuffix(name, "__")
}

// seriesOf returns the number of the series of h.sent and the labels of samples.
func (h *Head) seriesOf(ofSamples labels.Labels) uint32 {
	h.key = h.key[:0]
	merge(h.sent, ofSamples, func(l labels.Label) {
		h.key = appendKey(appendKey(h.key, l.Name), l.Value)
	})
	if id, ok := h.seriesIDs[string(h.key)]; ok {
		return id
	}
	id := uint32(len(h.series))
	set := make(labels.Labels, 0, len(h.sent)+len(ofSamples))
	merge(h.sent, ofSamples, func(l labels.Label) {
		// Copies: the strings may point into a buffer that is used again.
		set = append(set, labels.Label{Name: strings.Clone(l.Name), Value: strings.Clone(l.Value)})
	})
	h.series = append(h.series, set)
	h.seriesIDs[string(h.key)] = id
	h.rowBytes += 2*len(h.key) + 64*len(set)
	return id
}

// merge calls add for the labels of both sets in order. Those of sent win; private ones of samples are left out.
func merge(sent, ofSamples labels.Labels, add func(labels.Label)) {
	for len(sent) > 0 || len(ofSamples) > 0 {
		order := -1
		switch {
		case len(sent) == 0:
			order = 1
		case len(ofSamples) > 0:
			order = strings.Compare(sent[0].Name, ofSamples[0].Name)
		}
		if order <= 0 {
			add(sent[0])
			sent = sent[1:]
		} else if !private(ofSamples[0].Name) {
			add(ofSamples[0])
		}
		if order >= 0 {
			ofSamples = ofSamples[1:]
		}
	}
}

// rowsOf returns the columns for p's service and kind.
func (h *Head) rowsOf(p *profile.Profile, series labels.Labels) *rows {
	service, name := series.Get(labels.ServiceName), series.Get(labels.Name)
	k := appendKey(appendKey(h.key[:0], service), name)
	k = appendKey(appendKey(k, p.String(p.PeriodType.Type)), p.String(p.PeriodType.Unit))
	for _, t := range p.SampleTypes {
		k = appendKey(appendKey(k, p.String(t.Type)), p.String(t.Unit))
	}
	h.key = k
	if r, ok := h.rows[string(k)]; ok {
		return r
	}
	r := &rows{}
	if n := len(h.free); n > 0 {
		r, h.free = h.free[n-1], h.free[:n-1]
	}
	r.reset(strings.Clone(service), p.Kind(strings.Clone(name)))
	h.rows[string(k)] = r
	h.rowBytes += 2*len(k) + 256
	return r
}

func appendKey[T string | []byte](key []byte, s T) []byte {
	return append(binary.AppendUvarint(key, uint64(len(s))), s...)
}

// Bytes returns the memory that the head holds on to, used or not.
func (h *Head) Bytes() int {
	const ofSeries = 128 // a label set, and its place in the map
	return h.table.Bytes() + h.stacks.Bytes() + 8*cap(h.seen) + 4*(cap(h.mapped)+cap(h.stack)) + ofSeries*cap(h.series) + h.rowBytes + h.kept
}

// Size returns the memory that what was appended takes, about.
func (h *Head) Size() int {
	t := h.table
	return len(t.Data) + 16*len(t.Strings) + 32*len(t.Functions) + 48*len(t.Locations) + 24*len(t.Lines) +
		40*h.stacks.Len() + h.rowBytes
}

// Reset empties the head and keeps its memory.
func (h *Head) Reset() {
	h.table.Reset()
	h.stacks.Reset()
	clear(h.series) // the labels are garbage now
	h.series = h.series[:0]
	clear(h.seriesIDs)
	for _, r := range h.rows {
		h.free = append(h.free, r)
	}
	clear(h.rows)
	h.kept = h.cut.bytes()
	for _, r := range h.free {
		h.kept += r.bytes()
	}
	h.seen = h.seen[:0]
	h.rowBytes, h.generation = 0, 0
}

// overflow names the column in which values overflow.
func overflow(k profile.Kind, column int) error {
	return fmt.Errorf("%w: sum of %s (%s) of %s", ErrOverflow, k.SampleTypes[column].Type, k.SampleTypes[column].Unit, k.Name)
}
