package jfr_test

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	jfrparser "github.com/grafana/jfr-parser/pprof"

	"github.com/kilndb/kiln/distributor/ingest/jfr"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/pprof"
)

var limits = pprof.Limits{MaxBytes: 4 << 20, MaxSamples: 16_000, MaxSampleLabels: 100}

// gunzip returns what a file of testdata holds, nil if there is none.
func gunzip(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	zr, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(zr)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// flat are the values of a profile's sample types by name, and in them those of stacks with their labels.
type flat map[string]map[string]int64

func (f flat) add(name, stack string, v int64) {
	if f[name] == nil {
		f[name] = map[string]int64{}
	}
	f[name][stack] += v
}

// flatten flattens a recording. Stacks are written leaf first, Class.method:line; labels follow, sorted.
func flatten(r *jfr.Recording) flat {
	f := flat{}
	for _, x := range r.Profiles {
		var p profile.Profile
		p.Reset()
		x.Builder.Fill(&p)
		for i := range p.Samples() {
			var frames, ls []string
			for _, l := range p.Stack(i) {
				line := p.LinesOf(l)[0]
				frames = append(frames, fmt.Sprintf("%s:%d", p.String(p.Functions[line.Function].Name), line.Line))
			}
			for _, l := range p.LabelsOf(i) {
				ls = append(ls, label(string(p.String(l.Key)), string(p.String(l.Str))))
			}
			slices.Sort(ls)
			stack := strings.Join(append([]string{strings.Join(frames, ";")}, ls...), " ")
			for j, name := range x.Types {
				f.add(x.Kind+":"+name, stack, p.Row(i)[j])
			}
		}
	}
	return f
}

// label writes a label. profile_id is what a span was called once.
func label(name, value string) string {
	if name == "profile_id" {
		name = "span_id"
	}
	return name + "=" + value
}

func parse(t testing.TB, data, snapshot []byte) *jfr.Recording {
	t.Helper()
	labels, err := jfr.ParseSnapshot(snapshot)
	if err != nil {
		t.Fatal(err)
	}
	r, err := jfr.Parse(data, jfr.Options{Period: 10_000_000, Labels: labels, Limits: limits})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestARecordingOfTheJVMSaysWhatTheJDKReads(t *testing.T) {
	got := flatten(parse(t, gunzip(t, "busy.jfr.gz"), nil))
	types := map[string][2]string{
		"jdk.ExecutionSample":             {"process_cpu:cpu"},
		"jdk.ObjectAllocationInNewTLAB":   {"memory:alloc_in_new_tlab_objects", "memory:alloc_in_new_tlab_bytes"},
		"jdk.ObjectAllocationOutsideTLAB": {"memory:alloc_outside_tlab_objects", "memory:alloc_outside_tlab_bytes"},
		"jdk.ObjectAllocationSample":      {"memory:alloc_sample_objects", "memory:alloc_sample_bytes"},
		"jdk.JavaMonitorEnter":            {"mutex:contentions", "mutex:delay"},
		"jdk.ThreadPark":                  {"block:contentions", "block:delay"},
	}
	text, err := os.ReadFile("testdata/busy.txt")
	if err != nil {
		t.Fatal(err)
	}
	want := flat{}
	for line := range strings.Lines(string(text)) {
		columns := strings.Split(strings.TrimSpace(line), "\t")
		count, _ := strconv.ParseInt(columns[2], 10, 64)
		weight, _ := strconv.ParseInt(columns[3], 10, 64)
		names := types[columns[0]]
		if names[1] == "" {
			want.add(names[0], columns[1], count*10_000_000)
			continue
		}
		want.add(names[0], columns[1], count)
		want.add(names[1], columns[1], weight)
	}
	if len(want) != 11 {
		t.Fatalf("the JDK finds %d types", len(want))
	}
	for name := range want {
		if !maps.Equal(got[name], want[name]) {
			t.Errorf("%s: %v, want %v", name, got[name], want[name])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d types, want %d", len(got), len(want))
	}
}

// oracle reads a recording with the parser of Grafana Labs and irons out where ours means to differ: lines that are not
// known are 0, delays are nanoseconds and not ticks, ids are called what they are.
func oracle(t *testing.T, data, snapshot []byte) flat {
	t.Helper()
	var labels jfrparser.LabelsSnapshot
	if err := labels.UnmarshalVT(snapshot); err != nil {
		t.Fatal(err)
	}
	all, err := jfrparser.ParseJFR(data, &jfrparser.ParseInput{StartTime: time.Unix(1, 0), EndTime: time.Unix(2, 0), SampleRate: 100}, &labels)
	if err != nil {
		t.Fatal(err)
	}
	f := flat{}
	for _, p := range all.Profiles {
		str := p.Profile.StringTable
		locations := map[uint64]string{}
		for _, l := range p.Profile.Location {
			line := l.Line[0]
			if line.Line > math.MaxInt32 {
				line.Line = 0
			}
			locations[l.Id] = fmt.Sprintf("%s:%d", str[p.Profile.Function[line.FunctionId-1].Name], line.Line)
		}
		for _, s := range p.Profile.Sample {
			var frames, ls []string
			for _, l := range s.LocationId {
				frames = append(frames, locations[l])
			}
			for _, l := range s.Label {
				ls = append(ls, label(str[l.Key], str[l.Str]))
			}
			slices.Sort(ls)
			stack := strings.Join(append([]string{strings.Join(frames, ";")}, ls...), " ")
			for j, st := range p.Profile.SampleType {
				f.add(p.Metric+":"+str[st.Type], stack, s.Value[j])
			}
		}
	}
	return f
}

func TestRecordingsOfAsyncProfilerSayWhatAnotherParserReads(t *testing.T) {
	for name, wantTypes := range map[string]int{
		"nativemem": 2, "wall_tick_sample": 2, "new_spancontext": 1, "traceid": 1, "dump2": 5, "example": 7,
	} {
		t.Run(name, func(t *testing.T) {
			data, snapshot := gunzip(t, name+".jfr.gz"), gunzip(t, name+".labels.gz")
			r := parse(t, data, snapshot)
			got, want := flatten(r), oracle(t, data, snapshot)
			ticks := binary.BigEndian.Uint64(data[56:])
			for typ, stacks := range want {
				contentions := got[strings.TrimSuffix(typ, "delay")+"contentions"]
				for stack, v := range stacks {
					g, off := got[typ][stack], int64(0)
					if strings.HasSuffix(typ, ":delay") {
						v, off = int64(float64(v)/float64(ticks)*1e9), contentions[stack] // each event rounds down
					}
					if g > v+1 || g < v-off-1 {
						t.Errorf("%s %s: %d, want %d", typ, stack, g, v)
					}
				}
				if len(got[typ]) != len(stacks) {
					t.Errorf("%s has %d stacks, want %d", typ, len(got[typ]), len(stacks))
				}
			}
			if len(got) != wantTypes || len(want) != wantTypes {
				t.Errorf("%d types, the other parser has %d, want %d", len(got), len(want), wantTypes)
			}
		})
	}
}
