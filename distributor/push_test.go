package distributor_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	pushv1 "github.com/grafana/pyroscope/api/gen/proto/go/push/v1"
	"github.com/grafana/pyroscope/api/gen/proto/go/push/v1/pushv1connect"
	typesv1 "github.com/grafana/pyroscope/api/gen/proto/go/types/v1"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/kilndb/kiln/distributor"
	"github.com/kilndb/kiln/distributor/placement"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/objstore/objstoretest"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/oracle"
	. "github.com/kilndb/kiln/segmentwriter/segmentwritertest"
	"github.com/kilndb/kiln/tenant"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var now = time.Date(2026, 3, 31, 12, 0, 0, 0, time.UTC)

// door is a distributor over a segment-writer.
type door struct {
	*distributor.Distributor
	*Writer
	metrics *prometheus.Registry
}

// open opens a distributor whose tenants have the default limits, edited.
func open(t testing.TB, edit ...func(*tenant.Limits)) *door {
	t.Helper()
	w := Open(t, Config())
	d := &door{Writer: w, metrics: prometheus.NewRegistry()}
	d.Distributor = over(t, w, d.metrics, edit...)
	return d
}

// spread gives acme four shards.
var spread = &placement.Rules{Shards: 4, Tenants: map[tenant.ID]placement.Tenant{"acme": {Shards: 4}}}

// over returns a distributor over any writer.
func over(t testing.TB, w distributor.SegmentWriter, reg prometheus.Registerer, edit ...func(*tenant.Limits)) *distributor.Distributor {
	t.Helper()
	limits := tenant.DefaultLimits()
	for _, e := range edit {
		e(&limits)
	}
	cfg := distributor.DefaultConfig()
	cfg.Now = func() time.Time { return now }
	cfg.Limits = func(tenant.ID) tenant.Limits { return limits }
	cfg.Placement = func() *placement.Rules { return spread }
	d, err := distributor.New(cfg, w, slog.New(slog.DiscardHandler), reg)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// series is a pushed series; names and values alternate.
func series(nameValues []string, profiles ...[]byte) *pushv1.RawProfileSeries {
	s := &pushv1.RawProfileSeries{}
	for i := 0; i < len(nameValues); i += 2 {
		s.Labels = append(s.Labels, &typesv1.LabelPair{Name: nameValues[i], Value: nameValues[i+1]})
	}
	for _, p := range profiles {
		s.Samples = append(s.Samples, &pushv1.RawSample{RawProfile: p})
	}
	return s
}

func checkout(extra ...string) []string {
	return append([]string{"__name__", "process_cpu", "service_name", "checkout"}, extra...)
}

func acme(ctx context.Context) context.Context { return tenant.NewContext(ctx, "acme") }

func push(t testing.TB, d pushv1connect.PusherServiceHandler, all ...*pushv1.RawProfileSeries) error {
	t.Helper()
	_, err := d.Push(acme(t.Context()), connect.NewRequest(&pushv1.PushRequest{Series: all}))
	return err
}

// small is a profile with one stack, main, and this value.
func small(value int64) []byte { return smallAt(now, value) }

func smallAt(at time.Time, value int64) []byte {
	nanos := int64(0)
	if !at.IsZero() {
		nanos = at.UnixNano()
	}
	return Pprof(nanos, []string{"cpu:nanoseconds"}, Sample{Stack: "main", Values: []int64{value}})
}

// values returns the values of all stored small profiles, sorted.
func values(t testing.TB, d *door) []int64 {
	t.Helper()
	var all []int64
	for _, r := range d.Rows(t) {
		all = append(all, r.Names["main"]...)
	}
	slices.Sort(all)
	return all
}

func wantError(t testing.TB, err error, code connect.Code, says ...string) {
	t.Helper()
	if connect.CodeOf(err) != code || err == nil {
		t.Errorf("error %v, want %s", err, code)
		return
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("error %v does not say %q", err, s)
		}
	}
}

func TestCorpusThroughTheDoorEqualsTheOracle(t *testing.T) {
	d := open(t)
	var all []*pushv1.RawProfileSeries
	for i, f := range corpus.All() {
		body := f.Gzipped
		if i%2 == 0 {
			body = f.Raw()
		}
		all = append(all, series([]string{"__name__", f.Kind(), "service_name", f.Service(), "file", f.Name}, body))
	}
	if err := push(t, d, all...); err != nil {
		t.Fatal(err)
	}
	rows := d.Rows(t)
	for _, f := range corpus.All() {
		var of []Row
		for _, r := range rows {
			if r.Labels.Get("file") == f.Name {
				of = append(of, r)
				if r.Tenant != "acme" || r.Service != f.Service() || r.Kind.Name != f.Kind() || r.Labels.Has("__name__") {
					t.Errorf("%s is stored as %s %s %s %s", f.Name, r.Tenant, r.Service, r.Kind.Name, r.Labels)
				}
			}
		}
		parsed := oracle.Parse(f.Gzipped)
		for _, st := range parsed.SampleType {
			if got, want := Sum(of, st.Type), oracle.Sum(st.Type, parsed).Locations; !maps.Equal(got, want) {
				t.Errorf("%s %s: %d stacks differ from the oracle's %d", f.Name, st.Type, len(got), len(want))
			}
		}
	}
}

func TestLabelsAndTheirDefaults(t *testing.T) {
	d := open(t)
	if err := push(t, d,
		series([]string{"service_name", "", "zone", "", "__name__", "godeltaprof_memory", "__delta__", "false", "__session_id__", "x", "pod", "1"}, small(1)),
	); err != nil {
		t.Fatal(err)
	}
	row := d.Rows(t)[0]
	if want := labels.FromStrings("pod", "1", "service_name", "unknown_service"); labels.Compare(row.Labels, want) != 0 {
		t.Errorf("labels %s, want %s", row.Labels, want)
	}
	if row.Kind.Name != "memory" || row.Service != "unknown_service" {
		t.Errorf("kind %s of %s", row.Kind.Name, row.Service)
	}
}

func TestTimesAndIDs(t *testing.T) {
	d := open(t)
	id := profile.NewID()
	withID := series(checkout(), smallAt(now.Add(-time.Hour), 1))
	withID.Samples[0].ID = strings.ToUpper(id.String())
	if err := push(t, d, withID, series(checkout(), smallAt(time.Time{}, 2)), series(checkout(), smallAt(now.AddDate(-1, 0, 0), 3))); err != nil {
		t.Fatal(err)
	}
	times := map[int64]int64{}
	for _, r := range d.Rows(t) {
		value := r.Names["main"][0]
		times[value] = r.Time
		if (r.ID == id) != (value == 1) || r.ID == (profile.ID{}) {
			t.Errorf("profile %d has id %s", value, r.ID)
		}
	}
	want := map[int64]int64{1: now.Add(-time.Hour).UnixNano(), 2: now.UnixNano(), 3: now.AddDate(-1, 0, 0).UnixNano()}
	if !maps.Equal(times, want) {
		t.Errorf("times %v, want %v", times, want)
	}
}

func TestARepeatedPushWithIDsCountsOnce(t *testing.T) {
	d := open(t)
	s := series(checkout(), small(1), small(1))
	s.Samples[0].ID, s.Samples[1].ID = profile.NewID().String(), profile.NewID().String()
	if err := push(t, d, s, s); err != nil {
		t.Fatal(err)
	}
	ids := map[profile.ID]bool{}
	for _, r := range d.Rows(t) {
		ids[r.ID] = true
	}
	if len(ids) != 2 {
		t.Errorf("%d profiles, want 2 different ones", len(ids))
	}
}

func TestServicesGoToTheirShards(t *testing.T) {
	d := open(t)
	want := map[string]uint32{}
	for i := range 10 {
		service := fmt.Sprint("service-", i)
		want[service] = spread.Shard("acme", service, 0, 0, false)
		if err := push(t, d, series([]string{"__name__", "process_cpu", "service_name", service}, small(1))); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range d.Index.Entries() {
		for _, ds := range m.GetDatasets() {
			service := m.GetStrings()[ds.GetService()]
			if m.GetShard() != want[service] {
				t.Errorf("%s is in shard %d, want %d", service, m.GetShard(), want[service])
			}
		}
	}
}

func TestWhatHasNothingToStoreSucceeds(t *testing.T) {
	d := open(t)
	negative := Pprof(0, []string{"cpu:nanoseconds"}, Sample{Stack: "main", Values: []int64{-1}}, Sample{Stack: "main", Values: []int64{0}})
	if err := errors.Join(push(t, d), push(t, d, series(checkout())), push(t, d, series(checkout(), negative))); err != nil {
		t.Fatal(err)
	}
	if n := len(d.Index.Entries()); n != 0 {
		t.Errorf("%d entries", n)
	}
	for _, reason := range []string{"negative", "zero"} {
		wantMetric(t, d, "kiln_distributor_dropped_samples_total", reason, 1)
	}
}

// wantMetric compares a counter of the distributor that has one label.
func wantMetric(t testing.TB, d *door, name, label string, want float64) {
	t.Helper()
	families, err := d.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := 0.0
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && m.GetLabel()[0].GetValue() == label {
				got = m.GetCounter().GetValue()
			}
		}
	}
	if got != want {
		t.Errorf("%s of %s is %v, want %v", name, label, got, want)
	}
}

func gzipped(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(b)
	_ = w.Close()
	return out.Bytes()
}

// with appends a message, as field number, to a profile.
func with(b []byte, field protowire.Number, message []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(slices.Clone(b), field, protowire.BytesType), message)
}

// varints is a message of varint fields; numbers and values alternate.
func varints(numbersValues ...int64) []byte {
	var b []byte
	for i := 0; i < len(numbersValues); i += 2 {
		b = protowire.AppendTag(b, protowire.Number(numbersValues[i]), protowire.VarintType)
		b = protowire.AppendVarint(b, uint64(numbersValues[i+1]))
	}
	return b
}

func TestBadProfilesAreNamedAndTheRestIsStored(t *testing.T) {
	tight := func(l *tenant.Limits) {
		l.MaxProfileBytes, l.MaxSamples, l.MaxSampleLabels, l.MaxSampleTypes = 1<<20, 3, 2, 4
		l.MaxLabels, l.MaxLabelName, l.MaxLabelValue, l.MaxAge = 5, 20, 30, 24*time.Hour
	}
	sample := func(stack string, value int64, nameValues ...string) Sample {
		s := Sample{Stack: stack, Values: []int64{value}, Labels: map[string]string{}}
		for i := 0; i < len(nameValues); i += 2 {
			s.Labels[nameValues[i]] = nameValues[i+1]
		}
		return s
	}
	cpu := func(samples ...Sample) []byte { return Pprof(now.UnixNano(), []string{"cpu:nanoseconds"}, samples...) }
	typed := func(types ...string) []byte {
		return Pprof(now.UnixNano(), types, Sample{Stack: "main", Values: make([]int64, len(types))})
	}
	for name, c := range map[string]struct {
		labels []string
		body   []byte
		id     string
		says   string
		reason string
	}{
		"not gzip":                 {body: []byte("this is not a profile"), says: "malformed profile", reason: "malformed_profile"},
		"empty":                    {body: nil, says: "malformed profile", reason: "malformed_profile"},
		"truncated gzip":           {body: gzipped(small(9))[:40], says: "gunzip", reason: "malformed_profile"},
		"gzip with a bad checksum": {body: append(gzipped(small(9))[:len(gzipped(small(9)))-8], 1, 2, 3, 4, 5, 6, 7, 8), says: "gunzip", reason: "malformed_profile"},
		"garbage protobuf":         {body: gzipped([]byte{0xff, 0xff, 0xff, 0x12, 0x00, 0x42}), says: "malformed profile", reason: "malformed_profile"},
		"truncated protobuf":       {body: small(9)[:len(small(9))-3], says: "malformed profile", reason: "malformed_profile"},
		"string out of range":      {body: with(small(9), 5, varints(1, 77, 2, 99)), says: "string 99 is outside of the string table of", reason: "malformed_profile"},
		"negative string":          {body: with(small(9), 5, varints(1, 77, 2, -1)), says: "outside of the string table of", reason: "malformed_profile"},
		"location out of range":    {body: with(small(9), 2, varints(1, 4711, 2, 1)), says: "there is no location 4711", reason: "malformed_profile"},
		"negative location":        {body: with(small(9), 2, varints(1, -1, 2, 1)), says: "there is no location", reason: "malformed_profile"},
		"function out of range":    {body: with(small(9), 4, append(varints(1, 78), with(nil, 4, varints(1, 555))...)), says: "there is no function 555", reason: "malformed_profile"},
		"values of another width":  {body: with(small(9), 2, varints(1, 1, 2, 1, 2, 2)), says: "value", reason: "malformed_profile"},
		"colon in a sample type":   {body: typed("a:b:c"), says: "contains a colon", reason: "malformed_profile"},
		"sample type without unit": {body: typed("cpu:"), says: "no unit", reason: "malformed_profile"},
		"sample type twice":        {body: typed("cpu:ns", "cpu:ns"), says: "are the same", reason: "malformed_profile"},
		"values that overflow":     {body: cpu(sample("main", 1<<62), sample("main", 1<<62)), says: "overflow", reason: "malformed_profile"},

		"too large":               {body: cpu(sample(strings.Repeat("x", 2<<20), 1)), says: "1048576", reason: "profile_size_limit"},
		"too large once inflated": {body: gzipped(cpu(sample(strings.Repeat("x", 2<<20), 1))), says: "more than", reason: "profile_size_limit"},
		"too many samples":        {body: cpu(sample("a", 1), sample("b", 1), sample("c", 1), sample("d", 1)), says: "more than 3 samples", reason: "samples_limit"},
		"too many sample types":   {body: typed("a:b", "c:d", "e:f", "g:h", "i:j"), says: "more than 4 sample types", reason: "profile_size_limit"},
		"too many sample labels":  {body: cpu(sample("a", 1, "x", "1", "y", "2", "z", "3")), says: "more than 2 labels of a sample", reason: "sample_labels_limit"},
		"long sample label":       {body: cpu(sample("a", 1, "x", strings.Repeat("y", 31))), says: "labels of samples", reason: "label_value_too_long"},
		"in the future":           {body: smallAt(now.Add(11*time.Minute), 9), says: "ahead of ours", reason: "not_in_ingestion_window"},
		"too old":                 {body: smallAt(now.Add(-25*time.Hour), 9), says: "24h0m0s", reason: "not_in_ingestion_window"},
		"before 1970":             {body: smallAt(time.Unix(-5, 0), 9), says: "before 1970", reason: "not_in_ingestion_window"},
		"bad id":                  {id: "not-a-uuid", body: small(9), says: `"not-a-uuid"`, reason: "invalid_profile_id"},

		"no kind":            {labels: []string{"service_name", "checkout"}, body: small(9), says: "__name__ is missing", reason: "missing_labels"},
		"empty kind":         {labels: []string{"service_name", "checkout", "__name__", ""}, body: small(9), says: "__name__ is missing", reason: "missing_labels"},
		"no labels":          {labels: []string{}, body: small(9), says: "__name__ is missing", reason: "missing_labels"},
		"kind with a colon":  {labels: []string{"__name__", "a:b"}, body: small(9), says: "colon", reason: "invalid_labels"},
		"duplicate label":    {labels: checkout("a", "1", "a", "2"), body: small(9), says: `"a" occurs twice`, reason: "duplicate_label_names"},
		"label without name": {labels: checkout("", "1"), body: small(9), says: "no name", reason: "invalid_labels"},
		"name not UTF-8":     {labels: checkout("a\xff", "1"), body: small(9), says: "not UTF-8", reason: "invalid_labels"},
		"value not UTF-8":    {labels: checkout("a", "\xff"), body: small(9), says: "not UTF-8", reason: "invalid_labels"},
		"long name":          {labels: checkout(strings.Repeat("n", 21), "1"), body: small(9), says: "21 bytes", reason: "label_name_too_long"},
		"long value":         {labels: checkout("a", strings.Repeat("v", 31)), body: small(9), says: "31 bytes", reason: "label_value_too_long"},
		"many labels":        {labels: checkout("a", "1", "b", "1", "c", "1", "d", "1"), body: small(9), says: "limit of 5", reason: "max_label_names_per_series"},
	} {
		t.Run(name, func(t *testing.T) {
			d := open(t, tight)
			ls := c.labels
			if ls == nil {
				ls = checkout()
			}
			bad := series(ls, c.body)
			bad.Samples[0].ID = c.id
			err := push(t, d, series(checkout("pod", "1"), small(1)), bad, series(checkout("pod", "2"), small(2)))
			wantError(t, err, connect.CodeInvalidArgument, "series 1", c.says)
			if got := values(t, d); !slices.Equal(got, []int64{1, 2}) {
				t.Errorf("stored %d, want the two good ones", got)
			}
			wantMetric(t, d, "kiln_discarded_profiles_total", c.reason, 1)
			wantError(t, push(t, d, bad), connect.CodeInvalidArgument, c.says) // alone, and once more
		})
	}
}

func TestEveryFailureIsListed(t *testing.T) {
	d := open(t)
	err := push(t, d,
		series(checkout(), small(1), []byte("x"), small(2)),
		series([]string{"service_name", "cart"}, small(3)),
		series([]string{"__name__", "wall"}, []byte("y")),
	)
	wantError(t, err, connect.CodeInvalidArgument,
		`series 0 (service_name="checkout") profile 1: malformed`,
		`series 1 (service_name="cart"): label __name__ is missing`,
		`series 2 (service_name="unknown_service") profile 0: malformed`)
	if got := values(t, d); !slices.Equal(got, []int64{1, 2}) {
		t.Errorf("stored %d", got)
	}
	many := series(checkout(), slices.Repeat([][]byte{{'x'}}, 50)...)
	wantError(t, push(t, d, many), connect.CodeInvalidArgument, "profile 31: ", "; and 18 more")
}

func TestOutagesAreRetryableAndNothingIsAcknowledged(t *testing.T) {
	d := open(t)
	d.Bucket.Fail(objstoretest.BeforePut, errors.New("secret endpoint"), objstoretest.Always)
	err := push(t, d, series(checkout(), []byte("x"), small(1)))
	wantError(t, err, connect.CodeUnavailable, "profile 0: malformed", "profile 1: the object store")
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("the client is told of the inside: %v", err)
	}
	wantMetric(t, d, "kiln_discarded_profiles_total", "segment_writer", 1)
}

func TestRequestsAreBoundedAsAWhole(t *testing.T) {
	limits := func(l *tenant.Limits) {
		l.MaxSeriesPerRequest, l.MaxProfilesPerSeries, l.MaxBody = 2, 3, 1<<20
		l.MaxRequestBytes = 3 * len(small(1))
	}
	d := open(t, limits)
	s := func(profiles ...[]byte) *pushv1.RawProfileSeries { return series(checkout(), profiles...) }
	wantError(t, push(t, d, s(small(1)), s(), s()), connect.CodeInvalidArgument, "3 series", "limit of 2")
	wantError(t, push(t, d, s(small(1), nil, nil, nil)), connect.CodeInvalidArgument, "series 0 has 4 profiles", "limit of 3")
	wantError(t, push(t, d, s(make([]byte, 1<<20), small(1))), connect.CodeInvalidArgument, "limit of 1048576")
	if got := values(t, d); len(got) != 0 {
		t.Errorf("stored %d of requests that were refused as a whole", got)
	}
	err := push(t, d, s(small(1), small(2)), s(small(3), small(4), small(5)))
	wantError(t, err, connect.CodeInvalidArgument, "after decompression")
	if got := values(t, d); len(got) != 3 {
		t.Errorf("stored %d, want three of five", got)
	}
}

func TestWithoutATenantNothingIsTaken(t *testing.T) {
	d := open(t)
	_, err := d.Push(t.Context(), connect.NewRequest(&pushv1.PushRequest{}))
	wantError(t, err, connect.CodeUnauthenticated, tenant.Header)
}

func TestTenantsDoNotMix(t *testing.T) {
	d := open(t)
	for i, id := range []tenant.ID{"acme", "globex"} {
		_, err := d.Push(tenant.NewContext(t.Context(), id), connect.NewRequest(&pushv1.PushRequest{
			Series: []*pushv1.RawProfileSeries{series(checkout(), small(int64(i+1)))},
		}))
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range d.Rows(t) {
		if want := map[string]int64{"acme": 1, "globex": 2}[r.Tenant]; r.Names["main"][0] != want {
			t.Errorf("tenant %s has %v", r.Tenant, r.Names)
		}
	}
}

func TestARequestIsNotChanged(t *testing.T) {
	d := open(t)
	body := small(1)
	before := slices.Clone(body)
	s := series([]string{"service_name", "b", "__name__", "godeltaprof_a", "a", ""}, body)
	if err := push(t, d, s); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(body, before) || s.Labels[0].Name != "service_name" || s.Labels[1].Value != "godeltaprof_a" || len(s.Labels) != 3 {
		t.Errorf("the request became %v", s)
	}
}

// writerFunc is a SegmentWriter of one function.
type writerFunc func(ctx context.Context, series labels.Labels) (func(context.Context) error, error)

func (f writerFunc) Append(ctx context.Context, _ tenant.ID, _ uint32, series labels.Labels, _ profile.ID, _ *profile.Profile) (func(context.Context) error, error) {
	return f(ctx, series)
}

func TestAPanicFailsOneProfileAndTheNextAreTaken(t *testing.T) {
	d := over(t, writerFunc(func(_ context.Context, series labels.Labels) (func(context.Context) error, error) {
		if series.Has("poison") {
			panic("poison")
		}
		return func(context.Context) error { return nil }, nil
	}), prometheus.NewRegistry())
	for range 100 { // more often than there are slots to lose
		err := push(t, d, series(checkout(), small(1)), series(checkout("poison", "1"), small(2)))
		wantError(t, err, connect.CodeInternal, "series 1", "an error of the server")
		if strings.Contains(err.Error(), "series 0") {
			t.Fatal(err)
		}
	}
}

func TestAllProfilesOfAPushAreInTheWriterBeforeAnyIsWaitedFor(t *testing.T) {
	const profiles = 20
	appended := make(chan struct{}, profiles)
	d := over(t, writerFunc(func(context.Context, labels.Labels) (func(context.Context) error, error) {
		appended <- struct{}{}
		return func(ctx context.Context) error {
			if len(appended) != profiles {
				return connect.NewError(connect.CodeInternal, fmt.Errorf("only %d appended", len(appended)))
			}
			return nil
		}, nil
	}), prometheus.NewRegistry())
	if err := push(t, d, series(checkout(), slices.Repeat([][]byte{small(1)}, profiles)...)); err != nil {
		t.Error(err)
	}
}

func TestAPushEndsWithItsContext(t *testing.T) {
	d := open(t)
	hold := d.Bucket.Hold(objstoretest.BeforePut)
	defer hold.Release()
	ctx, cancel := context.WithCancel(acme(t.Context()))
	go func() { <-hold.Reached(); cancel() }()
	_, err := d.Push(ctx, connect.NewRequest(&pushv1.PushRequest{Series: []*pushv1.RawProfileSeries{series(checkout(), small(1))}}))
	wantError(t, err, connect.CodeCanceled)
}

func TestPushSpeaksJSON(t *testing.T) {
	d := open(t)
	_, handler := pushv1connect.NewPusherServiceHandler(d)
	body := `{"series":[{"labels":[{"name":"service_name","value":"checkout"}],"samples":[{"rawProfile":"aGVsbG8="}]}]}`
	r := httptest.NewRequest(http.MethodPost, "/push.v1.PusherService/Push", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r.WithContext(acme(t.Context())))
	if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "label __name__ is missing") || !strings.Contains(w.Body.String(), "invalid_argument") {
		t.Errorf("answer %d %s", w.Code, w.Body)
	}
}
