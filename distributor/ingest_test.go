package distributor_test

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/grafana/pyroscope-go/upstream"
	"github.com/grafana/pyroscope-go/upstream/remote"

	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/objstore/objstoretest"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/oracle"
	. "github.com/kilndb/kiln/segmentwriter/segmentwritertest"
	"github.com/kilndb/kiln/tenant"
)

// complaints remembers what the client library complains about.
type complaints struct {
	mu  sync.Mutex
	all []string
}

func (c *complaints) Infof(string, ...any)  {}
func (c *complaints) Debugf(string, ...any) {}
func (c *complaints) Errorf(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, fmt.Sprintf(format, args...))
}

// serveIngest serves /ingest for tenants that name themselves in the header.
func serveIngest(t *testing.T, d *door) *httptest.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("/ingest", func(w http.ResponseWriter, r *http.Request) {
		if id, err := tenant.Parse(r.Header.Get(tenant.Header)); err == nil {
			r = r.WithContext(tenant.NewContext(r.Context(), id))
		}
		d.Ingest().ServeHTTP(w, r)
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

// upload sends profiles with the upload code of the Go SDK and returns its complaints.
func upload(t *testing.T, s *httptest.Server, id string, jobs ...*upstream.UploadJob) []string {
	t.Helper()
	var log complaints
	client, err := remote.NewRemote(remote.Config{
		Address: s.URL, TenantID: id, Threads: 2, Timeout: 30 * time.Second, Logger: &log, HTTPClient: s.Client(),
	})
	if err != nil {
		t.Fatal(err)
	}
	client.Start()
	for _, j := range jobs {
		client.Upload(j)
	}
	client.Flush()
	client.Stop()
	return log.all
}

// job is an upload as the SDK makes it, of a corpus file.
func job(name, file string, config map[string]*upstream.SampleType) *upstream.UploadJob {
	return &upstream.UploadJob{
		Name: name, StartTime: now.Add(-10 * time.Second), EndTime: now, SpyName: "gospy", SampleRate: 100,
		Units: "samples", AggregationType: "sum", Format: upstream.FormatPprof,
		Profile: corpus.Get(file).Gzipped, SampleTypeConfig: config,
	}
}

func TestTheGoSDKUploadsWhatItIsAskedTo(t *testing.T) {
	d := open(t)
	s := serveIngest(t, d)
	const name = "checkout{__session_id__=294b1ad6a2a9d1c5,region=eu}"
	jobs := map[string]*upstream.UploadJob{
		"process_cpu": job(name, "api-gateway-cpu-0", nil),
		"memory": job(name, "api-gateway-heap-0", map[string]*upstream.SampleType{
			"alloc_objects": {Units: "objects"}, "alloc_space": {Units: "bytes"},
			"inuse_space": {Units: "bytes", Aggregation: "average"}, "inuse_objects": {Units: "objects", Aggregation: "average"}}),
		"mutex": job(name, "api-gateway-mutex-0", map[string]*upstream.SampleType{
			"contentions": {DisplayName: "mutex_count", Units: "lock_samples"}, "delay": {DisplayName: "mutex_duration", Units: "lock_nanoseconds"}}),
		"block": job(name, "api-gateway-block-0", map[string]*upstream.SampleType{
			"contentions": {DisplayName: "block_count", Units: "lock_samples"}, "delay": {DisplayName: "block_duration", Units: "lock_nanoseconds"}}),
		"goroutines": job(name, "api-gateway-goroutine-0", map[string]*upstream.SampleType{
			"goroutine": {DisplayName: "goroutines", Units: "goroutines", Aggregation: "average"}}),
	}
	if complaints := upload(t, s, "acme", slices.Collect(maps.Values(jobs))...); len(complaints) != 0 {
		t.Fatalf("the client complains: %q", complaints)
	}
	byKind := map[string][]Row{}
	for _, r := range d.Rows(t) {
		byKind[r.Kind.Name] = append(byKind[r.Kind.Name], r)
		want := labels.FromStrings("pyroscope_spy", "gospy", "region", "eu", "service_name", "checkout")
		if got := r.Labels.Project([]string{"pyroscope_spy", "region", "service_name", "__session_id__", "__delta__", "app_name"}); labels.Compare(got, want) != 0 {
			t.Errorf("%s has labels %s, want %s", r.Kind.Name, got, want)
		}
	}
	for kind, j := range jobs {
		parsed := oracle.Parse(j.Profile)
		for _, st := range parsed.SampleType {
			if got, want := Sum(byKind[kind], st.Type), oracle.Sum(st.Type, parsed).Locations; !maps.Equal(got, want) {
				t.Errorf("%s %s: %d stacks differ from the oracle's %d", kind, st.Type, len(got), len(want))
			}
		}
	}
	// As an agent that scrapes the same program names them.
	if got := byKind["memory"][0].Kind.Type(1).String(); got != "memory:alloc_space:bytes:space:bytes" {
		t.Errorf("type %s", got)
	}
}

func TestTheGoSDKIsToldWhatIsWrong(t *testing.T) {
	d := open(t)
	s := serveIngest(t, d)
	bad := job("checkout{}", "api-gateway-cpu-0", nil)
	bad.Profile = bad.Profile[:500]
	for id, says := range map[string]string{"acme": "(400)", "": "(401)"} {
		if complaints := upload(t, s, id, bad); len(complaints) != 1 || !strings.Contains(complaints[0], says) {
			t.Errorf("tenant %q: the client is told %q, want %s", id, complaints, says)
		}
	}
	wantMetric(t, d, "kiln_discarded_profiles_total", "malformed_profile", 1)
	d.Bucket.Fail(objstoretest.BeforePut, errors.New("secret endpoint"), objstoretest.Always)
	complaints := upload(t, s, "acme", job("checkout{}", "api-gateway-cpu-0", nil))
	if len(complaints) != 1 || !strings.Contains(complaints[0], "(503)") || strings.Contains(complaints[0], "secret") {
		t.Errorf("the client is told %q", complaints)
	}
	if n := len(d.Index.Entries()); n != 0 {
		t.Errorf("%d entries", n)
	}
}

func TestIngestGivesAProfileItsTime(t *testing.T) {
	d := open(t)
	for value, at := range map[int64]time.Time{1: {}, 2: time.Unix(5, 0), 3: now.Add(-time.Hour)} {
		r := httptest.NewRequest(http.MethodPost, "/ingest?name=a&format=pprof&from=now-1min", strings.NewReader(string(smallAt(at, value))))
		w := httptest.NewRecorder()
		d.Ingest().ServeHTTP(w, r.WithContext(acme(t.Context())))
		if w.Code != http.StatusOK {
			t.Fatalf("answer %d %s", w.Code, w.Body)
		}
	}
	times := map[int64]int64{}
	for _, r := range d.Rows(t) {
		times[r.Names["main"][0]] = r.Time
	}
	from := now.Add(-time.Minute).UnixNano()
	if want := map[int64]int64{1: from, 2: from, 3: now.Add(-time.Hour).UnixNano()}; !maps.Equal(times, want) {
		t.Errorf("times %v, want %v", times, want)
	}
}
