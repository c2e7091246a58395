package jfr

import (
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"math/bits"
	"slices"

	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/pprof"
)

// key is what samples must have in common to be summed.
type key struct {
	event                                                event
	stack, context, span, spanName, traceIDHi, traceIDLo uint64
}

// count adds n events to the sum of those like it.
func (c *chunk) count(e event, r *record, n uint64) {
	k := key{e, r.num[slotStackTrace], r.num[slotContextID], r.num[slotSpanID], r.num[slotSpanName], r.num[slotTraceIDHi], r.num[slotTraceIDLo]}
	sum := c.sums[k]
	sum[0] = saturate(sum[0], n)
	if w := kinds[e].weight; w == slotDuration {
		sum[1] = saturate(sum[1], c.nanoseconds(r.num[w]))
	} else if w != slotNone {
		sum[1] = saturate(sum[1], r.num[w])
	}
	c.sums[k] = sum
}

// saturate adds n to a sum; one that does not fit becomes the largest, which no later step accepts.
func saturate(sum int64, n uint64) int64 {
	if n > uint64(math.MaxInt64-sum) {
		return math.MaxInt64
	}
	return sum + int64(n)
}

// nanoseconds converts a duration in ticks.
func (c *chunk) nanoseconds(ticks uint64) uint64 {
	const second = 1_000_000_000
	if c.ticks == 0 || c.ticks == second {
		return ticks
	}
	hi, lo := bits.Mul64(ticks, second)
	if hi >= c.ticks {
		return math.MaxUint64
	}
	n, _ := bits.Div64(hi, lo, c.ticks)
	return n
}

// flush adds the sums to the profiles.
func (c *chunk) flush() error {
	keys := make([]key, 0, len(c.sums))
	for k := range c.sums {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, compareKeys)
	var frames []uint32
	var last key
	for i, k := range keys {
		b := c.builder(k.event)
		if i == 0 || k.event != last.event || k.stack != last.stack {
			var err error
			if frames, err = c.stack(b, k.stack, frames[:0]); err != nil {
				return err
			}
		}
		last = k
		sum := c.sums[k]
		values := sum[:len(kinds[k.event].types)]
		if kinds[k.event].timed {
			hi, lo := bits.Mul64(uint64(sum[0]), uint64(c.Period))
			if values[0] = int64(lo); hi != 0 || lo >= math.MaxInt64 {
				values[0] = math.MaxInt64
			}
		}
		if slices.Contains(values, math.MaxInt64) {
			return fmt.Errorf("%w: %s of a stack", profile.ErrOverflow, kinds[k.event].types[len(values)-1][0])
		}
		labels := c.labels(b, k)
		if limit := c.Limits.MaxSampleLabels; limit > 0 && len(labels) > limit {
			return &pprof.LimitError{What: "labels of a sample", Limit: limit}
		}
		if err := b.Add(frames, labels, values...); err != nil {
			return err
		}
		if err := c.Limits.Check(b.Samples(), b.Size()); err != nil {
			return err
		}
	}
	return nil
}

// compareKeys brings samples of one profile and one stack next to each other.
func compareKeys(a, b key) int {
	return cmp.Or(cmp.Compare(a.event, b.event), cmp.Compare(a.stack, b.stack), cmp.Compare(a.context, b.context), cmp.Compare(a.span, b.span),
		cmp.Compare(a.spanName, b.spanName), cmp.Compare(a.traceIDHi, b.traceIDHi), cmp.Compare(a.traceIDLo, b.traceIDLo))
}

// builder returns the builder of the profile that a kind of event becomes.
func (p *parser) builder(e event) *profile.Builder {
	if p.builders[e] == nil {
		b, k := profile.NewBuilder(), &kinds[e]
		for _, t := range k.types {
			b.AddSampleType(t[0], t[1])
		}
		period := int64(0)
		if k.timed {
			period = p.Period
		}
		b.SetPeriod(k.periodType, k.periodUnit, period)
		p.builders[e] = b
	}
	return p.builders[e]
}

// stack appends the frames of a stack, leaf first; none if the chunk does not have the stack. Frames whose method the
// chunk does not have are left out.
func (c *chunk) stack(b *profile.Builder, id uint64, frames []uint32) ([]uint32, error) {
	var r record
	if !c.constants.find(&c.constants.stacks, id, &r) || r.frame == nil {
		return frames, nil
	}
	cur := &cursor{b: c.data, i: r.frames}
	n := cur.count()
	if n > maxStack {
		return nil, &pprof.LimitError{What: "frames in a stack", Limit: maxStack}
	}
	if c.frames += n; c.frames > maxFrames {
		return nil, &pprof.LimitError{What: "frames", Limit: maxFrames}
	}
	var f record
	for range n {
		f.read(cur, r.frame)
		if function, ok := c.function(b, f.num[slotMethod]); ok {
			line := max(0, int32(uint32(f.num[slotLineNumber]))) // -1 where it is not known
			frames = append(frames, b.Location(function, int64(line)))
		}
	}
	return frames, cur.err
}

// function returns the function of a method in a profile.
func (c *chunk) function(b *profile.Builder, method uint64) (uint32, bool) {
	id := function{b, method}
	if f, ok := c.functions[id]; ok {
		return f, true
	}
	name, ok := c.constants.method(method)
	if !ok {
		return 0, false
	}
	f := b.Function(b.String(name), 0)
	c.functions[id] = f
	return f, true
}

// function is a method as a profile knows it.
type function struct {
	b      *profile.Builder
	method uint64
}

// labels returns the labels of a sample: those of its context, and the span and trace that it was taken in.
func (c *chunk) labels(b *profile.Builder, k key) []profile.SampleLabel {
	var ls []profile.SampleLabel
	add := func(name, value string) {
		if name != "" && value != "" {
			ls = append(ls, profile.SampleLabel{Key: b.String([]byte(name)), Str: b.String([]byte(value))})
		}
	}
	for _, l := range c.Labels.Labels(k.context) {
		add(l.Name, l.Value)
	}
	if k.span != 0 {
		add("span_id", hex.EncodeToString(binary.BigEndian.AppendUint64(nil, k.span)))
	}
	add("span_name", c.Labels.String(k.spanName))
	if k.traceIDHi|k.traceIDLo != 0 {
		add("trace_id", hex.EncodeToString(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, k.traceIDHi), k.traceIDLo)))
	}
	slices.SortFunc(ls, func(a, b profile.SampleLabel) int {
		return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Str, b.Str))
	})
	return ls
}
