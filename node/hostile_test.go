package node_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"mime/multipart"
	"net/http"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	pushv1 "github.com/grafana/pyroscope/api/gen/proto/go/push/v1"
	typesv1 "github.com/grafana/pyroscope/api/gen/proto/go/types/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/kilndb/kiln/distributor"
	"github.com/kilndb/kiln/node"
	"github.com/kilndb/kiln/node/nodetest"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/oracle"
	"github.com/kilndb/kiln/tenant"
)

// A way is a door for profiles: how one travels in a body. A new door is a line in ways.
type way struct {
	name, path, contentType string
	// encoding is the header that says that the body is gzipped, and wrap puts a profile into a body; zip tells that its
	// door gzips within.
	encoding string
	wrap     func(profile []byte, zip bool) []byte
}

const pushPath = "/push.v1.PusherService/Push"

func ways() []way {
	return []way{
		{"push", pushPath, "application/proto", "Content-Encoding", whole(pushProto)},
		{"push JSON", pushPath, "application/json", "Content-Encoding", whole(pushJSON)},
		{"push gRPC", pushPath, "application/grpc+proto", "Grpc-Encoding", envelope(pushProto)},
		{"push gRPC-Web", pushPath, "application/grpc-web+proto", "Grpc-Encoding", envelope(pushProto)},
		{"ingest", "/ingest?name=hostile&format=pprof", "", "Content-Encoding", whole(bytes.Clone)},
		{"ingest form", "/ingest?name=hostile", "multipart/form-data; boundary=x", "Content-Encoding", whole(form)},
	}
}

func message(profile []byte) *pushv1.PushRequest {
	return &pushv1.PushRequest{Series: []*pushv1.RawProfileSeries{series("process_cpu", "hostile", profile)}}
}

func pushProto(profile []byte) []byte { return must(proto.Marshal(message(profile))) }

func pushJSON(profile []byte) []byte { return must(protojson.Marshal(message(profile))) }

func form(profile []byte) []byte {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	_ = w.SetBoundary("x")
	part := must(w.CreateFormFile("profile", "../../../../etc/passwd"))
	_, _ = part.Write(profile)
	_ = w.Close()
	return b.Bytes()
}

func whole(wrap func([]byte) []byte) func([]byte, bool) []byte {
	return func(profile []byte, zip bool) []byte {
		if zip {
			return gzipped(wrap(profile))
		}
		return wrap(profile)
	}
}

func envelope(wrap func([]byte) []byte) func([]byte, bool) []byte {
	return func(profile []byte, zip bool) []byte {
		body, flag := wrap(profile), byte(0)
		if zip {
			body, flag = gzipped(body), 1
		}
		return append(binary.BigEndian.AppendUint32([]byte{flag}, uint32(len(body))), body...)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// request makes the request of a tenant.
func (w way) request(n *nodetest.Node, id string, body io.Reader, zip bool) *http.Request {
	r := must(http.NewRequest(http.MethodPost, n.URL()+w.path, body))
	r.Header.Set("Content-Type", w.contentType)
	if id != "" {
		r.Header.Set(tenant.Header, id)
	}
	if zip {
		r.Header.Set(w.encoding, "gzip")
	}
	if strings.HasPrefix(w.contentType, "application/grpc+") {
		r.Header.Set("Te", "trailers")
	}
	return r
}

// outcome is an answer in the words of Connect: ok, or the code of the error. A client that got no answer has none.
func outcome(resp *http.Response, err error) string {
	if err != nil {
		return "no answer: " + err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "no answer: " + err.Error()
	}
	status := resp.Header.Get("Grpc-Status") + resp.Trailer.Get("Grpc-Status")
	if _, after, ok := strings.Cut(string(body), "grpc-status: "); ok && status == "" { // gRPC-Web
		status, _, _ = strings.Cut(after, "\r\n")
	}
	if status != "" && status != "0" {
		var code connect.Code
		if n, err := fmt.Sscan(status, &code); n == 1 && err == nil {
			return code.String()
		}
	}
	switch resp.StatusCode {
	case http.StatusOK:
		return "ok"
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge:
		return connect.CodeInvalidArgument.String()
	case http.StatusTooManyRequests:
		return connect.CodeResourceExhausted.String()
	case http.StatusUnauthorized:
		return connect.CodeUnauthenticated.String()
	case http.StatusServiceUnavailable:
		return connect.CodeUnavailable.String()
	case http.StatusRequestTimeout, http.StatusGatewayTimeout:
		return connect.CodeDeadlineExceeded.String()
	}
	return fmt.Sprintf("%s: %s", resp.Status, body)
}

// hostile starts a node for several tenants, of whom none is held back by its rate, so that attacks reach what is
// behind it.
func hostile(t *testing.T, change func(*node.Config)) *nodetest.Node {
	return nodetest.New(t).Whole(func(cfg *node.Config) {
		neverCompact(cfg)
		cfg.MultiTenant = true
		cfg.Limits.Rate = 0
		if change != nil {
			change(cfg)
		}
	})
}

// memoryBound is what attacks may make the heap grow by: the memory of requests, and profiles in as many decoders as there
// are, each ten times what came in. Twice all that, for the garbage collector.
func memoryBound() uint64 {
	cfg := distributor.DefaultConfig()
	return 2 * uint64(cfg.MaxMemory+10*int64(cfg.Concurrency*tenant.DefaultLimits().MaxProfileBytes))
}

// besides pushes as another tenant until the attack is over, and wants every push to succeed and be there in the end;
// and the heap to stay within its bound.
func besides(t *testing.T, n *nodetest.Node, attack func()) {
	t.Helper()
	base := oracle.Parse(corpus.Get("regexp-mutex-1").Gzipped)
	at := time.Now().Add(-time.Minute).Truncate(time.Millisecond)
	want, pushes := int64(0), 0
	service := strings.NewReplacer("/", "-", " ", "-").Replace(t.Name())
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-ended:
				if pushes > 0 {
					return
				}
			default:
			}
			p, body := scaled(base, 1, at)
			begin := time.Now()
			if err := push(n, "victim", series("mutex", service, body, "n", fmt.Sprint(pushes))); err != nil {
				t.Errorf("meanwhile another tenant: %v", err)
				return
			}
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("meanwhile another tenant waited %s", took)
			}
			want += oracle.Sum("delay", p).Total
			pushes++
		}
	}()
	peak := watchHeap()
	attack()
	grown := peak()
	close(ended)
	<-done
	if bound := memoryBound(); grown > bound {
		t.Errorf("the heap grew by %d MiB, more than %d", grown>>20, bound>>20)
	}
	s := around(fmt.Sprintf(`{service_name=%q}`, service), base)
	s.tenant, s.start, s.end = "victim", at.UnixMilli(), at.UnixMilli()
	if got := flameTotal(t, n, s, typeID("mutex", base, 1)); got != want {
		t.Errorf("the other tenant's pushes sum to %d, want %d", got, want)
	}
	if resp, body := get(t, n, "/ready"); resp.StatusCode != http.StatusOK {
		t.Errorf("afterwards /ready says %s", body)
	}
	t.Logf("the heap grew by %d MiB at most, meanwhile %d pushes", grown>>20, pushes)
}

// watchHeap returns a function that says by how much the heap has grown at most, garbage included.
func watchHeap() func() uint64 {
	runtime.GC()
	heap := func() uint64 {
		sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
		metrics.Read(sample)
		return sample[0].Value.Uint64()
	}
	start, most := heap(), uint64(0)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			most = max(most, heap())
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	}()
	return func() uint64 {
		close(stop)
		<-stopped
		return max(most, start) - start
	}
}

// zeros is n gzipped zero bytes.
func zeros(n int64) []byte {
	var b bytes.Buffer
	w := must(gzip.NewWriterLevel(&b, gzip.BestSpeed))
	if _, err := io.CopyN(w, zeroReader{}, n); err != nil {
		panic(err)
	}
	_ = w.Close()
	return b.Bytes()
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// attack is a profile that costs more than it looks, at all doors.
type attack struct {
	name    string
	profile []byte
	zip     bool // the body as a whole too
	// okay: there is nothing wrong with it but its size, so it may be stored.
	okay bool
}

func attacks() []attack {
	bomb := zeros(256 << 20)
	repeated := func(b ...byte) []byte { return bytes.Repeat(b, 4<<20/len(b)-8) }
	packed := func(field protowire.Number, item byte) []byte {
		ids := bytes.Repeat([]byte{item}, 4<<20-100)
		sample := protowire.AppendBytes(protowire.AppendTag(nil, field, protowire.BytesType), ids)
		return protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), sample)
	}
	return []attack{
		{"bomb", bomb, false, false},
		{"bomb in bomb", gzipped(gzipped(bomb)), false, false},
		{"bomb in gzip", bomb, true, false},
		{"bomb in bomb in gzip", gzipped(bomb), true, false},
		{"large in gzip", make([]byte, 70<<20), true, false},
		{"long length", append([]byte{0x12, 0xff, 0xff, 0xff, 0xff, 0x07}, 1, 2, 3), false, false},
		{"hollow samples", repeated(0x12, 0), false, false},
		{"hollow mappings", repeated(0x1a, 0), false, true},
		{"hollow locations", repeated(0x22, 0), false, true},
		{"hollow functions", repeated(0x2a, 0), false, true},
		{"hollow strings", repeated(0x32, 0), false, true},
		{"hollow lines", repeatedLines(), false, false},
		{"deep stack of lines", append(repeatedLines(), deepSample()...), false, false},
		{"deep stack of numbers", append(repeatedLines(0x10, 1), deepSample()...), false, true},
		{"packed locations", packed(1, 1), false, false},
		{"packed values", packed(2, 1), false, false},
		{"symbol flood", symbolFlood(), false, true},
	}
}

// repeatedLines is location 1 with as many lines as fit.
func repeatedLines(line ...byte) []byte {
	line = protowire.AppendBytes([]byte{0x22}, line)
	lines := append([]byte{0x08, 1}, bytes.Repeat(line, 4<<20/len(line)-100)...)
	return protowire.AppendBytes(protowire.AppendTag(nil, 4, protowire.BytesType), lines)
}

// deepSample is the rest of a profile whose only stack is location 1.
func deepSample() []byte {
	b := []byte{0x0a, 4, 0x08, 1, 0x10, 1, 0x12, 6, 0x0a, 1, 1, 0x12, 1, 7} // sample type 1 of unit 1; the sample, of 7
	return append(b, 0x32, 0, 0x32, 1, 'x')
}

// symbolFlood is a good profile whose every function has a name of its own, of 64 KiB and more.
func symbolFlood() []byte {
	p := oracle.Parse(corpus.Get("compress-cpu-0").Gzipped)
	for i, f := range p.Function[:min(50, len(p.Function))] {
		f.Name = fmt.Sprint(i, strings.Repeat("x", 70_000))
	}
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// TestHostileProfiles sends each attack through all doors at once.
func TestHostileProfiles(t *testing.T) {
	n := hostile(t, nil)
	for _, a := range attacks() {
		bodies := map[string][]byte{}
		for _, w := range ways() {
			bodies[w.name] = w.wrap(a.profile, a.zip)
		}
		t.Run(a.name, func(t *testing.T) {
			besides(t, n, func() {
				var group sync.WaitGroup
				for _, w := range ways() {
					group.Go(func() {
						got := outcome(n.HTTP().Do(w.request(n, "mallory", bytes.NewReader(bodies[w.name]), a.zip)))
						if got != connect.CodeInvalidArgument.String() && got != connect.CodeResourceExhausted.String() && (!a.okay || got != "ok") {
							t.Errorf("%s: %s", w.name, got)
						}
					})
				}
				group.Wait()
			})
		})
	}
}

// TestHostilePushes sends requests whose envelope is the attack.
func TestHostilePushes(t *testing.T) {
	n := hostile(t, nil)
	labels := func(count int, name, value string) *pushv1.PushRequest {
		m := message(corpus.Get("compress-cpu-0").Gzipped)
		for i := range count {
			m.Series[0].Labels = append(m.Series[0].Labels, &typesv1.LabelPair{Name: fmt.Sprint(name, i), Value: value})
		}
		return m
	}
	bodies := map[string][]byte{
		"hollow series":     bytes.Repeat([]byte{0x0a, 0}, 15<<20),
		"hollow labels":     protowire.AppendBytes([]byte{0x0a}, bytes.Repeat([]byte{0x0a, 0}, 15<<20)),
		"hollow profiles":   protowire.AppendBytes([]byte{0x0a}, bytes.Repeat([]byte{0x12, 0}, 15<<20)),
		"10,000 labels":     must(proto.Marshal(labels(10_000, "n", "v"))),
		"long label name":   must(proto.Marshal(labels(1, strings.Repeat("n", 1<<20), "v"))),
		"long label value":  must(proto.Marshal(labels(1, "n", strings.Repeat("v", 1<<20)))),
		"groups for ever":   bytes.Repeat([]byte{0x0b}, 1<<20),
		"33 MiB of nothing": make([]byte, 33<<20),
	}
	json := map[string][]byte{
		"hollow series":   []byte(`{"series":[` + strings.Repeat("{},", 5<<20) + "{}]}"),
		"nested":          []byte(strings.Repeat(`{"series":[`, 1<<20)),
		"nested unknown":  []byte(`{"x":` + strings.Repeat("[", 10<<20)),
		"bad base64":      []byte(`{"series":[{"samples":[{"rawProfile":"` + strings.Repeat("!", 20<<20) + `"}]}]}`),
		"base64 of zeros": []byte(`{"series":[{"labels":[{"name":"__name__","value":"cpu"}],"samples":[{"rawProfile":"` + base64.StdEncoding.EncodeToString(make([]byte, 20<<20)) + `"}]}]}`),
	}
	besides(t, n, func() {
		for contentType, all := range map[string]map[string][]byte{"application/proto": bodies, "application/json": json} {
			for name, body := range all {
				w := way{path: pushPath, contentType: contentType}
				if got := outcome(n.HTTP().Do(w.request(n, "mallory", bytes.NewReader(body), false))); got != connect.CodeInvalidArgument.String() {
					t.Errorf("%s as %s: %s", name, contentType, got)
				}
			}
		}
	})
}

// TestHostileForms sends forms of many parts, long headers and names that go up.
func TestHostileForms(t *testing.T) {
	n := hostile(t, nil)
	besides(t, n, func() { sendForms(t, n) })
	mustKeepInside(t, n)
}

func sendForms(t *testing.T, n *nodetest.Node) {
	part := func(header, body string) string { return "--x\r\n" + header + "\r\n\r\n" + body + "\r\n" }
	const profile = `Content-Disposition: form-data; name="profile"; filename="../../../../tmp/kiln-was-here"`
	for name, body := range map[string]string{
		"many parts":     strings.Repeat(part(`Content-Disposition: form-data; name="x"`, "y"), 100_000) + "--x--\r\n",
		"long header":    part(`Content-Disposition: form-data; name="`+strings.Repeat("n", 1<<20)+`"`, "y") + "--x--\r\n",
		"many headers":   part(strings.Repeat("X-Y: z\r\n", 20_000)+profile, "y") + "--x--\r\n",
		"not a profile":  part(profile, "y") + "--x--\r\n",
		"two profiles":   part(profile, "y") + part(profile, "y") + "--x--\r\n",
		"without an end": part(profile, strings.Repeat("y", 1<<20)),
		"large config":   part(`Content-Disposition: form-data; name="sample_type_config"`, strings.Repeat("{", 1<<20)) + "--x--\r\n",
	} {
		for _, zip := range []bool{false, true} {
			w := way{path: "/ingest?name=hostile", contentType: "multipart/form-data; boundary=x", encoding: "Content-Encoding"}
			b := []byte(body)
			if zip {
				b = gzipped(b)
			}
			if got := outcome(n.HTTP().Do(w.request(n, "mallory", bytes.NewReader(b), zip))); got != connect.CodeInvalidArgument.String() {
				t.Errorf("%s, gzipped %v: %s", name, zip, got)
			}
		}
	}
}

// mustKeepInside wants the bucket of a node to hold only what kiln names itself.
func mustKeepInside(t *testing.T, n *nodetest.Node) {
	t.Helper()
	bucket := filepath.Join(n.DataDir(), "bucket")
	err := filepath.WalkDir(n.DataDir(), func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(bucket, path)
		known := path == n.DataDir() || strings.HasPrefix(path, filepath.Join(n.DataDir(), "metastore")) || path == bucket ||
			strings.HasPrefix(rel, "segments") || strings.HasPrefix(rel, "blocks") || strings.HasPrefix(rel, "snapshots")
		if !known && !strings.HasPrefix(rel, ".") {
			t.Errorf("there is a file %s", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestHostileTenants names tenants that are paths, at every door.
func TestHostileTenants(t *testing.T) {
	n := hostile(t, nil)
	names := []string{
		"..", ".", "/", "../..", "a/b", "/etc", "%2e%2e", "%2e%2e%2f", "%252e%252e%252f", "..%2f..", "a|b", "a b", "ä", "\u202e",
		"a\tb", "a\\b", `"`, "a:b", "a;b", "$HOME", "*", strings.Repeat("x", 151), strings.Repeat("x", 10<<10),
	}
	good := corpus.Get("compress-cpu-0").Gzipped
	besides(t, n, func() {
		for _, w := range append(ways(), otlpWays()...) {
			body := w.wrap(good, false) // no door gets as far as looking at it
			for _, name := range names {
				if got := outcome(n.HTTP().Do(w.request(n, name, bytes.NewReader(body), false))); got != connect.CodeInvalidArgument.String() {
					t.Errorf("%s: tenant %.40q: %s", w.name, name, got)
				}
			}
			if got := outcome(n.HTTP().Do(w.request(n, "", bytes.NewReader(body), false))); got != connect.CodeUnauthenticated.String() {
				t.Errorf("%s without a tenant: %s", w.name, got)
			}
			// Headers that are there twice: no tenant but the one that was checked.
			r := w.request(n, "mallory", bytes.NewReader(body), false)
			r.Header.Add(tenant.Header, "..")
			r.Header.Add(tenant.Header, "victim")
			if got := outcome(n.HTTP().Do(r)); got != "ok" && got != connect.CodeInvalidArgument.String() {
				t.Errorf("%s with three tenants: %s", w.name, got)
			}
		}
	})
	for _, path := range []string{"/ingest/../ingest", "//ingest", "/%2e%2e/ingest", "/ingest%2f..", "/ingest%00", "/api/v1/../../ingest/x"} {
		w := way{path: path + "?name=x&format=pprof"}
		if got := outcome(n.HTTP().Do(w.request(n, "mallory", bytes.NewReader(good), false))); strings.HasPrefix(got, "5") || got == connect.CodeUnavailable.String() {
			t.Errorf("path %s: %s", path, got)
		}
	}
	if got := labelValues(t, n, "victim", "service_name", scope{start: 0, end: time.Now().UnixMilli()}); len(got) != 1 {
		t.Errorf("the services of the other tenant are %v", got)
	}
	mustKeepInside(t, n)
}

// TestHostileSeries sends a new series with every profile until there are too many, and after that.
func TestHostileSeries(t *testing.T) {
	n := hostile(t, nil)
	body := corpus.Get("regexp-mutex-1").Gzipped
	besides(t, n, func() {
		stored, refused := 0, 0
		for request := range 25 {
			var list []*pushv1.RawProfileSeries
			for i := range 1000 {
				list = append(list, series("mutex", "flood", body, "id", fmt.Sprint(request, "-", i)))
			}
			switch err := push(n, "mallory", list...); {
			case err == nil:
				stored++
			case connect.CodeOf(err) == connect.CodeResourceExhausted && strings.Contains(err.Error(), "limit of 20000"):
				refused++
			default:
				t.Errorf("request %d: %v", request, err)
			}
		}
		if stored != 20 || refused != 5 {
			t.Errorf("%d requests of 1000 series are stored and %d refused, want 20 and 5", stored, refused)
		}
	})
}

// TestSlowBodies trickles through every door: the deadline of the body ends it, and whoever sent it.
func TestSlowBodies(t *testing.T) {
	n := hostile(t, func(cfg *node.Config) { cfg.BodyTimeout = 300 * time.Millisecond })
	besides(t, n, func() {
		var group sync.WaitGroup
		for _, w := range append(ways(), otlpWays()...) {
			for range 20 {
				group.Go(func() {
					body, ended := io.Pipe()
					defer ended.Close()
					ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
					defer cancel()
					go func() { // one byte, and then no more
						_, _ = ended.Write(w.wrap(corpus.Get("compress-cpu-0").Gzipped, false)[:1])
					}()
					got := outcome(n.HTTP().Do(w.request(n, "mallory", body, false).WithContext(ctx)))
					want := connect.CodeDeadlineExceeded
					if w.name == "OTLP" { // whose senders do not try again after 408
						want = connect.CodeUnavailable
					}
					if got != want.String() || ctx.Err() != nil {
						t.Errorf("%s: %s", w.name, got)
					}
				})
			}
		}
		group.Wait()
	})
}
