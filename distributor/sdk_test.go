package distributor_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"flag"
	"fmt"
	"io"
	"maps"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	pushv1 "github.com/grafana/pyroscope/api/gen/proto/go/push/v1"
	"github.com/grafana/pyroscope/api/gen/proto/go/push/v1/pushv1connect"
	"google.golang.org/protobuf/proto"

	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/pprof"
)

var update = flag.Bool("update", false, "write testdata/sdk anew")

// frame is a function on a line of a file, as text: name@file:line.
type frame struct {
	name, file string
	line       int64
}

// capture is a pprof of one stack, leaf first, with a value for each type (name:unit). The period type is the last.
func capture(types []string, values []int64, stack ...frame) []byte {
	b := profile.NewBuilder()
	for _, t := range types {
		name, unit, _ := strings.Cut(t, ":")
		b.AddSampleType(name, unit)
		b.SetPeriod(name, unit, 10_000_000)
	}
	var locations []uint32
	for _, f := range stack {
		locations = append(locations, b.Location(b.Function(b.String([]byte(f.name)), b.String([]byte(f.file))), f.line))
	}
	if err := b.Add(locations, nil, values...); err != nil {
		panic(err)
	}
	var p profile.Profile
	p.Reset()
	b.Fill(&p)
	p.TimeNanos = now.UnixNano()
	return pprof.Append(nil, &p)
}

func zip(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(b)
	_ = w.Close()
	return out.Bytes()
}

func unzip(t *testing.T, b []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if b, err = io.ReadAll(r); err != nil {
		t.Fatal(err)
	}
	return b
}

// part is a part of a form: its name, file name, content type, and content.
type part struct {
	name, file, contentType string
	content                 []byte
}

// sendTo is a request to /ingest. With parts its body is a form of them.
func sendTo(query string, header http.Header, body []byte, parts ...part) *http.Request {
	if len(parts) > 0 {
		var b bytes.Buffer
		w := multipart.NewWriter(&b)
		_ = w.SetBoundary("7dbf1b2a3c4d5e6f7a8b9c0d1e2f3a4b")
		for _, p := range parts {
			h := textproto.MIMEHeader{"Content-Disposition": {fmt.Sprintf("form-data; name=%q; filename=%q", p.name, p.file)}}
			if p.contentType != "" {
				h.Set("Content-Type", p.contentType)
			}
			f, _ := w.CreatePart(h)
			_, _ = f.Write(p.content)
		}
		_ = w.Close()
		header.Set("Content-Type", w.FormDataContentType())
		body = b.Bytes()
	}
	r := httptest.NewRequest(http.MethodPost, "/ingest?"+query, bytes.NewReader(body))
	r.Host = "kiln:4040"
	maps.Copy(r.Header, header)
	return r
}

// query joins parameters in the order in which the SDK does; names and values alternate.
func query(params ...string) string {
	var all []string
	for i := 0; i < len(params); i += 2 {
		all = append(all, params[i]+"="+url.QueryEscape(params[i+1]))
	}
	return strings.Join(all, "&")
}

// chunked is a request whose length is not known beforehand.
func chunked(r *http.Request) *http.Request {
	r.ContentLength, r.TransferEncoding = -1, []string{"chunked"}
	return r
}

func alloyPush(push *pushv1.PushRequest) *http.Request {
	for i, s := range push.Series {
		for _, sample := range s.Samples {
			sample.ID = fmt.Sprintf("0198b6a1-7d1c-7b4e-9a3f-%012d", i)
		}
	}
	body, err := proto.Marshal(push)
	if err != nil {
		panic(err)
	}
	r := sendTo("", http.Header{"Content-Type": {"application/proto"}, "Connect-Protocol-Version": {"1"}, "User-Agent": {"Alloy/v1.11.0 connect-go/1.18.1 (go1.25)"}, "Accept-Encoding": {"gzip"}}, body)
	r.URL = &url.URL{Path: pushPath}
	return r
}

func agent(name string) http.Header { return http.Header{"User-Agent": {name}} }

// sdk is a request of an SDK and what is to be stored of it: for each profile type the stacks, root first, and values.
type sdk struct {
	request *http.Request
	want    map[string]string
	labels  labels.Labels
	// at is the time of what is stored; zero: that of the captures.
	at time.Time
}

// requests are those of all SDKs.
func requests(t *testing.T) map[string]sdk {
	from, until := now.Add(-10*time.Second), now
	seconds := func(t time.Time) string { return fmt.Sprint(t.Unix()) }
	nanos := func(t time.Time) string { return fmt.Sprint(t.UnixNano()) }
	python := capture([]string{"cpu:nanoseconds"}, []int64{70}, frame{"work", "jobs/run.py", 12}, frame{"work", "jobs/run.py", 30}, frame{"<module>", "/usr/lib/python3/threading.py", 5})
	ruby := capture([]string{"cpu:nanoseconds"}, []int64{70}, frame{"call", "/srv/app.rb", 9}, frame{"main", "boot.rb", 1})
	dotnet := `{"alloc-samples":{"units":"objects","aggregation":"sum","display-name":"alloc_objects","sampled":false},"alloc-size":{"units":"bytes","aggregation":"sum","display-name":"alloc_space","sampled":false}}`
	locks := `{"lock-count":{"units":"lock_samples","display-name":"mutex_count"},"lock-time":{"units":"lock_nanoseconds","display-name":"mutex_duration"}}`
	goParams := []string{"aggregationType", "sum", "from", nanos(from), "name", "shop{__session_id__=294b1ad6a2a9d1c5,region=eu}", "sampleRate", "100", "spyName", "gospy", "units", "samples", "until", nanos(until)}
	return map[string]sdk{
		// pyroscope-go: a form, the profile gzipped by runtime/pprof, times in nanoseconds.
		"go": {
			request: sendTo(query(goParams...), agent("Go-http-client/1.1"), nil, part{"profile", "profile.pprof", "application/octet-stream", zip(capture([]string{"samples:count", "cpu:nanoseconds"}, []int64{7, 70}, frame{"main.work", "/src/main.go", 3}))},
				part{"sample_type_config", "sample_type_config.json", "application/octet-stream", []byte(`{"samples":{"units":"samples","display-name":"cpu"}}` + "\n")}),
			want:   map[string]string{"process_cpu:samples:count:cpu:nanoseconds": "main.work 7", "process_cpu:cpu:nanoseconds:cpu:nanoseconds": "main.work 70"},
			labels: labels.FromStrings("pyroscope_spy", "gospy", "region", "eu", "service_name", "shop"),
		},
		// Grafana Alloy in front of a Go program: the query and the headers as they came, the body passed on as it comes, without a length.
		"alloy-ingest": {
			request: chunked(sendTo(query(goParams...), http.Header{"User-Agent": {"Alloy/v1.11.0"}, "Accept-Encoding": {"gzip"}}, nil,
				part{"profile", "profile.pprof", "application/octet-stream", zip(capture([]string{"samples:count", "cpu:nanoseconds"}, []int64{7, 70}, frame{"main.work", "/src/main.go", 3}))})),
			want:   map[string]string{"process_cpu:samples:count:cpu:nanoseconds": "main.work 7", "process_cpu:cpu:nanoseconds:cpu:nanoseconds": "main.work 70"},
			labels: labels.FromStrings("pyroscope_spy", "gospy", "region", "eu", "service_name", "shop"),
		},
		// Grafana Alloy that has scraped a program: Push over Connect, with an id of the profile and the difference of a heap, as it says.
		"alloy-push": {
			request: alloyPush(&pushv1.PushRequest{Series: []*pushv1.RawProfileSeries{
				series([]string{"__delta__", "false", "__name__", "memory", "instance", "10.0.0.7:6060", "job", "shop", "service_name", "shop"},
					zip(capture([]string{"alloc_space:bytes", "inuse_space:bytes"}, []int64{7, 70}, frame{"main.work", "/src/main.go", 3}))),
				series([]string{"__name__", "process_cpu", "instance", "10.0.0.7:6060", "job", "shop", "service_name", "shop"},
					zip(capture([]string{"cpu:nanoseconds"}, []int64{700}, frame{"main.work", "/src/main.go", 3}))),
			}}),
			want: map[string]string{"memory:alloc_space:bytes:inuse_space:bytes": "main.work 7", "memory:inuse_space:bytes:inuse_space:bytes": "main.work 70",
				"process_cpu:cpu:nanoseconds:cpu:nanoseconds": "main.work 700"},
			labels: labels.FromStrings("job", "shop", "service_name", "shop"),
		},
		// pyroscope-java: format=jfr, a form with the recording and the labels of its contexts, both gzipped, times in seconds.
		"java": {
			request: sendTo(query("name", "shop{region=eu}", "units", "samples", "aggregationType", "sum", "sampleRate", "100", "from", seconds(from), "until", seconds(until), "spyName", "javaspy", "format", "jfr"),
				agent("okhttp/4.12.0"), nil, part{"jfr", "jfr", "", recorded(t, "new_spancontext.jfr.gz")}, part{"labels", "labels", "application/x-protobuf", recorded(t, "new_spancontext.labels.gz")}),
			want:   map[string]string{"process_cpu:cpu:nanoseconds:cpu:nanoseconds": ""},
			labels: labels.FromStrings("jfr_event", "ctimer", "pyroscope_spy", "javaspy", "region", "eu", "service_name", "shop"),
			at:     from,
		},
		// pyroscope-io for Python, an agent written in Rust: format=pprof, the body is the profile. Absolute paths stay out of names.
		"python": {
			request: sendTo(query("name", "shop{region=eu}", "from", seconds(from), "until", seconds(until), "format", "pprof", "sampleRate", "100", "spyName", "pyspy"),
				http.Header{"Content-Type": {"binary/octet-stream"}, "Content-Encoding": {"gzip"}, "User-Agent": {"pyroscope-rs/0.5"}}, zip(python)),
			want:   map[string]string{"process_cpu:cpu:nanoseconds:cpu:nanoseconds": "<module>;jobs/run.py:30 - work;jobs/run.py:12 - work 70"},
			labels: labels.FromStrings("pyroscope_spy", "pyspy", "region", "eu", "service_name", "shop"),
		},
		// The same agent for Ruby, where all paths are put in front.
		"ruby": {
			request: sendTo(query("name", "shop{region=eu}", "from", seconds(from), "until", seconds(until), "format", "pprof", "sampleRate", "100", "spyName", "rbspy"),
				http.Header{"Content-Type": {"binary/octet-stream"}}, ruby),
			want:   map[string]string{"process_cpu:cpu:nanoseconds:cpu:nanoseconds": "boot.rb:1 - main;/srv/app.rb:9 - call 70"},
			labels: labels.FromStrings("pyroscope_spy", "rbspy", "region", "eu", "service_name", "shop"),
		},
		// pyroscope-rs until 0.5: format=folded, one line for a stack.
		"rust-folded": {
			request: sendTo(query("name", "shop.cpu{region=eu}", "from", seconds(from), "until", seconds(until), "format", "folded", "sampleRate", "100", "spyName", "pyroscope-rs"),
				http.Header{"Content-Type": {"binary/octet-stream"}}, []byte("main;work 7\nmain 1\n")),
			want:   map[string]string{"process_cpu:cpu:nanoseconds:cpu:nanoseconds": "main 10000000,main;work 70000000"},
			labels: labels.FromStrings("pyroscope_spy", "pyroscope-rs", "region", "eu", "service_name", "shop"),
			at:     from,
		},
		// pyroscope-rs since then.
		"rust": {
			request: sendTo(query("name", "shop{region=eu}", "from", seconds(from), "until", seconds(until), "format", "pprof", "sampleRate", "100", "spyName", "pyroscope-rs"),
				http.Header{"Content-Type": {"binary/octet-stream"}, "Content-Encoding": {"gzip"}}, zip(capture([]string{"cpu:nanoseconds"}, []int64{70}, frame{"shop::work", "src/main.rs", 3}))),
			want:   map[string]string{"process_cpu:cpu:nanoseconds:cpu:nanoseconds": "shop::work 70"},
			labels: labels.FromStrings("pyroscope_spy", "pyroscope-rs", "region", "eu", "service_name", "shop"),
		},
		// @pyroscope/nodejs: a form with the gzipped profile, times in milliseconds.
		"node-wall": {
			request: sendTo(query("from", fmt.Sprint(from.UnixMilli()), "name", "shop{region=eu}", "spyName", "nodespy", "until", fmt.Sprint(until.UnixMilli()), "sampleRate", "100"),
				agent("node"), nil, part{"profile", "profile", "text/json", zip(capture([]string{"samples:count", "wall:nanoseconds"}, []int64{7, 70}, frame{"work:index.js", "index.js", 3}))}),
			want:   map[string]string{"wall:samples:count:wall:nanoseconds": "work:index.js 7", "wall:wall:nanoseconds:wall:nanoseconds": "work:index.js 70"},
			labels: labels.FromStrings("pyroscope_spy", "nodespy", "region", "eu", "service_name", "shop"),
		},
		"node-heap": {
			request: sendTo(query("from", fmt.Sprint(from.UnixMilli()), "name", "shop{region=eu}", "spyName", "nodespy", "until", fmt.Sprint(until.UnixMilli()), "sampleRate", "100"),
				agent("node"), nil, part{"profile", "profile", "text/json", zip(capture([]string{"objects:count", "space:bytes"}, []int64{7, 70}, frame{"work:index.js", "index.js", 3}))}),
			want:   map[string]string{"memory:objects:count:space:bytes": "work:index.js 7", "memory:space:bytes:space:bytes": "work:index.js 70"},
			labels: labels.FromStrings("pyroscope_spy", "nodespy", "region", "eu", "service_name", "shop"),
		},
		// pyroscope-dotnet: hyphens in the names of sample types, and underscores in what they are displayed as.
		"dotnet-alloc": {
			request: sendTo(query("name", "shop{region=eu}", "from", seconds(from), "until", seconds(until), "spyName", "dotnetspy"),
				agent("dd-trace-dotnet"), nil, part{"profile", "profile.pprof", "", capture([]string{"alloc-samples:count", "alloc-size:bytes"}, []int64{7, 70}, frame{"Shop!Work", "", 0})},
				part{"sample_type_config", "sample_type_config.json", "", []byte(dotnet)}),
			want:   map[string]string{"memory:alloc_samples:count:alloc-size:bytes": "Shop!Work 7", "memory:alloc_size:bytes:alloc-size:bytes": "Shop!Work 70"},
			labels: labels.FromStrings("pyroscope_spy", "dotnetspy", "region", "eu", "service_name", "shop"),
		},
		// The same without a name for itself.
		"dotnet-locks": {
			request: sendTo(query("name", "shop{region=eu}", "from", seconds(from), "until", seconds(until)),
				agent("dd-trace-dotnet"), nil, part{"profile", "profile.pprof", "", capture([]string{"lock-count:count", "lock-time:nanoseconds"}, []int64{7, 70}, frame{"Shop!Work", "", 0})},
				part{"sample_type_config", "sample_type_config.json", "", []byte(locks)}),
			want:   map[string]string{"mutex:lock_count:count:lock-time:nanoseconds": "Shop!Work 7", "mutex:lock_time:nanoseconds:lock-time:nanoseconds": "Shop!Work 70"},
			labels: labels.FromStrings("region", "eu", "service_name", "shop"),
		},
	}
}

func recorded(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("ingest", "jfr", "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// kept are the labels that tests look at.
var kept = []string{"job", "pyroscope_spy", "region", "service_name", "jfr_event", "app_name", "__session_id__", "__delta__"}

func TestEverySDKCanUpload(t *testing.T) {
	for name, c := range requests(t) {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join("testdata", "sdk", name+".http")
			if *update {
				var b bytes.Buffer
				if err := c.request.Write(&b); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			recorded, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(recorded)))
			if err != nil {
				t.Fatal(err)
			}
			d, w := open(t), httptest.NewRecorder()
			mux := http.NewServeMux()
			mux.Handle("/ingest", d.Guard(d.Ingest()))
			mux.Handle(d.RPC(func(options ...connect.HandlerOption) (string, http.Handler) {
				return pushv1connect.NewPusherServiceHandler(d, options...)
			}))
			mux.ServeHTTP(w, r.WithContext(acme(t.Context())))
			answer, _ := io.ReadAll(w.Body)
			if w.Header().Get("Content-Encoding") == "gzip" {
				answer = unzip(t, answer)
			}
			if w.Code != http.StatusOK || len(answer) > 0 {
				t.Fatalf("answer %d %s", w.Code, answer)
			}
			got := map[string]string{}
			for _, row := range d.Rows(t) {
				if ls := row.Labels.Project(kept); labels.Compare(ls, c.labels) != 0 {
					t.Errorf("labels %s, want %s", ls, c.labels)
				}
				at := c.at
				if at.IsZero() {
					at = now
				}
				if row.Time != at.UnixNano() {
					t.Errorf("time %s, want %s", time.Unix(0, row.Time).UTC(), at)
				}
				for i := range row.Kind.SampleTypes {
					var stacks []string
					for _, stack := range slices.Sorted(maps.Keys(row.Names)) {
						stacks = append(stacks, fmt.Sprint(stack, " ", row.Names[stack][i]))
					}
					got[row.Kind.Type(i).String()] = strings.Join(stacks, ",")
				}
			}
			for typ, want := range c.want {
				if has, ok := got[typ]; !ok || want != "" && has != want {
					t.Errorf("%s is stored as %q, want %q", typ, has, want)
				}
			}
			if len(got) != len(c.want) {
				t.Errorf("types %v, want %d", slices.Collect(maps.Keys(got)), len(c.want))
			}
		})
	}
}
