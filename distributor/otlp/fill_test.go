package otlp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/kilndb/kiln/distributor/otlp/otlptest"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/pprof"
	"github.com/kilndb/kiln/tenant"
)

var at = time.Unix(1_770_000_000, 123)

// keeper is a Store that fills every profile and keeps what it says.
type keeper struct {
	profiles  []stored
	discarded []error
	full      bool         // there is no room for anything
	turns     atomic.Int64 // that are not done
	held      atomic.Int64 // bytes
	most      int64        // that were held
	left      int64        // held when all profiles were filled
	// answer replaces the result of a profile that was filled.
	answer func(Upload) error
}

// stored is a profile as text.
type stored struct {
	labels string
	id     profile.ID
	time   int64
	text   string
}

func (k *keeper) Store(_ context.Context, _ tenant.ID, _ int, uploads []Upload) []error {
	results := make([]error, len(uploads))
	p := &profile.Profile{}
	for i, u := range uploads {
		if n := k.turns.Load(); n != 0 {
			panic("there are turns that are not done")
		}
		p.Reset()
		if results[i] = u.Fill(p); results[i] != nil {
			continue
		}
		if k.answer != nil {
			results[i] = k.answer(u)
		}
		k.profiles = append(k.profiles, stored{u.Labels.String(), u.ID, p.TimeNanos, describe(p)})
	}
	k.left = k.held.Load()
	return results
}

func (k *keeper) Turn(ctx context.Context, _ tenant.ID) (func(), error) {
	if ctx.Err() != nil {
		return nil, connect.NewError(connect.CodeUnavailable, ctx.Err())
	}
	k.turns.Add(1)
	return func() { k.turns.Add(-1) }, nil
}

func (k *keeper) Hold(_ tenant.ID, bytes int) (func(), error) {
	if k.full {
		return nil, connect.NewError(connect.CodeResourceExhausted, errors.New("full"))
	}
	k.most = max(k.most, k.held.Add(int64(bytes)))
	return func() { k.held.Add(int64(-bytes)) }, nil
}

func (k *keeper) Check(ls labels.Labels, lim tenant.Limits) error {
	if len(ls) > lim.MaxLabels {
		return errors.New("too many labels")
	}
	return nil
}

func (k *keeper) Discard(err error, _ int) { k.discarded = append(k.discarded, err) }

// describe tells everything of a profile.
func describe(p *profile.Profile) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%s period %s:%s %d duration %d\n", p.String(p.SampleTypes[0].Type), p.String(p.SampleTypes[0].Unit),
		p.String(p.PeriodType.Type), p.String(p.PeriodType.Unit), p.Period, p.DurationNanos)
	times := uint32(0)
	for i := range p.Samples() {
		for _, l := range slices.Backward(p.Stack(i)) {
			from := p.Locations[l]
			for _, line := range slices.Backward(p.LinesOf(l)) {
				f := p.Functions[line.Function]
				fmt.Fprintf(&b, "%s(%s %s:%d:%d) ", p.String(f.Name), p.String(f.SystemName), p.String(f.File), line.Line, line.Column)
			}
			if from.Mapping != 0 {
				m := p.Mappings[from.Mapping]
				fmt.Fprintf(&b, "[0x%x %s %s %x-%x+%x %t] ", from.Address, p.String(m.File), p.String(m.BuildID), m.Start, m.Limit, m.Offset, m.HasFunctions)
			}
		}
		fmt.Fprint(&b, p.Row(i)[0])
		for _, l := range p.LabelsOf(i) {
			fmt.Fprintf(&b, " %s=%s", p.String(l.Key), p.String(l.Str))
		}
		if len(p.Spans) > 0 {
			fmt.Fprintf(&b, " span %x", p.Spans[i][:])
		}
		if len(p.Traces) > 0 {
			fmt.Fprintf(&b, " trace %x", p.Traces[i][:])
		}
		if len(p.TimeEnds) > 0 {
			fmt.Fprintf(&b, " at %d", p.Times[times:p.TimeEnds[i]])
			times = p.TimeEnds[i]
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func newExporter(k *keeper, edit ...func(*tenant.Limits)) *exporter {
	lim := tenant.DefaultLimits()
	for _, e := range edit {
		e(&lim)
	}
	h := NewHandler(k, func(tenant.ID) tenant.Limits { return lim }, slog.New(slog.DiscardHandler))
	return &h.exporter
}

// send sends a request and returns what was stored.
func send(t testing.TB, r *otlptest.Request) []stored {
	t.Helper()
	k := &keeper{}
	body := r.Proto()
	reply, err := newExporter(k).export(t.Context(), "acme", body, len(body), false)
	if err != nil || len(reply) != 0 {
		t.Fatalf("reply %q, %v", reply, err)
	}
	return k.profiles
}

func want(t *testing.T, got stored, labels string, lines ...string) {
	t.Helper()
	if got.labels != labels {
		t.Errorf("labels %s, want %s", got.labels, labels)
	}
	if text := strings.Join(lines, "\n") + "\n"; got.text != text {
		t.Errorf("stored\n%s\nwant\n%s", got.text, text)
	}
}

const notes = `__delta__="false", __name__="%s", __otel__="true", `

func TestCountedSamplesBecomeTime(t *testing.T) {
	r := otlptest.New()
	scope := r.Resource("service.name", "checkout")
	p := r.Profile(scope, at, "samples:count", "cpu:nanoseconds", 10)
	p.SetDurationNano(5e9)
	r.Sample(p, "main;work", 3)
	r.Sample(p, "main;work", 1, 2, 4)
	r.Sample(p, "main").TimestampsUnixNano().FromRaw([]uint64{7, 5, 6})
	r.Sample(p, "main", 20, 30).TimestampsUnixNano().FromRaw([]uint64{8, 9})
	got := send(t, r)
	want(t, got[0], fmt.Sprintf(`{`+notes+`service_name="checkout"}`, "process_cpu"),
		"cpu:nanoseconds period cpu:nanoseconds 10 duration 5000000000",
		"main( :1:0) work( :1:0) 30 at []",
		"main( :1:0) work( :1:0) 70 at []",
		"main( :1:0) 30 at [7 5 6]",
		"main( :1:0) 500 at [8 9]")
	if got[0].time != at.UnixNano() {
		t.Errorf("time %d", got[0].time)
	}
}

func TestKinds(t *testing.T) {
	for _, c := range []struct {
		sample, period string
		every          int64
		name, stored   string
		value          int64
	}{
		{"samples:count", "cpu:nanoseconds", 10, "process_cpu", "cpu:nanoseconds period cpu:nanoseconds 10", 30},
		{"samples:count", "cpu:nanoseconds", 0, "process_cpu", "samples:count period cpu:nanoseconds 0", 3},
		{"cpu:nanoseconds", "cpu:nanoseconds", 10, "cpu", "cpu:nanoseconds period cpu:nanoseconds 10", 3},
		{"off_cpu:nanoseconds", "", 0, "off_cpu", "off_cpu:nanoseconds period : 0", 3},
		{"off_cpu:nanoseconds", "cpu:nanoseconds", 10, "off_cpu", "off_cpu:nanoseconds period cpu:nanoseconds 10", 3},
		{"allocated:bytes", "space:bytes", 512, "space", "allocated:bytes period space:bytes 512", 3},
		{"allocated:bytes", "", 0, "process_cpu", "allocated:bytes period : 0", 3},
	} {
		r := otlptest.New()
		p := r.Profile(r.Resource("service.name", "a"), at, c.sample, c.period, c.every)
		r.Sample(p, "f", 3)
		want(t, send(t, r)[0], fmt.Sprintf(`{`+notes+`service_name="a"}`, c.name), c.stored+" duration 0", fmt.Sprintf("f( :1:0) %d", c.value))
	}
}

func TestAttributesBecomeLabels(t *testing.T) {
	r := otlptest.New()
	scope := r.Resource("service.name", "checkout", "k8s.pod.name", "p-1", "process.pid", 42, "on", true, "one", []any{"x"},
		"two", []any{"x", "y"}, "deep", []any{[]any{"x"}}, "map", map[string]any{"a": "b"}, "float", 1.5, "empty", "",
		"__name__", "forged", "__delta__", "true", "service_name", "forged")
	otlptest.Put(scope.Scope().Attributes(), "k8s.pod.name", "p-2", "region", "eu")
	p := r.Profile(scope, at, "samples:count", "cpu:nanoseconds", 1)
	s := r.Sample(p, "f", 1)
	s.AttributeIndices().Append(0, r.Attribute("thread.name", "worker"), r.Attribute("thread.id", 7), r.Attribute("idle", false),
		r.Attribute("", "no key"), r.Attribute("no value", ""), r.Attribute("process.executable.name", "bin"))
	r.Sample(p, "g", 2).AttributeIndices().Append(1)
	want(t, send(t, r)[0], fmt.Sprintf(`{`+notes+`"k8s.pod.name"="p-1", on="true", one="x", "process.pid"="42", region="eu", service_name="checkout"}`, "process_cpu"),
		"cpu:nanoseconds period cpu:nanoseconds 1 duration 0",
		"f( :1:0) 1 thread.name=worker idle=false process.executable.name=bin",
		"g( :1:0) 2 thread.name=worker")
}

func TestServices(t *testing.T) {
	r := otlptest.New()
	other, named := r.Attribute("service.name", "other"), r.Attribute("service.name", "named")
	for _, scope := range []struct{ attributes []any }{{[]any{"service.name", "named"}}, {[]any{"process.executable.name", "bin"}}, {nil}} {
		p := r.Profile(r.Resource(scope.attributes...), at, "samples:count", "cpu:nanoseconds", 1)
		r.Sample(p, "f", 1)
		r.Sample(p, "f", 2).AttributeIndices().Append(other)
		r.Sample(p, "f", 4).AttributeIndices().Append(named)
		r.Sample(p, "f", 8)
	}
	var got []string
	ids := map[profile.ID]bool{}
	for _, s := range send(t, r) {
		var values []string
		for line := range strings.Lines(s.text) {
			if value, ok := strings.CutPrefix(strings.TrimSpace(line), "f( :1:0) "); ok {
				values = append(values, value)
			}
		}
		service := s.labels[strings.Index(s.labels, "service_name"):]
		got = append(got, service+" "+strings.Join(values, "+"))
		ids[s.id] = true
	}
	wanted := []string{
		`service_name="named"} 1+4+8`, `service_name="other"} 2`,
		`service_name="unknown_service:bin"} 1+8`, `service_name="other"} 2`, `service_name="named"} 4`,
		`service_name="unknown_service"} 1+8`, `service_name="other"} 2`, `service_name="named"} 4`,
	}
	slices.Sort(got)
	slices.Sort(wanted)
	if !slices.Equal(got, wanted) {
		t.Errorf("stored %q, want %q", got, wanted)
	}
	if len(ids) != 3 { // one of each profile that was sent: the services tell its parts apart
		t.Errorf("%d ids", len(ids))
	}
}

// Two profiles get of a shared dictionary what they refer to, and nothing twice.
func TestSymbols(t *testing.T) {
	r := otlptest.New()
	m := r.MappingTable().AppendEmpty()
	m.SetMemoryStart(0x1000)
	m.SetMemoryLimit(0x2000)
	m.SetFileOffset(0x10)
	m.SetFilenameStrindex(r.String("/bin/a"))
	m.AttributeIndices().Append(r.Attribute("other", "x"), r.Attribute("process.executable.build_id.gnu", "cafe"))
	f := r.FunctionTable().AppendEmpty() // no name, but a system name
	f.SetSystemNameStrindex(r.String("_Zf"))
	f.SetFilenameStrindex(r.String("f.c"))
	f.SetStartLine(3)
	inlined := r.LocationTable().AppendEmpty()
	inlined.SetMappingIndex(1)
	inlined.SetAddress(0x1234)
	for i, function := range []int32{1, 1} {
		l := inlined.Lines().AppendEmpty()
		l.SetFunctionIndex(function)
		l.SetLine(int64(10 + i))
		l.SetColumn(5)
	}
	bare := r.LocationTable().AppendEmpty()
	bare.SetMappingIndex(1)
	bare.SetAddress(0x1500)
	stack := r.StackTable().AppendEmpty()
	stack.LocationIndices().Append(2, 0, 1)
	scope := r.Resource("service.name", "a")
	for range 2 {
		p := r.Profile(scope, at, "samples:count", "cpu:nanoseconds", 1)
		for range 2 {
			s := p.Samples().AppendEmpty()
			s.SetStackIndex(1)
			s.Values().Append(1)
		}
		r.Sample(p, "", 1).SetStackIndex(0)
	}
	r.Stack("never;used")
	line := "_Zf(_Zf f.c:11:5) _Zf(_Zf f.c:10:5) [0x1234 /bin/a cafe 1000-2000+10 true] [0x1500 /bin/a cafe 1000-2000+10 true] 1"
	for _, s := range send(t, r) {
		want(t, s, fmt.Sprintf(`{`+notes+`service_name="a"}`, "process_cpu"), "cpu:nanoseconds period cpu:nanoseconds 1 duration 0", line, line, "1")
	}

	e, err := decodeExport(r.Proto(), false)
	if err != nil {
		t.Fatal(err)
	}
	p := &profile.Profile{}
	p.Reset()
	x := newExporter(&keeper{})
	uploads, _ := x.split(e, &identities{}, tenant.DefaultLimits())
	if err := uploads[0].Fill(p); err != nil {
		t.Fatal(err)
	}
	if len(p.Locations) != 2 || len(p.Functions) != 2 || len(p.Mappings) != 2 || strings.Contains(string(p.Data), "never") {
		t.Errorf("%d locations, %d functions, %d mappings, names %q", len(p.Locations), len(p.Functions), len(p.Mappings), p.Data)
	}
}

func TestLinks(t *testing.T) {
	r := otlptest.New()
	p := r.Profile(r.Resource("service.name", "a"), at, "samples:count", "cpu:nanoseconds", 1)
	r.Sample(p, "f", 1)
	r.Sample(p, "f", 2).SetLinkIndex(r.Link([16]byte{1, 2}, [8]byte{3, 4}))
	want(t, send(t, r)[0], fmt.Sprintf(`{`+notes+`service_name="a"}`, "process_cpu"), "cpu:nanoseconds period cpu:nanoseconds 1 duration 0",
		"f( :1:0) 1 span 0000000000000000 trace 00000000000000000000000000000000",
		"f( :1:0) 2 span 0304000000000000 trace 01020000000000000000000000000000")
	r.Profiles.ResourceProfiles().At(0).ScopeProfiles().At(0).Profiles().At(0).Samples().At(1).SetLinkIndex(0)
	if got := send(t, r)[0]; strings.Contains(got.text, "span") || strings.Contains(got.text, "trace") {
		t.Errorf("columns of nothing: %s", got.text)
	}
}

func TestTimeOfAProfileThatDoesNotSay(t *testing.T) {
	r := otlptest.New()
	p := r.Profile(r.Resource("service.name", "a"), time.Time{}, "samples:count", "cpu:nanoseconds", 1)
	r.Sample(p, "f").TimestampsUnixNano().FromRaw([]uint64{7, 5})
	r.Sample(p, "f", 1)
	if got := send(t, r)[0]; got.time != 5 {
		t.Errorf("time %d, want that of its first moment", got.time)
	}
}

func TestIdentity(t *testing.T) {
	build := func(given profile.ID) *otlptest.Request {
		r := otlptest.New()
		scope := r.Resource("service.name", "a")
		for i := range int64(3) {
			p := r.Profile(scope, at, "samples:count", "cpu:nanoseconds", 1)
			p.SetProfileID([16]byte(given))
			r.Sample(p, "f", i+1)
		}
		p := r.Profile(scope, at, "off_cpu:nanoseconds", "", 0)
		p.SetProfileID([16]byte(given))
		r.Sample(p, "f", 1)
		return r
	}
	for _, given := range []profile.ID{{}, {1, 2, 3}} {
		first, again := send(t, build(given)), send(t, build(given))
		seen := map[profile.ID]int{}
		for i, s := range first {
			if s != again[i] {
				t.Errorf("sent again it is %v, was %v", again[i], s)
			}
			if s.id == (profile.ID{}) {
				t.Error("no id")
			}
			seen[s.id]++
		}
		// What was given is kept where it tells profiles apart.
		if given != (profile.ID{}) && (seen[given] != 2 || first[3].id != given) {
			t.Errorf("ids %v", seen)
		}
		if len(seen) < 3 {
			t.Errorf("equal series share ids: %v", seen)
		}
	}
	r := build(profile.ID{})
	r.Sample(r.ResourceProfiles().At(0).ScopeProfiles().At(0).Profiles().At(3), "g", 1)
	if other := send(t, r); other[0].id == send(t, build(profile.ID{}))[0].id {
		t.Error("another request has the same ids")
	}
}

func TestJSONAndProtobufSayTheSame(t *testing.T) {
	r := otlptest.New()
	scope := r.Resource("service.name", "checkout", "pid", 42)
	p := r.Profile(scope, at, "samples:count", "cpu:nanoseconds", 10)
	p.SetProfileID([16]byte{9})
	s := r.Sample(p, "main;work", 3, math.MaxInt64/100)
	s.AttributeIndices().Append(r.Attribute("thread.name", "worker"))
	s.SetLinkIndex(r.Link([16]byte{1}, [8]byte{2}))
	s.TimestampsUnixNano().FromRaw([]uint64{7, 8})
	k := &keeper{}
	x := newExporter(k)
	for isJSON, body := range map[bool][]byte{false: r.Proto(), true: r.JSON()} {
		if _, err := x.export(t.Context(), "acme", body, len(body), isJSON); err != nil {
			t.Fatal(err)
		}
	}
	if k.profiles[0] != k.profiles[1] {
		t.Errorf("%v and %v", k.profiles[0], k.profiles[1])
	}
}

// A profile that was filled is what pprof says it is: encoded and decoded again it is the same.
func TestWhatIsFilledCanBeEncoded(t *testing.T) {
	e, err := decodeExport(ebpf(300).Proto(), false)
	if err != nil {
		t.Fatal(err)
	}
	uploads, _ := newExporter(&keeper{}).split(e, &identities{}, tenant.DefaultLimits())
	p, back := &profile.Profile{}, &profile.Profile{}
	p.Reset()
	if err := uploads[0].Fill(p); err != nil {
		t.Fatal(err)
	}
	body := pprof.Append(nil, p)
	if err := pprof.NewDecoder().Decode(body, pprof.Limits{MaxBytes: 1 << 20}, back); err != nil {
		t.Fatal(err)
	}
	p.Times, p.TimeEnds, p.Spans, p.Traces = nil, nil, nil, nil // pprof has no place for them
	if describe(p) != describe(back) {
		t.Errorf("got\n%s\nwant\n%s", describe(back), describe(p))
	}
	if size := p.Size(); size < len(body)/2 || size > 2*len(body) {
		t.Errorf("size %d of a profile that takes %d bytes", size, len(body))
	}
}
