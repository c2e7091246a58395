package otlp

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/kilndb/kiln/distributor/otlp/otlptest"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/pprof"
	"github.com/kilndb/kiln/tenant"
)

// whole is a request in which everything that can be referred to is.
func whole() *otlptest.Request {
	r := otlptest.New()
	m := r.MappingTable().AppendEmpty()
	m.SetFilenameStrindex(r.String("/bin/a"))
	m.AttributeIndices().Append(r.Attribute("process.executable.build_id.gnu", "cafe"))
	p := r.Profile(r.Resource("service.name", "a"), at, "samples:count", "cpu:nanoseconds", 10)
	s := r.Sample(p, "main", 1)
	s.AttributeIndices().Append(r.Attribute("thread.name", "worker"))
	s.SetLinkIndex(r.Link([16]byte{1}, [8]byte{2}))
	s.TimestampsUnixNano().Append(5)
	r.LocationTable().At(1).SetMappingIndex(1)
	return r
}

// TestEveryIndexIsChecked puts each bad index into each place of a request between two good profiles.
func TestEveryIndexIsChecked(t *testing.T) {
	last := func(r *otlptest.Request) otlpProfile {
		return r.ResourceProfiles().At(0).ScopeProfiles().At(0).Profiles().At(0)
	}
	places := map[string]func(r *otlptest.Request, i int32){
		"string of a sample type":     func(r *otlptest.Request, i int32) { last(r).SampleType().SetTypeStrindex(i) },
		"string of its unit":          func(r *otlptest.Request, i int32) { last(r).SampleType().SetUnitStrindex(i) },
		"string of a period type":     func(r *otlptest.Request, i int32) { last(r).PeriodType().SetTypeStrindex(i) },
		"stack of a sample":           func(r *otlptest.Request, i int32) { last(r).Samples().At(0).SetStackIndex(i) },
		"link of a sample":            func(r *otlptest.Request, i int32) { last(r).Samples().At(0).SetLinkIndex(i) },
		"attribute of a sample":       func(r *otlptest.Request, i int32) { last(r).Samples().At(0).AttributeIndices().Append(i) },
		"location of a stack":         func(r *otlptest.Request, i int32) { r.StackTable().At(1).LocationIndices().Append(i) },
		"mapping of a location":       func(r *otlptest.Request, i int32) { r.LocationTable().At(1).SetMappingIndex(i) },
		"function of a line":          func(r *otlptest.Request, i int32) { r.LocationTable().At(1).Lines().At(0).SetFunctionIndex(i) },
		"string of a function":        func(r *otlptest.Request, i int32) { r.FunctionTable().At(1).SetNameStrindex(i) },
		"string of its system name":   func(r *otlptest.Request, i int32) { r.FunctionTable().At(1).SetSystemNameStrindex(i) },
		"string of its file":          func(r *otlptest.Request, i int32) { r.FunctionTable().At(1).SetFilenameStrindex(i) },
		"string of a mapping":         func(r *otlptest.Request, i int32) { r.MappingTable().At(1).SetFilenameStrindex(i) },
		"attribute of a mapping":      func(r *otlptest.Request, i int32) { r.MappingTable().At(1).AttributeIndices().Append(i) },
		"string of an attribute":      func(r *otlptest.Request, i int32) { r.AttributeTable().At(2).SetKeyStrindex(i) },
		"string of a build id's name": func(r *otlptest.Request, i int32) { r.AttributeTable().At(1).SetKeyStrindex(i) },
	}
	for name, put := range places {
		for _, index := range []int32{-1, math.MinInt32, math.MaxInt32, 100} {
			for _, services := range []bool{false, true} {
				r := whole()
				if services { // another way through the samples
					r.Attribute("service.name", "other")
				}
				put(r, index)
				x := newExporter(&keeper{})
				body := r.Proto()
				_, err := x.export(t.Context(), "acme", body, len(body), false)
				if connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), "is outside of a table of") ||
					!strings.Contains(err.Error(), strings.Fields(name)[0]) {
					t.Errorf("%s is %d: %v", name, index, err)
				}
			}
		}
	}
}

// Tables may be missing altogether: then index 0 stands for nothing, and any other for an error.
func TestWithoutTables(t *testing.T) {
	r := otlptest.New()
	p := r.Resource("service.name", "a").Profiles().AppendEmpty()
	s := p.Samples().AppendEmpty()
	s.Values().Append(1)
	s.AttributeIndices().Append(0)
	empty := otlptest.New()
	r.Dictionary().MoveTo(empty.Dictionary()) // whose tables are thrown away
	if got := send(t, r)[0]; got.text != ": period : 0 duration 0\n1\n" {
		t.Errorf("stored %q", got.text)
	}
	s.SetStackIndex(1)
	body := r.Proto()
	if _, err := newExporter(&keeper{}).export(t.Context(), "acme", body, len(body), false); err == nil || !strings.Contains(err.Error(), "stack 1") {
		t.Errorf("stack 1 of none: %v", err)
	}
}

// refusedFor sends a request of one profile, which must be refused.
func refusedFor(t *testing.T, r *otlptest.Request, edit ...func(*tenant.Limits)) error {
	t.Helper()
	body := r.Proto()
	k := &keeper{}
	_, err := newExporter(k, edit...).export(t.Context(), "acme", body, len(body), false)
	if connect.CodeOf(err) != connect.CodeInvalidArgument || len(k.profiles) > 0 {
		t.Errorf("%v, %d stored", err, len(k.profiles))
	}
	return err
}

func TestValuesAreChecked(t *testing.T) {
	for says, change := range map[string]func(p otlpProfile){
		"times the period 10 overflows": func(p otlpProfile) { p.Samples().At(0).Values().FromRaw([]int64{math.MaxInt64/10 + 1}) },
		"the sum of its 2 values overflows": func(p otlpProfile) {
			p.Samples().At(0).Values().FromRaw([]int64{math.MaxInt64, 1})
		},
		"the sum of its 3 values overflows": func(p otlpProfile) {
			p.Samples().At(0).Values().FromRaw([]int64{-1, math.MinInt64, 1})
		},
		"timestamp 9223372036854775808 exceeds":     func(p otlpProfile) { p.Samples().At(0).TimestampsUnixNano().Append(1 << 63) },
		"time_unix_nano 9223372036854775808":        func(p otlpProfile) { p.SetTime(1 << 63) },
		"duration_nano 18446744073709551615 exceed": func(p otlpProfile) { p.SetDurationNano(math.MaxUint64) },
	} {
		r := whole()
		change(r.ResourceProfiles().At(0).ScopeProfiles().At(0).Profiles().At(0))
		if err := refusedFor(t, r); err == nil || !strings.Contains(err.Error(), says) || !errors.Is(err, pprof.ErrMalformed) && !strings.Contains(err.Error(), "malformed") {
			t.Errorf("%v, want %q", err, says)
		}
	}
}

func TestLimits(t *testing.T) {
	many := otlptest.New()
	p := many.Profile(many.Resource("service.name", "a"), at, "samples:count", "cpu:nanoseconds", 1)
	for range 4 {
		many.Sample(p, "f", 1).AttributeIndices().Append(0, 0, 0)
	}
	for says, edit := range map[string]func(*tenant.Limits){
		"more than 3 samples":             func(l *tenant.Limits) { l.MaxSamples = 3 },
		"more than 2 labels of a sample":  func(l *tenant.Limits) { l.MaxSampleLabels = 2 },
		"more than 20 bytes":              func(l *tenant.Limits) { l.MaxProfileBytes = 20 },
		"would take more than 1000 bytes": func(l *tenant.Limits) { l.MaxRequestBytes = 1000 },
		"too many labels":                 func(l *tenant.Limits) { l.MaxLabels = 0 },
		"more than the limit of 0":        func(l *tenant.Limits) { l.MaxSeriesPerRequest = 0 },
	} {
		if err := refusedFor(t, many, edit); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
	}
	bad := otlptest.New()
	bad.Sample(bad.Profile(bad.Resource("service.name", "a"), at, "samples:count", "cpu:nanoseconds", 1), "f\xff", 1)
	if err := refusedFor(t, bad); err == nil || !strings.Contains(err.Error(), "not UTF-8") {
		t.Errorf("%v", err)
	}
	bad = otlptest.New()
	bad.Sample(bad.Profile(bad.Resource("service.name", "a"), at, strings.Repeat("x", 1025)+":count", "", 1), "f", 1)
	if err := refusedFor(t, bad); err == nil || !strings.Contains(err.Error(), "1025 bytes") {
		t.Errorf("%v", err)
	}
}

// A long stack that many samples name, and a service for each sample.
func TestShortRequestsThatGrow(t *testing.T) {
	r := otlptest.New()
	stack := r.StackTable().AppendEmpty()
	location := r.Location("f")
	stack.LocationIndices().FromRaw(slices.Repeat([]int32{location}, 500_000))
	p := r.Profile(r.Resource("service.name", "a"), at, "samples:count", "cpu:nanoseconds", 1)
	for range 10_000 {
		s := p.Samples().AppendEmpty()
		s.SetStackIndex(1)
		s.Values().Append(1)
	}
	e, err := decodeExport(r.Proto(), false)
	if err != nil {
		t.Fatal(err)
	}
	uploads, _ := newExporter(&keeper{}).split(e, &identities{}, tenant.DefaultLimits())
	filled := &profile.Profile{}
	filled.Reset()
	if err := uploads[0].Fill(filled); !errors.Is(err, pprof.ErrTooLarge) || filled.Bytes() > 32<<20 { // it would be 5 G locations
		t.Errorf("%v, %d bytes", err, filled.Bytes())
	}

	r = otlptest.New()
	p = r.Profile(r.Resource(), at, "samples:count", "cpu:nanoseconds", 1)
	for i := range 5000 {
		r.Sample(p, "f", 1).AttributeIndices().Append(r.Attribute("service.name", strings.Repeat("x", i%100)+string(rune('a'+i/100%26))+string(rune('a'+i/2600))))
	}
	if err := refusedFor(t, r); err == nil || !strings.Contains(err.Error(), "more than the limit of 1000") {
		t.Errorf("%v", err)
	}
}
