package distributor_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pprofile"
	"go.opentelemetry.io/collector/pdata/pprofile/pprofileotlp"

	"github.com/kilndb/kiln/distributor"
	"github.com/kilndb/kiln/distributor/otlp"
	"github.com/kilndb/kiln/distributor/otlp/otlptest"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/objstore/objstoretest"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/tenant"
)

// export sends a request of OpenTelemetry's protocol and returns the answer.
func export(t testing.TB, d *distributor.Distributor, body []byte) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, otlp.Path, bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/x-protobuf")
	w := httptest.NewRecorder()
	d.OTLP().ServeHTTP(w, r.WithContext(acme(r.Context())))
	return w
}

// middle returns the profile of the second resource of a request.
func middle(r *otlptest.Request) pprofile.Profile {
	return r.ResourceProfiles().At(1).ScopeProfiles().At(0).Profiles().At(0)
}

// attributes returns those of the second resource.
func attributes(r *otlptest.Request) pcommon.Map {
	return r.ResourceProfiles().At(1).Resource().Attributes()
}

// looker is a SegmentWriter that looks at what it gets.
type looker struct {
	appended func(*profile.Profile)
	// waited returns the answer, for one profile at a time.
	waited func(labels.Labels, profile.ID) error
}

func (l looker) Append(_ context.Context, _ tenant.ID, _ uint32, series labels.Labels, id profile.ID, p *profile.Profile) (func(context.Context) error, error) {
	if l.appended != nil {
		l.appended(p)
	}
	return func(context.Context) error {
		if l.waited != nil {
			return l.waited(series, id)
		}
		return nil
	}, nil
}

// counted is a request of a profile with samples of these stacks.
func counted(at time.Time, stacks ...string) *otlptest.Request {
	r := otlptest.New()
	p := r.Profile(r.Resource("service.name", "checkout", "region", "eu"), at, "samples:count", "cpu:nanoseconds", 10)
	for _, stack := range stacks {
		r.Sample(p, stack, 1)
	}
	return r
}

func TestOTLPProfilesAreStored(t *testing.T) {
	d := open(t)
	r := counted(now, "main;work", "main", "main;work")
	s := r.ResourceProfiles().At(0).ScopeProfiles().At(0).Profiles().At(0).Samples().At(1)
	s.AttributeIndices().Append(r.Attribute("thread.name", "worker"), r.Attribute("thread.id", 7))
	body := r.Proto()
	for range 2 { // what is sent again counts once
		if w := export(t, d.Distributor, body); w.Code != http.StatusOK || w.Body.Len() != 0 {
			t.Fatalf("%d %q", w.Code, w.Body)
		}
	}
	rows := d.Rows(t)
	distinct := map[string]bool{}
	for _, row := range rows {
		distinct[fmt.Sprint(row.ID, row.Labels, row.Time)] = true
		want := map[string]map[string][]int64{
			`{region="eu", service_name="checkout"}`:                         {"main;work": {20}},
			`{region="eu", service_name="checkout", "thread.name"="worker"}`: {"main": {10}},
		}[row.Labels.String()]
		if fmt.Sprint(row.Names) != fmt.Sprint(want) || row.Tenant != "acme" || row.Service != "checkout" || row.Period != 10 || row.Time != now.UnixNano() ||
			row.Kind.Type(0).String() != "process_cpu:cpu:nanoseconds:cpu:nanoseconds" {
			t.Errorf("row %+v", row)
		}
	}
	if len(distinct) != 2 {
		t.Errorf("%d rows, which are %d distinct ones", len(rows), len(distinct))
	}
	wantMetric(t, d, "kiln_discarded_profiles_total", "malformed_profile", 0)
}

// TestOTLPProfilesAreChecked sends each bad profile between two good ones.
func TestOTLPProfilesAreChecked(t *testing.T) {
	tight := func(l *tenant.Limits) {
		l.MaxProfileBytes, l.MaxSamples, l.MaxSampleLabels = 1<<20, 3, 2
		l.MaxLabels, l.MaxLabelName, l.MaxLabelValue, l.MaxAge = 7, 20, 30, 24*time.Hour
	}
	for name, c := range map[string]struct {
		change       func(r *otlptest.Request) // of the second resource
		says, reason string
	}{
		"bad index":           {func(r *otlptest.Request) { middle(r).Samples().At(0).SetStackIndex(99) }, "stack 99", "malformed_profile"},
		"bad index elsewhere": {func(r *otlptest.Request) { middle(r).SampleType().SetTypeStrindex(-1) }, "sample_type: malformed profile: string -1", "malformed_profile"},
		"no unit":             {func(r *otlptest.Request) { middle(r).SampleType().SetUnitStrindex(0) }, "no unit", "malformed_profile"},
		"colon":               {func(r *otlptest.Request) { middle(r).SampleType().SetTypeStrindex(r.String("a:b")) }, "colon", "malformed_profile"},
		"overflow":            {func(r *otlptest.Request) { middle(r).Samples().At(0).Values().FromRaw([]int64{1 << 62}) }, "overflows", "malformed_profile"},
		"overflow of a sum": {func(r *otlptest.Request) {
			middle(r).Samples().At(0).Values().FromRaw([]int64{1 << 59})
			middle(r).Samples().At(0).CopyTo(middle(r).Samples().AppendEmpty())
		}, "overflow", "malformed_profile"},
		"many samples": {func(r *otlptest.Request) {
			for range 3 {
				r.Sample(middle(r), "f", 1)
			}
		}, "more than 3 samples", "samples_limit"},
		"many sample labels": {func(r *otlptest.Request) {
			middle(r).Samples().At(0).AttributeIndices().Append(r.Attribute("a", "b"), r.Attribute("c", "d"), r.Attribute("e", "f"))
		}, "more than 2 labels of a sample", "sample_labels_limit"},
		"long sample label": {func(r *otlptest.Request) {
			middle(r).Samples().At(0).AttributeIndices().Append(r.Attribute("a", strings.Repeat("v", 31)))
		}, "labels of samples", "label_value_too_long"},
		"large": {func(r *otlptest.Request) {
			middle(r).Samples().At(0).SetStackIndex(r.Stack(strings.Repeat("x", 2<<20)))
		}, "more than 1048576 bytes", "profile_size_limit"},
		"many labels": {func(r *otlptest.Request) {
			otlptest.Put(attributes(r), "a", "1", "b", "1", "c", "1", "d", "1", "e", "1")
		}, "limit of 7", "max_label_names_per_series"},
		"very many labels": {func(r *otlptest.Request) {
			for i := range 1000 {
				attributes(r).PutInt(fmt.Sprint("a", i), 1)
			}
		}, "limit of 7", "max_label_names_per_series"},
		"long name":  {func(r *otlptest.Request) { otlptest.Put(attributes(r), strings.Repeat("n", 21), "1") }, "21 bytes", "label_name_too_long"},
		"long value": {func(r *otlptest.Request) { otlptest.Put(attributes(r), "a", strings.Repeat("v", 31)) }, "31 bytes", "label_value_too_long"},
		"too old":    {func(r *otlptest.Request) { middle(r).SetTime(1) }, "24h0m0s", "not_in_ingestion_window"},
	} {
		t.Run(name, func(t *testing.T) {
			d := open(t, tight)
			r := otlptest.New()
			for i := range int64(3) {
				at := now.Add(time.Duration(i))
				r.Sample(r.Profile(r.Resource("service.name", fmt.Sprint("s", i)), at, "samples:count", "cpu:nanoseconds", 10), "main", i+1)
			}
			c.change(r)
			w := export(t, d.Distributor, r.Proto())
			reply := pprofileotlp.NewExportResponse()
			if err := reply.UnmarshalProto(w.Body.Bytes()); w.Code != http.StatusOK || err != nil {
				t.Fatalf("%d %q: %v", w.Code, w.Body, err)
			}
			if p := reply.PartialSuccess(); p.RejectedProfiles() != 1 || !strings.Contains(p.ErrorMessage(), "resource 1 scope 0 profile 0") || !strings.Contains(p.ErrorMessage(), c.says) {
				t.Errorf("rejected %d: %s, want %q", p.RejectedProfiles(), p.ErrorMessage(), c.says)
			}
			if got := values(t, d); !slices.Equal(got, []int64{10, 30}) {
				t.Errorf("stored %d", got)
			}
			wantMetric(t, d, "kiln_discarded_profiles_total", c.reason, 1)
		})
	}
}

func TestOTLPRequestsAreBoundedAsAWhole(t *testing.T) {
	r := otlptest.New()
	scope := r.Resource("service.name", "checkout")
	for i := range 5 {
		r.Sample(r.Profile(scope, now.Add(time.Duration(i)), "samples:count", "cpu:nanoseconds", 1), "main", int64(i+1))
	}
	body := r.Proto()
	for reason, edit := range map[string]func(*tenant.Limits){
		"body_size_limit_exceeded": func(l *tenant.Limits) { l.MaxBody = len(body) - 1 },
		"request_series_limit":     func(l *tenant.Limits) { l.MaxSeriesPerRequest = 4 },
	} {
		d := open(t, edit)
		if w := export(t, d.Distributor, body); w.Code/100 != 4 || len(d.Rows(t)) > 0 {
			t.Errorf("%s: %d %s", reason, w.Code, w.Body)
		}
		wantMetric(t, d, "kiln_discarded_profiles_total", reason, map[string]float64{"body_size_limit_exceeded": 1, "request_series_limit": 5}[reason])
	}

	// A name that each of many profiles has counts for each.
	r = otlptest.New()
	scope = r.Resource("service.name", "checkout")
	name := strings.Repeat("x", 100_000)
	for i := range 50 {
		r.Sample(r.Profile(scope, now.Add(time.Duration(i)), "samples:count", "cpu:nanoseconds", 1), name, 1)
	}
	d := open(t, func(l *tenant.Limits) { l.MaxRequestBytes = 1 << 20 })
	w := export(t, d.Distributor, r.Proto())
	reply := pprofileotlp.NewExportResponse()
	if err := reply.UnmarshalProto(w.Body.Bytes()); err != nil || reply.PartialSuccess().RejectedProfiles() < 38 || !strings.Contains(reply.PartialSuccess().ErrorMessage(), "after decompression") {
		t.Errorf("%d %.300q", w.Code, w.Body)
	}
}

func TestOTLPOutagesAreRetryable(t *testing.T) {
	d := open(t)
	d.Bucket.Fail(objstoretest.BeforePut, errors.New("secret endpoint"), objstoretest.Always)
	r := counted(now, "main")
	scope := r.ResourceProfiles().At(0).ScopeProfiles().At(0)
	r.Sample(r.Profile(scope, now, "samples:count", "cpu:nanoseconds", 10), "main", 1).SetStackIndex(77)
	w := export(t, d.Distributor, r.Proto())
	if body := w.Body.String(); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "1" ||
		!strings.Contains(body, "the object store") || !strings.Contains(body, "stack 77") || strings.Contains(body, "secret") {
		t.Errorf("%d %s %q", w.Code, w.Header(), body)
	}
	wantMetric(t, d, "kiln_discarded_profiles_total", "segment_writer", 1)
	wantMetric(t, d, "kiln_discarded_profiles_total", "malformed_profile", 1)
}

// When some of a request was stored before an outage, the repetition stores the same once more: it counts once.
func TestOTLPRepetitionsHaveTheSameIDs(t *testing.T) {
	ids := map[string][]profile.ID{}
	fail := true
	d := over(t, looker{waited: func(series labels.Labels, id profile.ID) error {
		service := series.Get(labels.ServiceName)
		ids[service] = append(ids[service], id)
		if fail && service == "b" {
			return connect.NewError(connect.CodeUnavailable, errors.New("told"))
		}
		return nil
	}}, prometheus.NewRegistry())
	r := otlptest.New()
	for _, service := range []string{"a", "b"} {
		r.Sample(r.Profile(r.Resource("service.name", service), now, "samples:count", "cpu:nanoseconds", 10), "main", 1)
	}
	body := r.Proto()
	if w := export(t, d, body); w.Code != http.StatusServiceUnavailable {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	fail = false
	if w := export(t, d, body); w.Code != http.StatusOK {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	for service, of := range ids {
		if len(of) != 2 || of[0] != of[1] {
			t.Errorf("service %s: ids %v", service, of)
		}
	}
	if ids["a"][0] == ids["b"][0] {
		t.Error("two profiles share an id")
	}
}

// Spans, traces and moments reach the writer beside the samples: they make no series.
func TestOTLPLinksAndMomentsReachTheWriter(t *testing.T) {
	d := over(t, looker{appended: func(p *profile.Profile) {
		span, trace := profile.SpanID{1, 2}, profile.TraceID{3, 4}
		if len(p.Series) != 1 || !slices.Equal(p.Spans, []profile.SpanID{{}, span}) || !slices.Equal(p.Traces, []profile.TraceID{{}, trace}) {
			t.Errorf("series %v, spans %v, traces %v", p.Series, p.Spans, p.Traces)
		}
		if !slices.Equal(p.Times, []int64{5, 7, 6}) || !slices.Equal(p.TimeEnds, []uint32{2, 3}) {
			t.Errorf("moments %d, ends %d", p.Times, p.TimeEnds)
		}
	}}, prometheus.NewRegistry())
	r := counted(now, "main", "main")
	samples := r.ResourceProfiles().At(0).ScopeProfiles().At(0).Profiles().At(0).Samples()
	samples.At(0).TimestampsUnixNano().FromRaw([]uint64{5, 7})
	samples.At(1).TimestampsUnixNano().FromRaw([]uint64{6})
	samples.At(1).SetLinkIndex(r.Link([16]byte{3, 4}, [8]byte{1, 2}))
	if w := export(t, d, r.Proto()); w.Code != http.StatusOK || w.Body.Len() > 0 {
		t.Errorf("%d %q", w.Code, w.Body)
	}
}

func TestOTLPProfilesAreInTheWriterBeforeAnyIsWaitedFor(t *testing.T) {
	const profiles = 20
	appended := make(chan struct{}, profiles)
	d := over(t, writerFunc(func(context.Context, labels.Labels) (func(context.Context) error, error) {
		appended <- struct{}{}
		return func(context.Context) error {
			if len(appended) != profiles {
				return connect.NewError(connect.CodeInternal, fmt.Errorf("only %d appended", len(appended)))
			}
			return nil
		}, nil
	}), prometheus.NewRegistry())
	r := otlptest.New()
	for i := range profiles {
		r.Sample(r.Profile(r.Resource("service.name", fmt.Sprint(i)), now, "samples:count", "cpu:nanoseconds", 10), "main", 1)
	}
	if w := export(t, d, r.Proto()); w.Code != http.StatusOK || w.Body.Len() > 0 {
		t.Errorf("%d %q", w.Code, w.Body)
	}
}
