package jfr_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/kilndb/kiln/distributor/ingest/jfr"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/pprof"
)

// second is the ticks of a clock that counts nanoseconds.
const second = 1_000_000_000

func TestEventsBecomeSamples(t *testing.T) {
	meta := metadata(standard())
	for name, c := range map[string]struct {
		data []byte
		want flat
	}{
		"two stacks, one seen twice": {
			chunk(second, meta, constants(), execution(1, 1), execution(2, 1), execution(1, 1)),
			flat{"process_cpu:cpu": {"Main.run:7": 20_000_000, "lib/Work.do:9;Main.run:8": 10_000_000}},
		},
		"constants after the events": {
			chunk(second, meta, execution(1, 1), constants()),
			flat{"process_cpu:cpu": {"Main.run:7": 10_000_000}},
		},
		"sleeping is no CPU time, an unknown state is": {
			chunk(second, meta, constants(), execution(1, 2), execution(2, 9)),
			flat{"process_cpu:cpu": {"lib/Work.do:9;Main.run:8": 10_000_000}},
		},
		"wall time, whatever the state": {
			chunk(second, meta, constants(), execution(1, 2), execution(1, 1), setting("event", "wall"), setting("interval", "10ms")),
			flat{"process_cpu:cpu": {"Main.run:7": 10_000_000}, "wall:wall": {"Main.run:7": 20_000_000}},
		},
		"a method that is missing": {
			chunk(second, meta, constants(), execution(3, 1)),
			flat{"process_cpu:cpu": {"Main.run:7": 10_000_000}},
		},
		"a stack that is missing": {
			chunk(second, meta, constants(), execution(0, 1)),
			flat{"process_cpu:cpu": {"": 10_000_000}},
		},
		"fields that nobody knows": {
			chunk(second, meta, constants(), alloc(1, 100), alloc(1, 1<<40)),
			flat{"memory:alloc_in_new_tlab_objects": {"Main.run:7": 2}, "memory:alloc_in_new_tlab_bytes": {"Main.run:7": 1<<40 + 100}},
		},
		"ticks become nanoseconds": {
			chunk(3*second, meta, constants(), park(3000, 1), park(10, 1)),
			flat{"block:contentions": {"Main.run:7": 2}, "block:delay": {"Main.run:7": 1003}},
		},
		"two chunks, each with its own numbers": {
			slices.Concat(chunk(second, meta, constants(), park(5, 1)), chunk(second, meta, checkpoint(
				pool(classSymbol, text(fields(9), "Main"), text(fields(8), "run")), pool(classClass, fields(7, 0, 9)), pool(classMethod, fields(6, 7, 8)),
				pool(classStack, append(fields(5), 0, 1, 6, 7))), park(6, 5))),
			flat{"block:contentions": {"Main.run:7": 2}, "block:delay": {"Main.run:7": 11}},
		},
		"nothing": {chunk(second, meta, constants()), flat{}},
	} {
		if got := flatten(parse(t, c.data, nil)); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestWhatIsMadeUpInNamesGoes(t *testing.T) {
	for name, want := range map[string]string{
		"java/lang/Thread":                                             "java/lang/Thread",
		"Fib$$Lambda.0x00007ffa600c4da0":                               "Fib$$Lambda_",
		"Fib$$Lambda$669.0x0000000800fd7318":                           "Fib$$Lambda_",
		"Fib$$Lambda$1/0x0000000800c00a00":                             "Fib$$Lambda_",
		"Fib$$Lambda$72+0x00007f3a2c042338/720167805":                  "Fib$$Lambda_",
		"Fib$$Lambda$x":                                                "Fib$$Lambda$x",
		"java.lang.invoke.LambdaForm$MH+0x00007ffa1c002800/1421795058": "java.lang.invoke.LambdaForm$MH_",
		"jdk/internal/reflect/GeneratedMethodAccessor31":               "jdk/internal/reflect/GeneratedMethodAccessor_",
		"a/B$$EnhancerBySpringCGLIB$$1f2a":                             "a/B$$EnhancerBySpringCGLIB$$_",
		"libzstd-jni-1.5.1-16931311898282279136.so":                    "libzstd-jni-_.so",
		"./tmp/libamazonCorrettoCryptoProvider109b39cf33c563eb.so":     "libamazonCorrettoCryptoProvider_.so",
	} {
		symbols := checkpoint(pool(classSymbol, text(fields(1), name), text(fields(2), "run")), pool(classClass, fields(1, 0, 1)),
			pool(classMethod, fields(1, 1, 2)), pool(classStack, append(fields(1), 0, 1, 1, 7)))
		got := flatten(parse(t, chunk(second, metadata(standard()), symbols, execution(1, 1)), nil))
		if got["process_cpu:cpu"][want+".run:7"] == 0 {
			t.Errorf("%s is called %v, want %s", name, got, want)
		}
	}
}

// huge is a number that no recording has so many of anything.
const huge = 1 << 31

func TestHostileRecordingsAreRefused(t *testing.T) {
	meta := metadata(standard())
	with := func(c ...testClass) []byte { return metadata(append(standard(), c...)) }
	good := chunk(second, meta, constants(), execution(1, 1))
	edit := func(at int, v uint64) []byte {
		b := bytes.Clone(good)
		binary.BigEndian.PutUint64(b[at:], v)
		return b
	}
	uncompressed := bytes.Clone(good)
	uncompressed[67] = 0
	one := func(events ...[]byte) []byte { return chunk(second, meta, append([][]byte{constants()}, events...)...) }
	for name, c := range map[string]struct {
		data []byte
		says string
	}{
		"empty":                            {nil, "empty"},
		"text":                             {[]byte("hello"), "header"},
		"header alone":                     {good[:68], "68"},
		"cut":                              {good[:len(good)-1], "that follow"},
		"garbage after it":                 {append(bytes.Clone(good), 1, 2, 3), "header"},
		"version":                          {edit(4, 0x0001000000000000), "version 1"},
		"size 0":                           {edit(8, 0), "0 bytes"},
		"size of a byte":                   {edit(8, 1), "1 bytes"},
		"size that wraps":                  {edit(8, math.MaxUint64), "bytes"},
		"metadata in the header":           {edit(24, 5), "metadata"},
		"metadata beyond":                  {edit(24, 1<<62), "metadata"},
		"metadata are an event":            {edit(24, 68), "class 1 where the metadata"},
		"integers not compressed":          {uncompressed, "not compressed"},
		"event of no bytes":                {one([]byte{0, 0, 0, 0, 0}), "an event of 0 bytes"},
		"event that is too long":           {one([]byte{0x7f, 101, 1}), "an event of 127 bytes"},
		"event that is cut":                {one(event(classExecution, fields(5))), "missing"},
		"2^31 constants":                   {one(checkpoint(append(fields(classSymbol), fields(huge)...))), "elements in"},
		"2^31 pools":                       {one(event(1, append(append(fields(1, 2, 3), 1), fields(huge)...))), "elements in"},
		"constants of an unknown class":    {one(checkpoint(pool(99, fields(1)))), "class 99"},
		"2^31 characters":                  {one(event(classSetting, append([]byte{4}, fields(huge)...))), "elements in"},
		"2^31 bytes of text":               {one(event(classSetting, append([]byte{3}, fields(huge)...))), "are missing"},
		"unknown encoding":                 {one(event(classSetting, []byte{9})), "encoding 9"},
		"2^31 frames":                      {one(checkpoint(pool(classStack, append(fields(9, 0), fields(huge)...)))), "elements in"},
		"2^31 strings in an array":         {one(event(classAlloc, append(make([]byte, 12), fields(huge)...))), "elements in"},
		"class that contains itself":       {chunk(second, with(testClass{"50", "Loop", []testField{{"l", "50", false, false}}}), checkpoint(pool(50, fields(1, 1)))), "contain each other"},
		"class of nothing, many times":     {chunk(second, with(testClass{"50", "Nil", nil}, testClass{"51", "Many", []testField{{"a", "50", false, true}}}), checkpoint(pool(51, fields(1, 3, 0, 0, 0)))), "no fields"},
		"field of a class that is missing": {chunk(second, with(testClass{"50", "Lost", []testField{{"a", "77", false, false}}}), checkpoint(pool(50, fields(1, 1)))), "class 77"},
		"class without a number":           {chunk(second, with(testClass{"", "A", nil}), constants()), `number ""`},
		"2^31 strings in the metadata":     {chunk(second, event(0, fields(1, 2, 3, huge)), constants()), "elements in"},
		"2^31 attributes":                  {chunk(second, event(0, append(text(fields(1, 2, 3, 1), "root"), fields(0, huge)...)), constants()), "elements in"},
		"2^31 children":                    {chunk(second, event(0, append(text(fields(1, 2, 3, 1), "root"), fields(0, 0, huge)...)), constants()), "elements in"},
		"elements nested without end":      {chunk(second, event(0, append(text(fields(1, 2, 3, 1), "root"), bytes.Repeat(fields(0, 0, 1), 10_000)...)), constants()), "nested"},
		"name that the metadata lack":      {chunk(second, event(0, append(text(fields(1, 2, 3, 1), "root"), fields(7, 0, 0)...)), constants()), "string 7 of 1"},
		"delays beyond an int64":           {one(park(1<<55, 1), chunk2(park(1<<55, 1), 300)), "overflows"},
		"a stack of too many frames":       {one(checkpoint(pool(classStack, append(append(fields(9, 0), fields(1<<17)...), bytes.Repeat([]byte{1, 7}, 1<<17)...))), execution(9, 1)), "frames in a stack"},
		"too many constants":               {one(checkpoint(pool(classSymbol, slices.Repeat([][]byte{{1, 0}}, 1<<20+1)...))), "constants"},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := jfr.Parse(c.data, jfr.Options{Period: 1, Limits: limits})
		runtime.ReadMemStats(&after)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: error %v, want one that says %q", name, err, c.says)
		}
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 64<<20+16*uint64(len(c.data)) {
			t.Errorf("%s: %d bytes were allocated for %d", name, grown, len(c.data))
		}
	}
}

// chunk2 is the same event n times.
func chunk2(event []byte, n int) []byte { return bytes.Repeat(event, n) }

func TestLimitsHoldForRecordings(t *testing.T) {
	var events [][]byte
	for i := range uint64(101) {
		events = append(events, execution(1000+i, 1))
	}
	var stacks [][]byte
	for i := range uint64(101) {
		stacks = append(stacks, append(fields(1000+i), 0, 1, 1, byte(i)))
	}
	meta := metadata(standard())
	data := chunk(second, meta, append([][]byte{constants(), checkpoint(pool(classStack, stacks...))}, events...)...)
	for _, c := range []struct {
		limits pprof.Limits
		says   string
	}{
		{pprof.Limits{MaxBytes: 4 << 20, MaxSamples: 100}, "samples"},
		{pprof.Limits{MaxBytes: 100, MaxSamples: 1000}, "bytes"},
	} {
		_, err := jfr.Parse(data, jfr.Options{Period: 1, Limits: c.limits})
		if e := new(pprof.LimitError); !errors.As(err, &e) || e.What != c.says {
			t.Errorf("%v: error %v, want the limit of %s", c.limits, err, c.says)
		}
	}
	if _, err := jfr.Parse(data, jfr.Options{Period: math.MaxInt64, Limits: limits}); !errors.Is(err, profile.ErrOverflow) {
		t.Errorf("error %v", err)
	}
}

// TestAStackThatManySamplesShare is small as long as it is said once.
func TestAStackThatManySamplesShare(t *testing.T) {
	classes := append(standard(), testClass{"103", "jdk.ObjectAllocationOutsideTLAB", []testField{{"stackTrace", "26", true, false}, {"spanId", "11", false, false}}})
	events := [][]byte{constants(), checkpoint(pool(classStack, append(append(fields(9, 0), fields(10_000)...), bytes.Repeat([]byte{1, 7}, 10_000)...)))}
	for i := range uint64(10_000) {
		events = append(events, event(103, fields(9, i)))
	}
	_, err := jfr.Parse(chunk(second, metadata(classes), events...), jfr.Options{Period: 1, Limits: limits})
	if e := new(pprof.LimitError); !errors.As(err, &e) || e.What != "bytes" {
		t.Errorf("error %v", err)
	}
}

func TestRecordingsMayEndAnywhere(t *testing.T) {
	data := chunk(second, metadata(standard()), constants(), execution(1, 1), alloc(1, 2), park(1, 1), setting("event", "wall"))
	for n := range len(data) {
		cut := bytes.Clone(data[:n])
		if n >= 16 {
			binary.BigEndian.PutUint64(cut[8:], uint64(n)) // a size that fits
		}
		if _, err := jfr.Parse(cut, jfr.Options{Period: 1, Limits: limits}); err != nil && !errors.Is(err, jfr.ErrMalformed) {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
}

func TestSnapshotsThatAreNone(t *testing.T) {
	for name, b := range map[string][]byte{
		"cut":                 {0x0a, 5, 1},
		"context that is cut": {0x0a, 4, 0x08, 1, 0x12, 9},
		"labels that are cut": {0x0a, 6, 0x08, 1, 0x12, 2, 0x0a, 9},
		"tag of no field":     {0},
	} {
		if _, err := jfr.ParseSnapshot(b); !errors.Is(err, jfr.ErrMalformed) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	many := bytes.Repeat([]byte{0x12, 0}, 10)
	for i := range uint64(1<<16 + 1) {
		entry := append([]byte{0x08}, binary.AppendUvarint(nil, i)...)
		many = append(append(many, 0x12, byte(len(entry))), entry...)
	}
	if _, err := jfr.ParseSnapshot(many); err == nil || !strings.Contains(err.Error(), "more than 65536") {
		t.Errorf("error %v", err)
	}
}

func FuzzParse(f *testing.F) {
	meta := metadata(standard())
	f.Add(chunk(second, meta, constants(), execution(1, 1), alloc(1, 2), park(1, 1), setting("event", "wall")), []byte{0x0a, 2, 0x08, 1})
	f.Fuzz(func(t *testing.T, data, labels []byte) {
		snapshot, err := jfr.ParseSnapshot(labels)
		if err != nil && !errors.Is(err, jfr.ErrMalformed) {
			t.Fatal(err)
		}
		r, err := jfr.Parse(data, jfr.Options{Period: 1, Labels: snapshot, Limits: limits})
		if err != nil {
			return
		}
		for _, x := range r.Profiles {
			var p profile.Profile
			p.Reset()
			x.Builder.Fill(&p)
			// What was accepted can be stored: its references are valid.
			if err := pprof.NewDecoder().Decode(pprof.Append(nil, &p), pprof.Limits{MaxBytes: 64 << 20}, new(profile.Profile)); err != nil && !strings.Contains(err.Error(), "UTF-8") {
				t.Fatal(err)
			}
		}
	})
}
