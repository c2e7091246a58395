package node_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	gprofile "github.com/google/pprof/profile"
	pushv1 "github.com/grafana/pyroscope/api/gen/proto/go/push/v1"
	querierv1 "github.com/grafana/pyroscope/api/gen/proto/go/querier/v1"
	typesv1 "github.com/grafana/pyroscope/api/gen/proto/go/types/v1"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/kilndb/kiln/node/nodetest"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/oracle"
)

func gzipped(b []byte) []byte {
	var out bytes.Buffer
	zw := gzip.NewWriter(&out)
	if _, err := zw.Write(b); err != nil {
		panic(err)
	}
	if err := zw.Close(); err != nil {
		panic(err)
	}
	return out.Bytes()
}

// withField appends a varint field to a valid profile: protobuf's last value wins, or one more element comes.
func withField(raw []byte, number protowire.Number, nested ...uint64) []byte {
	var message []byte
	for i := 0; i+1 < len(nested); i += 2 {
		message = protowire.AppendTag(message, protowire.Number(nested[i]), protowire.VarintType)
		message = protowire.AppendVarint(message, nested[i+1])
	}
	out := protowire.AppendTag(bytes.Clone(raw), number, protowire.BytesType)
	return gzipped(protowire.AppendBytes(out, message))
}

// TestBadPushes sends each bad profile between two good ones: the answer names the bad one, nothing of it is
// stored, the good ones are.
func TestBadPushes(t *testing.T) {
	n := nodetest.New(t).Whole(neverCompact)
	good := oracle.Parse(corpus.Get("regexp-cpu-1").Gzipped)
	raw := corpus.Get("regexp-cpu-1").Raw()
	const minusOne = ^uint64(0)
	cases := []struct {
		name string
		body []byte
		says string
	}{
		{"not gzip and not protobuf", []byte("hello, this is not a profile"), ""},
		{"truncated gzip", corpus.Get("regexp-cpu-1").Gzipped[:2000], "gunzip"},
		{"garbage behind gzip", gzipped(bytes.Repeat([]byte{0xff}, 300)), ""},
		{"empty", nil, ""},
		{"string index out of range", withField(raw, 5, 1, 1<<20, 2, 1<<30), "string"},
		{"string index negative", withField(raw, 5, 1, 1<<20, 2, minusOne), "string"},
		{"location of a sample out of range", withField(raw, 2, 1, 1<<40, 2, 1, 2, 1), "location"},
		{"location of a sample negative", withField(raw, 2, 1, minusOne, 2, 1, 2, 1), "location"},
		{"values fewer than sample types", withField(raw, 2, 1, 1, 2, 1), "value"},
		{"a gzip bomb", gzipped(make([]byte, 64<<20)), ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			service := strings.ReplaceAll(c.name, " ", "-")
			at := time.Now().Add(-time.Minute).Truncate(time.Millisecond)
			one, oneBody := scaled(good, 2, at)
			two, twoBody := scaled(good, 3, at.Add(time.Millisecond))
			err := push(n, "", series("process_cpu", service, oneBody), series("process_cpu", service+"-bad", c.body), series("process_cpu", service, twoBody))
			if code := connect.CodeOf(err); code != connect.CodeInvalidArgument {
				t.Fatalf("answer is %v, want invalid argument", err)
			}
			if !strings.Contains(err.Error(), service+"-bad") || !strings.Contains(err.Error(), c.says) {
				t.Errorf("the answer does not name what is wrong (%q of %q): %v", c.says, service+"-bad", err)
			}
			mustEqual(t, n, around(fmt.Sprintf(`{service_name=%q}`, service), one, two), "process_cpu", one, two)
			if got := labelValues(t, n, "", "service_name", scope{start: 0, end: time.Now().UnixMilli()}); strings.Contains(strings.Join(got, " "), "-bad") {
				t.Errorf("something of the bad profile was stored: services %v", got)
			}
		})
	}
	t.Run("missing __name__", func(t *testing.T) {
		s := series("process_cpu", "nameless", corpus.Get("regexp-cpu-1").Gzipped)
		s.Labels = s.Labels[1:]
		if err := push(n, "", s); connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), "__name__") {
			t.Errorf("answer is %v", err)
		}
	})
}

// TestBadQuestions wants a 4xx that names what is wrong.
func TestBadQuestions(t *testing.T) {
	n := nodetest.New(t).Whole(neverCompact)
	const cpu = "process_cpu:cpu:nanoseconds:cpu:nanoseconds"
	now := time.Now().UnixMilli()
	ask := func(profileType, selector string, start, end int64) error {
		_, err := n.Querier("").SelectMergeStacktraces(context.Background(), connect.NewRequest(&querierv1.SelectMergeStacktracesRequest{
			ProfileTypeID: profileType, LabelSelector: selector, Start: start, End: end}))
		return err
	}
	negative := int64(-1)
	cases := map[string]struct {
		err  error
		says string
	}{
		"unknown profile type":  {ask("cpu", `{}`, now-1000, now), "cpu"},
		"empty profile type":    {ask("", `{}`, now-1000, now), "profile type"},
		"selector syntax error": {ask(cpu, `{a=`, now-1000, now), "{a="},
		"selector bad regex":    {ask(cpu, `{a=~"("}`, now-1000, now), "("},
		"end before start":      {ask(cpu, `{}`, now, now-1000), fmt.Sprint(now)},
		"step zero": {func() error {
			_, err := n.Querier("").SelectSeries(context.Background(), connect.NewRequest(&querierv1.SelectSeriesRequest{ProfileTypeID: cpu, LabelSelector: "{}", Start: now - 1000, End: now}))
			return err
		}(), "step"},
		"negative max nodes": {func() error {
			_, err := n.Querier("").SelectMergeStacktraces(context.Background(), connect.NewRequest(&querierv1.SelectMergeStacktracesRequest{ProfileTypeID: cpu, LabelSelector: "{}", Start: now - 1000, End: now, MaxNodes: &negative}))
			return err
		}(), "max_nodes"},
		"bad matcher": {func() error {
			_, err := n.Querier("").LabelNames(context.Background(), connect.NewRequest(&typesv1.LabelNamesRequest{Matchers: []string{`{x`}, Start: now - 1000, End: now}))
			return err
		}(), "{x"},
	}
	for name, c := range cases {
		if code := connect.CodeOf(c.err); code != connect.CodeInvalidArgument || !strings.Contains(fmt.Sprint(c.err), c.says) {
			t.Errorf("%s: %v, want invalid argument that says %q", name, c.err, c.says)
		}
	}
}

// TestEveryProtocol pushes by Connect, gRPC, gRPC-Web, JSON and /ingest.
func TestEveryProtocol(t *testing.T) {
	n := nodetest.New(t).Whole(neverCompact)
	at := time.Now().Add(-time.Minute).Truncate(time.Millisecond)
	want, body := scaled(oracle.Parse(corpus.Get("compress-cpu-0").Gzipped), 1, at)
	rpc := func(options ...connect.ClientOption) func(service string) error {
		client := connect.NewClient[pushv1.PushRequest, pushv1.PushResponse](n.HTTP(), n.URL()+"/push.v1.PusherService/Push", options...)
		return func(service string) error {
			_, err := client.CallUnary(context.Background(), connect.NewRequest(&pushv1.PushRequest{Series: []*pushv1.RawProfileSeries{series("process_cpu", service, body)}}))
			return err
		}
	}
	ways := map[string]func(service string) error{
		"connect":      rpc(),
		"connect-gzip": rpc(connect.WithSendGzip()),
		"connect-json": rpc(connect.WithProtoJSON()),
		"grpc":         rpc(connect.WithGRPC()),
		"grpc-web":     rpc(connect.WithGRPCWeb()),
		"plain-json": func(service string) error {
			text := fmt.Sprintf(`{"series":[{"labels":[{"name":"__name__","value":"process_cpu"},{"name":"service_name","value":%q}],"samples":[{"rawProfile":%q}]}]}`,
				service, base64.StdEncoding.EncodeToString(body))
			return post(n, "/push.v1.PusherService/Push", "application/json", text)
		},
		"ingest": func(service string) error {
			return post(n, "/ingest?format=pprof&name="+service, "", string(body))
		},
		"pyroscope-ingest": func(service string) error {
			return post(n, "/pyroscope/ingest?format=pprof&name="+service+"%7Bx%3Dy%7D", "", string(body))
		},
	}
	for name, send := range ways {
		if err := send(name); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		s := around(fmt.Sprintf(`{service_name=%q}`, name), want)
		mustEqualAt(t, n, s, want)
	}
}

func mustEqualAt(t *testing.T, n *nodetest.Node, s scope, want *gprofile.Profile) {
	t.Helper()
	if got, want := flameTotal(t, n, s, typeID("process_cpu", want, 1)), oracle.Sum("cpu", want).Total; got != want {
		t.Errorf("%s: total %d, want %d", s.selector, got, want)
	}
}

func post(n *nodetest.Node, path, contentType, body string) error {
	req, err := http.NewRequest(http.MethodPost, n.URL()+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := n.HTTP().Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", resp.Status, answer)
	}
	return nil
}

// TestBadIngest wants each bad /ingest answered with a 4xx that names what is wrong.
func TestBadIngest(t *testing.T) {
	n := nodetest.New(t).Whole(neverCompact)
	gz := string(corpus.Get("compress-cpu-0").Gzipped)
	cases := map[string]struct{ path, body, says string }{
		"no name":       {"/ingest?format=pprof", gz, "name"},
		"bad from":      {"/ingest?format=pprof&name=a&from=yesterday-ish", gz, "from"},
		"bad format":    {"/ingest?format=zip&name=a", gz, "zip"},
		"not a profile": {"/ingest?format=pprof&name=a", "hello, this is not a profile", ""},
		"truncated":     {"/ingest?format=pprof&name=a", gz[:1000], "gunzip"},
	}
	for name, c := range cases {
		err := post(n, c.path, "", c.body)
		if err == nil || !strings.HasPrefix(err.Error(), "400 ") || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want 400 that says %q", name, err, c.says)
		}
	}
	if got := labelValues(t, n, "", "service_name", scope{start: 0, end: time.Now().UnixMilli()}); len(got) != 0 {
		t.Errorf("something was stored: %v", got)
	}
}
