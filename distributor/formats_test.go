package distributor_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/objstore/objstoretest"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/pprof"
	. "github.com/kilndb/kiln/segmentwriter/segmentwritertest"
	"github.com/kilndb/kiln/tenant"
)

// ingest sends a body to /ingest as tenant acme.
func ingest(t testing.TB, d *door, query, contentType string, body []byte) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, "/ingest?"+query, bytes.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	w := httptest.NewRecorder()
	d.Ingest().ServeHTTP(w, r.WithContext(acme(t.Context())))
	return w
}

// node writes a node of a tree or a trie.
func node(name string, value, children uint64, below ...[]byte) []byte {
	b := append(binary.AppendUvarint(nil, uint64(len(name))), name...)
	return append(binary.AppendUvarint(binary.AppendUvarint(b, value), children), slices.Concat(below...)...)
}

// TestTheSameStacksAreStoredEqual sends the same stacks in every format.
func TestTheSameStacksAreStoredEqual(t *testing.T) {
	b := profile.NewBuilder()
	b.AddSampleType("cpu", "nanoseconds")
	b.SetPeriod("cpu", "nanoseconds", 10_000_000)
	main, work, rest := b.Frame([]byte("main")), b.Frame([]byte("work")), b.Frame([]byte("rest"))
	for _, s := range []struct {
		stack []uint32
		n     int64
	}{{[]uint32{work, main}, 12}, {[]uint32{main}, 3}, {[]uint32{work, rest, main}, 1}, {nil, 2}} {
		if err := b.Add(s.stack, nil, s.n*10_000_000); err != nil {
			t.Fatal(err)
		}
	}
	var p profile.Profile
	p.Reset()
	b.Fill(&p)
	p.TimeNanos, p.DurationNanos = now.Add(-10*time.Second).UnixNano(), (10 * time.Second).Nanoseconds()
	sampled := `{"$schema":"https://www.speedscope.app/file-format-schema.json","shared":{"frames":[{"name":"rest"},{"name":"main"},{"name":"work"}]},
		"profiles":[{"type":"sampled","unit":"none","samples":[[1,2],[1],[1,0,2],[]],"weights":[12,3,1,2]}]}`
	evented := `{"$schema":"https://www.speedscope.app/file-format-schema.json","shared":{"frames":[{"name":"rest"},{"name":"main"},{"name":"work"}]},
		"profiles":[{"type":"sampled","unit":"none","samples":[[]],"weights":[2]},{"type":"evented","unit":"none","startValue":0,"endValue":16,"events":[
		{"type":"O","frame":1,"at":0},{"type":"O","frame":2,"at":3},{"type":"C","frame":2,"at":15},{"type":"O","frame":0,"at":15},{"type":"O","frame":2,"at":15},
		{"type":"C","frame":2,"at":16},{"type":"C","frame":0,"at":16},{"type":"C","frame":1,"at":16}]}]}`
	var rows []Row
	for format, body := range map[string][]byte{
		"pprof":       pprof.Append(nil, &p),
		"groups":      []byte("main;work 12\nmain 3\nmain;rest;work 1\n; 2\n"),
		"lines":       []byte(strings.Repeat("main;work\n", 12) + strings.Repeat("main\n", 3) + "main;rest;work\n;\n;\n"),
		"tree":        node("", 2, 1, node("main", 3, 2, node("work", 12, 0), node("rest", 0, 1, node("work", 1, 0)))),
		"trie":        node("", 2, 1, node("main", 3, 1, node(";", 0, 2, node("work", 12, 0), node("rest;work", 1, 0)))),
		"speedscope":  []byte(sampled),
		"speedscope2": []byte(evented),
	} {
		d := open(t)
		query := fmt.Sprintf("name=checkout{region=eu}&spyName=gospy&from=%d&until=%d&format=%s", now.Add(-10*time.Second).Unix(), now.Unix(), strings.TrimSuffix(format, "2"))
		if w := ingest(t, d, query, "", body); w.Code != http.StatusOK {
			t.Fatalf("%s: answer %d %s", format, w.Code, w.Body)
		}
		got := d.Rows(t)
		if len(got) != 1 {
			t.Fatalf("%s: %d rows", format, len(got))
		}
		got[0].ID = profile.ID{}
		rows = append(rows, got[0])
		if !reflect.DeepEqual(rows[0], got[0]) {
			t.Errorf("%s is stored as\n%+v, another as\n%+v", format, got[0], rows[0])
		}
	}
	want := map[string][]int64{"main;work": {120_000_000}, "main": {30_000_000}, "main;rest;work": {10_000_000}, "": {20_000_000}}
	if !reflect.DeepEqual(rows[0].Names, want) || rows[0].Kind.Type(0).String() != "process_cpu:cpu:nanoseconds:cpu:nanoseconds" {
		t.Errorf("stored are %s %v, want %v", rows[0].Kind.Type(0), rows[0].Names, want)
	}
}

func TestProfilesOfOneRequestShareTheirFate(t *testing.T) {
	body := jfrBody(t)
	d := open(t)
	if w := ingest(t, d, "name=shop&format=jfr&spyName=javaspy", "", body); w.Code != http.StatusOK {
		t.Fatalf("answer %d %s", w.Code, w.Body)
	}
	kinds := map[string]int{}
	for _, r := range d.Rows(t) {
		kinds[r.Kind.Name]++
	}
	if want := map[string]int{"process_cpu": 1, "memory": 3, "mutex": 1, "block": 1}; !maps.Equal(kinds, want) {
		t.Errorf("kinds %v, want %v", kinds, want)
	}

	d = open(t)
	d.Bucket.Fail(objstoretest.BeforePut, errors.New("secret endpoint"), objstoretest.Always)
	w := ingest(t, d, "name=shop&format=jfr", "", body)
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" || strings.Contains(w.Body.String(), "secret") {
		t.Errorf("an outage is answered with %d %v %s", w.Code, w.Header(), w.Body)
	}
	if !strings.Contains(w.Body.String(), "mutex (contentions, delay): ") || !strings.Contains(w.Body.String(), "process_cpu (cpu): ") {
		t.Errorf("the answer does not say which profiles are lost: %s", w.Body)
	}
	if n := len(d.Rows(t)); n != 0 {
		t.Errorf("%d rows", n)
	}
}

// patient is a writer whose profiles are durable once so many of them came.
type patient struct {
	missing sync.WaitGroup
}

func (p *patient) Append(context.Context, tenant.ID, uint32, labels.Labels, profile.ID, *profile.Profile) (func(context.Context) error, error) {
	p.missing.Done()
	return func(context.Context) error { p.missing.Wait(); return nil }, nil
}

func TestProfilesOfOneRequestWaitTogether(t *testing.T) {
	var w patient
	w.missing.Add(6)
	d := &door{Distributor: over(t, &w, prometheus.NewRegistry())}
	if w := ingest(t, d, "name=shop&format=jfr", "", jfrBody(t)); w.Code != http.StatusOK { // would never come
		t.Errorf("answer %d %s", w.Code, w.Body)
	}
}

func jfrBody(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("ingest", "jfr", "testdata", "busy.jfr.gz"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestLimitsHoldForEveryFormat sends more than a tenant may.
func TestLimitsHoldForEveryFormat(t *testing.T) {
	var many strings.Builder
	for i := range 200 {
		fmt.Fprintf(&many, "f%d 1\n", i)
	}
	d := open(t, func(l *tenant.Limits) { l.MaxSamples, l.MaxProfileBytes, l.MaxLabelValue = 100, 10_000, 50 })
	for _, c := range []struct{ query, body, says, reason string }{
		{"name=a", many.String(), "more than 100 samples", "samples_limit"},
		{"name=a", strings.Repeat("x", 10_000) + " 1", "more than 10000 bytes", "profile_size_limit"},
		{"name=a", "\xff\xfe 1", "is not UTF-8", "malformed_profile"},
		{"name=a{region=" + strings.Repeat("x", 51) + "}", "main 1", "limit of 50", "label_value_too_long"},
		{"name=a&from=now%2B1d&until=now%2B2d", "main 1", "ahead of ours", "not_in_ingestion_window"},
	} {
		w := ingest(t, d, c.query, "", []byte(c.body))
		if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), c.says) || !strings.Contains(w.Body.String(), `"code":"invalid_argument"`) {
			t.Errorf("%s: answer %d %s, want %q", c.query, w.Code, w.Body, c.says)
		}
		wantMetric(t, d, "kiln_discarded_profiles_total", c.reason, 1)
	}
}
