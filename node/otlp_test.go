package node_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"testing"
	"time"

	gprofile "github.com/google/pprof/profile"
	"go.opentelemetry.io/collector/pdata/pprofile"
	"go.opentelemetry.io/collector/pdata/pprofile/pprofileotlp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/kilndb/kiln/distributor/otlp"
	"github.com/kilndb/kiln/distributor/otlp/otlptest"
	"github.com/kilndb/kiln/node"
	"github.com/kilndb/kiln/node/nodetest"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/oracle"
	"github.com/kilndb/kiln/tenant"
)

// counting makes of a profile what a profiler that counts samples would have sent: an OTLP profile of a column.
func counting(r *otlptest.Request, to pprofile.ScopeProfiles, p *gprofile.Profile, column int) {
	t := p.SampleType[column]
	out := r.Profile(to, time.Unix(0, p.TimeNanos), t.Type+":"+t.Unit, p.PeriodType.Type+":"+p.PeriodType.Unit, p.Period)
	out.SetDurationNano(uint64(p.DurationNanos))
	mappings, locations, functions := map[*gprofile.Mapping]int32{}, map[*gprofile.Location]int32{}, map[*gprofile.Function]int32{}
	for _, m := range p.Mapping {
		to := r.MappingTable().AppendEmpty()
		to.SetMemoryStart(m.Start)
		to.SetMemoryLimit(m.Limit)
		to.SetFileOffset(m.Offset)
		to.SetFilenameStrindex(r.String(m.File))
		to.AttributeIndices().Append(r.Attribute("process.executable.build_id.gnu", m.BuildID))
		mappings[m] = int32(r.MappingTable().Len() - 1)
	}
	for _, f := range p.Function {
		to := r.FunctionTable().AppendEmpty()
		to.SetNameStrindex(r.String(f.Name))
		to.SetSystemNameStrindex(r.String(f.SystemName))
		to.SetFilenameStrindex(r.String(f.Filename))
		to.SetStartLine(f.StartLine)
		functions[f] = int32(r.FunctionTable().Len() - 1)
	}
	for _, l := range p.Location {
		to := r.LocationTable().AppendEmpty()
		to.SetAddress(l.Address)
		to.SetMappingIndex(mappings[l.Mapping])
		for _, line := range l.Line {
			nested := to.Lines().AppendEmpty()
			nested.SetFunctionIndex(functions[line.Function])
			nested.SetLine(line.Line)
			nested.SetColumn(line.Column)
		}
		locations[l] = int32(r.LocationTable().Len() - 1)
	}
	for _, s := range p.Sample {
		stack := r.StackTable().AppendEmpty()
		for _, l := range s.Location {
			stack.LocationIndices().Append(locations[l])
		}
		sample := out.Samples().AppendEmpty()
		sample.SetStackIndex(int32(r.StackTable().Len() - 1))
		sample.Values().Append(s.Value[column])
	}
}

// only returns a profile that has one of its columns.
func only(p *gprofile.Profile, column int) *gprofile.Profile {
	c := p.Copy()
	c.SampleType = c.SampleType[column : column+1]
	for _, s := range c.Sample {
		s.Value = s.Value[column : column+1]
	}
	return c
}

// exporter is a client of the official module on the node's network.
func exporter(t *testing.T, n *nodetest.Node) pprofileotlp.GRPCClient {
	t.Helper()
	dial := n.HTTP().Transport.(*http.Transport).DialContext
	conn, err := grpc.NewClient("passthrough:///kiln:4040", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return dial(ctx, "tcp", addr) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return pprofileotlp.NewGRPCClient(conn)
}

// postOTLP sends a request over HTTP and returns the status and the body of the answer.
func postOTLP(t *testing.T, n *nodetest.Node, contentType, encoding string, body []byte, id tenant.ID) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, n.URL()+otlp.Path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", contentType)
	if encoding != "" {
		r.Header.Set("Content-Encoding", encoding)
	}
	if id != "" {
		r.Header.Set(tenant.Header, string(id))
	}
	resp, err := n.HTTP().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// TestOTLPComesBack sends the same profiles in every way there is, a service each, and asks for them.
func TestOTLPComesBack(t *testing.T) {
	n := nodetest.New(t).Whole(nil)
	client := exporter(t, n)
	base := oracle.Parse(corpus.Get("compiler-cpu-0").Gzipped)
	const column = 1 // cpu:nanoseconds
	build := func(service string) (*otlptest.Request, *gprofile.Profile) {
		at := time.Now().Add(-time.Minute).Truncate(time.Millisecond)
		one, _ := scaled(base, 1, at)
		r := otlptest.New()
		counting(r, r.Resource("service.name", service, "k8s.pod.name", "p-1"), one, column)
		return r, only(one, column)
	}
	for service, send := range map[string]func(r *otlptest.Request){
		"grpc": func(r *otlptest.Request) {
			if reply, err := client.Export(t.Context(), r.Export()); err != nil || reply.PartialSuccess().RejectedProfiles() != 0 {
				t.Errorf("%v, %v", reply.PartialSuccess(), err)
			}
		},
		"grpc-gzip": func(r *otlptest.Request) {
			if _, err := client.Export(t.Context(), r.Export(), grpc.UseCompressor(gzip.Name)); err != nil {
				t.Error(err)
			}
		},
		"protobuf": func(r *otlptest.Request) {
			if code, body := postOTLP(t, n, "application/x-protobuf", "", r.Proto(), ""); code != http.StatusOK || body != "" {
				t.Errorf("%d %q", code, body)
			}
		},
		"protobuf-gzip": func(r *otlptest.Request) {
			if code, body := postOTLP(t, n, "application/x-protobuf", "gzip", gzipped(r.Proto()), ""); code != http.StatusOK || body != "" {
				t.Errorf("%d %q", code, body)
			}
		},
		"json": func(r *otlptest.Request) {
			if code, body := postOTLP(t, n, "application/json", "", r.JSON(), ""); code != http.StatusOK || body != "{}" {
				t.Errorf("%d %q", code, body)
			}
		},
	} {
		t.Run(service, func(t *testing.T) {
			r, want := build(service)
			send(r)
			expect(around(fmt.Sprintf(`{service_name=%q, "k8s.pod.name"="p-1"}`, service), want), "cpu", want).verify(t, n)
		})
	}
}

// TestOTLPLikeAProfilerOfAMachine counts samples at a period, for services that the samples name.
func TestOTLPLikeAProfilerOfAMachine(t *testing.T) {
	n := nodetest.New(t).Whole(nil)
	at := time.Now().Add(-time.Minute).Truncate(time.Millisecond)
	r := otlptest.New()
	scope := r.Resource("process.executable.name", "init", "host.name", "h-1")
	cpu := r.Profile(scope, at, "samples:count", "cpu:nanoseconds", 50_000_000)
	web := r.Attribute("service.name", "web")
	worker := r.Attribute("thread.name", "worker")
	for i := range uint64(3) {
		s := r.Sample(cpu, "main;serve")
		s.TimestampsUnixNano().FromRaw([]uint64{uint64(at.UnixNano()) + i, uint64(at.UnixNano()) + i + 1})
		s.AttributeIndices().Append(web, worker)
	}
	r.Sample(cpu, "start", 4)
	waiting := r.Profile(scope, at, "off_cpu:nanoseconds", "", 0)
	r.Sample(waiting, "main;wait", 100, 200, 300).AttributeIndices().Append(web)
	if _, err := exporter(t, n).Export(t.Context(), r.Export()); err != nil {
		t.Fatal(err)
	}
	when := near(at)
	const cpuType = "process_cpu:cpu:nanoseconds:cpu:nanoseconds"
	for selector, want := range map[string]int64{
		`{service_name="web"}`:                          6 * 50_000_000,
		`{service_name="web", "thread.name"="worker"}`:  6 * 50_000_000,
		`{service_name="unknown_service:init"}`:         4 * 50_000_000,
		`{service_name="web", "host.name"="h-1"}`:       6 * 50_000_000,
		`{"process.executable.name"="init"}`:            10 * 50_000_000,
		`{service_name="web", "thread.name"!="worker"}`: 0,
		`{service_name="unknown_service"}`:              0,
	} {
		when.selector = selector
		if got := flameTotal(t, n, when, cpuType); got != want {
			t.Errorf("%s: %d, want %d", selector, got, want)
		}
	}
	when.selector = `{service_name="web"}`
	if got := flameTotal(t, n, when, "off_cpu:off_cpu:nanoseconds::"); got != 600 {
		t.Errorf("off_cpu: %d", got)
	}
}

// near is the second around a moment.
func near(at time.Time) scope { return scope{start: at.UnixMilli() - 500, end: at.UnixMilli() + 500} }

func TestOTLPHasTenants(t *testing.T) {
	n := nodetest.New(t).Whole(func(cfg *node.Config) { cfg.MultiTenant = true })
	r := otlptest.New()
	at := time.Now().Add(-time.Minute)
	r.Sample(r.Profile(r.Resource("service.name", "a"), at, "samples:count", "cpu:nanoseconds", 1), "main", 7)
	client := exporter(t, n)
	if _, err := client.Export(t.Context(), r.Export()); status.Code(err) != codes.Unauthenticated {
		t.Errorf("without a tenant: %v", err)
	}
	if code, _ := postOTLP(t, n, "application/json", "", r.JSON(), ""); code != http.StatusUnauthorized {
		t.Errorf("without a tenant: %d", code)
	}
	as := metadata.AppendToOutgoingContext(t.Context(), tenant.Header, "acme")
	if _, err := client.Export(as, r.Export()); err != nil {
		t.Error(err)
	}
	if code, body := postOTLP(t, n, "application/json", "", r.JSON(), "globex"); code != http.StatusOK {
		t.Errorf("%d %s", code, body)
	}
	for id, want := range map[tenant.ID]int64{"acme": 7, "globex": 7, "other": 0} {
		s := near(at)
		s.tenant, s.selector = id, `{service_name="a"}`
		if got := flameTotal(t, n, s, "process_cpu:cpu:nanoseconds:cpu:nanoseconds"); got != want {
			t.Errorf("tenant %s: %d, want %d", id, got, want)
		}
	}
}

// TestOTLPBombs sends requests that are short and decode to much; the node stays.
func TestOTLPBombs(t *testing.T) {
	n := nodetest.New(t).Whole(func(cfg *node.Config) { cfg.Limits.MaxBody, cfg.Limits.MaxRequestBytes = 1<<20, 8<<20 })
	deep := []byte(`{"resourceProfiles":[{"resource":{"attributes":[{"value":` + string(bytes.Repeat([]byte(`{"arrayValue":{"values":[`), 40_000)))
	samples := bytes.Repeat([]byte("\x12\x00"), 200_000)
	wrapped := samples
	for _, tag := range []byte{0x12, 0x12, 0x0a} { // profile, scope, resource
		wrapped = append(append([]byte{tag}, varint(len(wrapped))...), wrapped...)
	}
	for name, c := range map[string]struct {
		contentType, encoding string
		body                  []byte
		code                  int
	}{
		"zeros":         {"application/x-protobuf", "gzip", gzipped(make([]byte, 9<<20)), http.StatusRequestEntityTooLarge},
		"empty samples": {"application/x-protobuf", "", wrapped, http.StatusRequestEntityTooLarge},
		"deep JSON":     {"application/json", "", deep, http.StatusBadRequest},
	} {
		if code, body := postOTLP(t, n, c.contentType, c.encoding, c.body, ""); code != c.code {
			t.Errorf("%s: %d %.200q", name, code, body)
		}
	}
	_, err := exporter(t, n).Export(t.Context(), func() pprofileotlp.ExportRequest {
		r := otlptest.New()
		r.String(string(make([]byte, 2<<20)))
		return r.Export()
	}(), grpc.UseCompressor(gzip.Name))
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("a large message: %v", err)
	}
	r := otlptest.New()
	at := time.Now().Add(-time.Minute)
	r.Sample(r.Profile(r.Resource("service.name", "a"), at, "samples:count", "cpu:nanoseconds", 1), "main", math.MaxInt32)
	if code, body := postOTLP(t, n, "application/x-protobuf", "", r.Proto(), ""); code != http.StatusOK {
		t.Errorf("after all that: %d %q", code, body)
	}
}

func varint(n int) []byte {
	var b []byte
	for ; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}
