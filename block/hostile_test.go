package block

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
)

// smallSegment and smallBlock hold a few profiles of two services.
func smallSegment(t testing.TB) []byte {
	t.Helper()
	var h head
	for i := range 6 {
		service := []string{"api", "web"}[i%2]
		d := makeProfile(service, [][2]int64{{int64(i + 1), 300}, {2, 70000}, {1, 0}}, []string{"main", "serve", "read"}, []string{"main", "@4a0"}, nil)
		h.push([]string{"acme", "other"}[i/4], d, int64(100+i), profile.ID{byte(i)}, noLabels)
	}
	return h.segment(t, "01SMALL")
}

func smallBlock(t testing.TB) []byte {
	t.Helper()
	return merge(t, "acme", 1, smallSegment(t))
}

// smallRollup is a block of level 4 with sums of all rows, which are of one series, and of hours.
func smallRollup(t testing.TB) []byte { return smallSums(t, 4, 1, 2) }

// smallSeries is a block of level 2 with sums of all rows and of each series.
func smallSeries(t testing.TB) []byte { return smallSums(t, 2, 2, 2) }

func smallSums(t testing.TB, level uint32, series, rollups int) []byte {
	t.Helper()
	var h head
	for i := range 80 {
		d := makeProfile("api", [][2]int64{{int64(i*i%37 + 1), 300 + int64(i*i%1009)}, {2, 70000 + int64(i)}, {1, 5}}, []string{"main", "serve", "read"}, []string{"main", "@4a0"}, []string{"main"})
		ls := noLabels
		if series > 1 {
			ls = labels.FromStrings("pod", fmt.Sprint(i%series))
		}
		h.push("acme", d, int64(i)*anHour/40+5, profile.ID{byte(i), byte(i * 7)}, ls)
	}
	b := merge(t, "acme", level, h.segment(t, "01SMALL"))
	if kept := open(t, b).Datasets()[0].Rows[0].Rollups(); len(kept) != rollups {
		t.Fatalf("rollups %v, want %d", kept, rollups)
	}
	return b
}

// everything reads all that an object says; any error ends it.
func everything(ctx context.Context, b []byte) (all map[string]int64, err error) {
	src := &object{b: b}
	meta, err := ReadMeta(ctx, src)
	if err != nil {
		return nil, err
	}
	r, err := Open(src, meta)
	if err != nil {
		return nil, err
	}
	all = map[string]int64{}
	all[fmt.Sprintf("object %s shard %d level %d writer %s from %d to %d", meta.Id, meta.Shard, meta.Level, meta.Strings[meta.Writer], meta.MinTime, meta.MaxTime)] = 1
	for _, d := range r.Datasets() {
		for _, rows := range d.Rows {
			if err := collect(ctx, all, d, rows); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

func collect(ctx context.Context, all map[string]int64, d *Dataset, rows *Rows) error {
	sym, err := d.Symbols(ctx)
	if err != nil {
		return err
	}
	series, err := d.Series(ctx)
	if err != nil {
		return err
	}
	stack, call, err := rows.Trees(ctx)
	if err != nil {
		return err
	}
	ps, err := rows.Profiles(ctx)
	if err != nil {
		return err
	}
	s, err := rows.Samples(ctx, ps)
	if err != nil {
		return err
	}
	head := fmt.Sprint(d.Tenant, d.Service, d.MinTime, d.MaxTime, rows.Kind.Key(), rows.ProfileCount, rows.SampleCount, rows.Sums)
	if call != nil {
		for n, name := range call.Names {
			all[fmt.Sprint(head, " call ", n, call.Parents[n], string(sym.String(name)))]++
		}
		all[fmt.Sprint(head, " of stack ", call.OfStack)]++
	}
	for c := range rows.Kind.SampleTypes {
		sums := make([]int64, len(stack.Parents))
		if err := s.Sum(c, nil, sums); err != nil {
			return err
		}
		for n, v := range sums {
			all[fmt.Sprint(head, " sum ", c, " ", stackText(sym, stack, uint32(n)))] += v
		}
		for _, m := range rows.meta.GetRollups() {
			sums := make([]int64, len(stack.Parents))
			if err := rows.sumRollup(ctx, m, c, cover{first: math.MinInt64, end: math.MaxInt64}, nil, sums); err != nil {
				return err
			}
			all[fmt.Sprint(head, " rollup ", m.GetBucket(), " sums ", c, " ", sums)]++
			if err := collectEach(ctx, all, head, rows, m, c, ps); err != nil {
				return err
			}
		}
	}
	for i := range ps.Len() {
		stacks, values, err := s.Profile(i)
		if err != nil {
			return err
		}
		x, err := s.Extras(i)
		if err != nil {
			return err
		}
		extras := ""
		for j := range stacks {
			extras += extraText(x, j)
		}
		all[fmt.Sprint(head, ps.Times[i], series[ps.Series[i]], ps.IDs[i], ps.Durations[i], ps.Periods[i], ps.Totals, stacks, values)+extras]++
	}
	return nil
}

// collectEach reads the sums of each series, if a rollup has them.
func collectEach(ctx context.Context, all map[string]int64, head string, rows *Rows, m *storagev1.Rollup, c int, ps *Profiles) error {
	stack, _, err := rows.Trees(ctx)
	if err != nil || !m.GetPerSeries() {
		return err
	}
	for _, id := range slices.Compact(slices.Sorted(slices.Values(ps.Series))) {
		sums := make([]int64, len(stack.Parents))
		if err := rows.sumRollup(ctx, m, c, cover{first: 0, end: 1}, func(series uint32) bool { return series == id }, sums); err != nil {
			return err
		}
		all[fmt.Sprint(head, " rollup of series ", id, " sums ", c, " ", sums)]++
	}
	return nil
}

// flips are what is done to a byte, in turn.
var flips = []byte{0x01, 0x80, 0xff, 0x10}

// Whatever byte of an object is flipped, a reader either notices or says exactly what was written.
func TestFlippedBytes(t *testing.T) {
	for name, whole := range map[string][]byte{
		"segment": smallSegment(t), "block": smallBlock(t), "rollup": smallRollup(t), "series": smallSeries(t),
		"spans": smallSpans(t), "span block": merge(t, "acme", 1, smallSpans(t)),
	} {
		t.Run(name, func(t *testing.T) {
			want, err := everything(t.Context(), whole)
			if err != nil {
				t.Fatal(err)
			}
			noticed := 0
			for i := range whole {
				b := bytes.Clone(whole)
				b[i] ^= flips[i%len(flips)]
				got, err := everything(t.Context(), b)
				switch {
				case err != nil:
					noticed++
					if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
						t.Errorf("byte %d: error %v", i, err)
					}
				case !maps.Equal(got, want):
					t.Fatalf("byte %d: other data without an error", i)
				}
			}
			if noticed != len(whole) {
				t.Errorf("%d of %d flips noticed", noticed, len(whole))
			}
		})
	}
}

func TestTruncatedObjects(t *testing.T) {
	whole := smallBlock(t)
	for n := range whole {
		if _, err := everything(t.Context(), whole[:n]); !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
			t.Errorf("first %d of %d bytes: error %v", n, len(whole), err)
		}
		if _, err := everything(t.Context(), whole[len(whole)-n:]); n > 0 && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
			t.Errorf("last %d of %d bytes: error %v", n, len(whole), err)
		}
	}
}

func TestUnknownVersion(t *testing.T) {
	b := smallBlock(t)
	b[len(b)-len(magic)-1] = 2
	if _, err := everything(t.Context(), b); !errors.Is(err, ErrVersion) {
		t.Errorf("error %v, want ErrVersion", err)
	}
}

// Sections whose CRC is right but whose bytes are not what kiln writes: nothing may panic or take much memory.
func TestFlippedBytesBehindTheCRC(t *testing.T) {
	for name, whole := range map[string][]byte{"segment": smallSegment(t), "block": smallBlock(t), "spans": merge(t, "acme", 1, smallSpans(t))} {
		t.Run(name, func(t *testing.T) {
			meta, err := ReadMeta(t.Context(), &object{b: whole})
			if err != nil {
				t.Fatal(err)
			}
			end := meta.Groups[len(meta.Groups)-1].Sections[len(meta.Groups[len(meta.Groups)-1].Sections)-1]
			for i := headSize; i < int(end.Offset+end.Length); i++ {
				b := bytes.Clone(whole)
				b[i] ^= flips[i%len(flips)]
				// The error, if there is one, is ErrCorrupt; some flips make other names or values.
				_, err := everything(t.Context(), resealed(t, b))
				if err != nil && (!errors.Is(err, ErrCorrupt) || strings.Contains(err.Error(), "goroutine")) {
					t.Errorf("byte %d: error %v", i, err)
				}
			}
		})
	}
}
