package distributor_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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

	"github.com/kilndb/kiln/distributor"
	"github.com/kilndb/kiln/distributor/relabel"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	. "github.com/kilndb/kiln/segmentwriter/segmentwritertest"
	"github.com/kilndb/kiln/tenant"
)

// ruled opens a distributor whose tenant acme has rules.
func ruled(t testing.TB, rules string) *door {
	t.Helper()
	r, err := relabel.Parse([]byte(rules))
	if err != nil {
		t.Fatal(err)
	}
	w := Open(t, Config())
	d := &door{Writer: w, metrics: prometheus.NewRegistry()}
	cfg := distributor.DefaultConfig()
	cfg.Now = func() time.Time { return now }
	cfg.Rules = func(id tenant.ID) *relabel.Rules {
		if id == "acme" {
			return r
		}
		return nil
	}
	if d.Distributor, err = distributor.New(cfg, w, slog.New(slog.DiscardHandler), d.metrics); err != nil {
		t.Fatal(err)
	}
	return d
}

// kinds writes down what is stored: kind, labels, types and the values of main.
func kinds(t testing.TB, d *door) string {
	t.Helper()
	var lines []string
	for _, r := range d.Rows(t) {
		lines = append(lines, fmt.Sprintf("%s%s%v%v", r.Kind.Name, r.Labels, r.Kind.SampleTypes, r.Names["main"]))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// node is what the profiler of Node.js sends: three columns, one of them of another kind.
func nodejs(sample, wall, cpu int64) []byte {
	return Pprof(now.UnixNano(), []string{"sample:count", "wall:nanoseconds", "cpu:nanoseconds"},
		Sample{Stack: "main", Values: []int64{sample, wall, cpu}}, Sample{Stack: "idle", Values: []int64{0, 7, 0}})
}

func TestTheColumnsOfAWallProfileAreOfTwoKinds(t *testing.T) {
	d := open(t)
	s := series([]string{"__name__", "wall", "service_name", "web"}, nodejs(1, 10, 100))
	id := profile.NewID()
	s.Samples[0].ID = id.String()
	if err := push(t, d, s); err != nil {
		t.Fatal(err)
	}
	want := `process_cpu{service_name="web"}[{cpu nanoseconds}][100]` + "\n" + `wall{service_name="web"}[{sample count} {wall nanoseconds}][1 10]`
	if got := kinds(t, d); got != want {
		t.Errorf("stored\n%s\nwant\n%s", got, want)
	}
	for _, r := range d.Rows(t) {
		if r.ID != id || len(r.Names) != map[string]int{"wall": 2, "process_cpu": 1}[r.Kind.Name] {
			t.Errorf("row %+v", r)
		}
	}
	if err := ingestOne(t, d, nodejs(2, 20, 200), "name=web"); err != nil {
		t.Error(err)
	}
	if got := kinds(t, d); !strings.Contains(got, `[{cpu nanoseconds}][200]`) || !strings.Contains(got, `[{sample count} {wall nanoseconds}][2 20]`) {
		t.Errorf("ingested\n%s", got)
	}
}

// ingestOne posts a profile to /ingest.
func ingestOne(t testing.TB, d *door, body []byte, query string) error {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, "/ingest?format=pprof&"+query, strings.NewReader(string(body)))
	w := httptest.NewRecorder()
	d.Ingest().ServeHTTP(w, r.WithContext(acme(t.Context())))
	if w.Code != http.StatusOK {
		return fmt.Errorf("status %d: %s", w.Code, w.Body)
	}
	return nil
}

// A profile of which one half cannot be stored is not acknowledged.
func TestBothKindsMustBeStored(t *testing.T) {
	for fail := range 2 {
		calls, waits := 0, 0
		w := writerFunc(func(context.Context, labels.Labels) (func(context.Context) error, error) {
			calls++
			err := error(nil)
			if calls == fail+1 {
				err = connect.NewError(connect.CodeUnavailable, errors.New("down"))
			}
			return func(context.Context) error { waits++; return err }, nil
		})
		d := over(t, w, prometheus.NewRegistry())
		wantError(t, push(t, d, series([]string{"__name__", "wall", "service_name", "web"}, nodejs(1, 1, 1))), connect.CodeUnavailable, "down")
		if calls != 2 || waits != 2 {
			t.Errorf("%d appends, %d waited for", calls, waits)
		}
	}
}

func TestRulesDropWhatATenantDoesNotWant(t *testing.T) {
	d := ruled(t, `{series: [{source_labels: [pod], regex: test, action: drop}], sample_types: [{source_labels: [__type__], regex: wall, action: drop}, {source_labels: [__type__], regex: sample, target_label: __type__, replacement: samples}]}`)
	cpu := []string{"__name__", "process_cpu", "service_name", "web"}
	err := push(t, d,
		series(append(cpu, "pod", "test"), small(1), small(2)),
		series(append(cpu, "pod", "a"), nodejs(1, 10, 100), Pprof(now.UnixNano(), []string{"wall:nanoseconds"}, Sample{Stack: "main", Values: []int64{5}})))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := kinds(t, d), `process_cpu{pod="a", service_name="web"}[{samples count} {cpu nanoseconds}][1 100]`; got != want {
		t.Errorf("stored\n%s\nwant\n%s", got, want)
	}
	for _, r := range d.Rows(t) {
		if len(r.Names) != 1 {
			t.Errorf("stacks without a value are stored: %v", r.Names)
		}
	}
	wantMetric(t, d, "kiln_discarded_profiles_total", "dropped_by_relabel_rules", 3)
	if err := ingestOne(t, d, small(1), "name=web{pod=test}"); err != nil {
		t.Errorf("a dropped profile is not a failure: %v", err)
	}
	wantMetric(t, d, "kiln_discarded_profiles_total", "dropped_by_relabel_rules", 4)
	// The rules of one tenant are not another's.
	_, err = d.Push(tenant.NewContext(t.Context(), "globex"), connect.NewRequest(&pushv1.PushRequest{Series: []*pushv1.RawProfileSeries{series(append(cpu, "pod", "test"), small(3))}}))
	if err != nil || !slices.Contains(values(t, d), 3) {
		t.Errorf("another tenant: %v, stored %v", err, values(t, d))
	}
}

func TestLimitsHoldForWhatRulesMakeOfLabels(t *testing.T) {
	d := ruled(t, `
series:
  - {action: labeldrop, regex: 'tmp_.*'}
  - {source_labels: [grow], regex: (.+), target_label: grown, replacement: $1$1}
  - {source_labels: [colon], regex: (.+), target_label: __name__, replacement: 'a:b'}
  - {source_labels: [nameless], regex: .+, target_label: __name__, replacement: ''}
  - {source_labels: [serviceless], regex: .+, target_label: service_name, replacement: ''}
sample_types:
  - {source_labels: [twice, __type__], regex: 'y;.*', target_label: __type__, replacement: same}
  - {source_labels: [twice, __unit__], regex: 'y;.*', target_label: __unit__, replacement: same}
`)
	many := checkout("tmp_long", strings.Repeat("x", 3000))
	for i := range 40 {
		many = append(many, fmt.Sprint("tmp_", i), "x")
	}
	if err := push(t, d, series(many, small(1)), series(checkout("serviceless", "y"), small(2))); err != nil {
		t.Fatal(err)
	}
	want := `process_cpu{service_name="checkout"}[{cpu nanoseconds}][1]` + "\n" + `process_cpu{service_name="unknown_service", serviceless="y"}[{cpu nanoseconds}][2]`
	if got := kinds(t, d); got != want {
		t.Errorf("stored\n%s\nwant\n%s", got, want)
	}
	for says, labels := range map[string][]string{
		`value of label "grown" has 3000 bytes`: checkout("grow", strings.Repeat("x", 1500)),
		"contains a colon":                      checkout("colon", "y"),
		"label __name__ is missing":             checkout("nameless", "y"),
		"sample types 0 and 1 are the same":     checkout("twice", "y"),
		"labels of 140":                         checkout("tmp_", strings.Repeat("x", 140_000)),
	} {
		wantError(t, push(t, d, series(labels, nodejs(1, 2, 3))), connect.CodeInvalidArgument, says)
	}
}

// What a client notes on a series of its way decides neither the shard nor how many labels there are.
func TestNotesAreNoLabels(t *testing.T) {
	d := open(t, func(l *tenant.Limits) { l.MaxLabels = 3 })
	for i := range 20 {
		if err := push(t, d, series([]string{
			"__name__", "godeltaprof_memory", "__delta__", "true", "__session_id__", fmt.Sprint(i), "service_name", "web", "pod", "a",
		}, small(int64(i+1)))); err != nil {
			t.Fatal(err)
		}
	}
	shards := map[uint32]bool{}
	for _, m := range d.Index.Entries() {
		shards[m.GetShard()] = true
	}
	if got := kinds(t, d); len(shards) != 1 || strings.Count(got, `memory{pod="a", service_name="web"}`) != 20 {
		t.Errorf("%d shards, stored\n%s", len(shards), got)
	}
	if all := values(t, d); all[0] != 1 || all[19] != 20 {
		t.Errorf("values %d: differences were taken of differences", all)
	}
}

func TestCumulativeProfilesThroughTheDoor(t *testing.T) {
	d := open(t)
	heap := func(at time.Duration, allocated int64, delta string) {
		t.Helper()
		body := Pprof(now.Add(at).UnixNano(), []string{"alloc_space:bytes", "inuse_space:bytes"}, Sample{Stack: "main", Values: []int64{allocated, 1}})
		if err := push(t, d, series([]string{"__name__", "memory", "service_name", "web", "__delta__", delta}, body)); err != nil {
			t.Fatal(err)
		}
	}
	heap(-30*time.Second, 1000, "true")
	heap(-15*time.Second, 1007, "true")
	heap(0, 1011, "true")
	heap(0, 5000, "false")
	types := `memory{service_name="web"}[{alloc_space bytes} {inuse_space bytes}]`
	if got, want := kinds(t, d), types+"[0 1]\n"+types+"[4 1]\n"+types+"[5000 1]\n"+types+"[7 1]"; got != want {
		t.Errorf("stored\n%s\nwant\n%s", got, want)
	}
}

// Every client protocol says the same, and annotations nothing.
func TestPushInEveryProtocol(t *testing.T) {
	d := open(t)
	mux := http.NewServeMux()
	mux.Handle(pushv1connect.NewPusherServiceHandler(d))
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mux.ServeHTTP(w, r.WithContext(acme(r.Context())))
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	for i, options := range [][]connect.ClientOption{
		{}, {connect.WithProtoJSON()}, {connect.WithSendGzip()}, {connect.WithProtoJSON(), connect.WithSendGzip()}, {connect.WithGRPC()}, {connect.WithGRPC(), connect.WithSendGzip()}, {connect.WithGRPCWeb()},
	} {
		client := pushv1connect.NewPusherServiceClient(server.Client(), server.URL, options...)
		s := series(checkout(), small(int64(10*i+1)), gzipped(small(int64(10*i+2))))
		s.Annotations = []*typesv1.ProfileAnnotation{{Key: "a", Value: "b"}, {Key: "a", Value: "c"}}
		bad := series(checkout(), []byte("no profile"), []byte{6<<3 | 2, 0})
		if _, err := client.Push(t.Context(), connect.NewRequest(&pushv1.PushRequest{Series: []*pushv1.RawProfileSeries{s}})); err != nil {
			t.Errorf("%d: %v", i, err)
		}
		_, err := client.Push(t.Context(), connect.NewRequest(&pushv1.PushRequest{Series: []*pushv1.RawProfileSeries{bad, series(checkout(), small(int64(10*i+3)))}}))
		wantError(t, err, connect.CodeInvalidArgument, "series 0 (service_name=\"checkout\") profile 0: malformed", "profile 1: malformed profile: sample_type: there is none")
	}
	var want []int64
	for i := range int64(7) {
		want = append(want, 10*i+1, 10*i+2, 10*i+3)
	}
	if got := values(t, d); !slices.Equal(got, want) {
		t.Errorf("stored %d, want %d", got, want)
	}
}
