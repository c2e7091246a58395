package node_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kilndb/kiln/node/nodetest"
)

// TestHostileFormats sends bodies to /ingest, many at once, that are short and stand for much in their format.
func TestHostileFormats(t *testing.T) {
	n := hostile(t, nil)
	const most = 30 << 20
	repeated := func(s string) string { return strings.Repeat(s, most/len(s)) }
	distinct := func(line string) string {
		var b strings.Builder
		for i := 0; b.Len() < most; i++ {
			fmt.Fprintf(&b, line, i, i/7, i/49)
		}
		return b.String()
	}
	recording := inflated(t, filepath.Join("..", "distributor", "ingest", "jfr", "testdata", "busy.jfr.gz"))
	const frames = `{"$schema":"https://www.speedscope.app/file-format-schema.json","shared":{"frames":[`
	for _, c := range []struct {
		name, format string
		body         func() string // made when it is sent: what a test holds lets the heap grow
	}{
		{"distinct stacks", "groups", func() string { return distinct("a%d;b%d;c%d 1\n") }},
		{"one long name", "lines", func() string { return repeated("x") }},
		{"a broad tree", "tree", func() string { return "\x00\x00\xff\xff\xff\x03" + repeated("\x01f\x01\x00") }},
		{"a deep trie", "trie", func() string { return repeated("\x02f;\x01\x01") }},
		{"a broad trie", "trie", func() string { return "\x00\x00\xff\xff\xff\x03" + repeated("\x02f;\x01\x00") }},
		{"hollow frames", "speedscope", func() string { return frames + repeated("{},") + "{}]}}" }},
		{"a long text", "speedscope", func() string { return frames + `{"name":"` + repeated("x") + `"}]}}` }},
		{"numbers", "speedscope", func() string {
			return frames + `{"name":"x"}]},"profiles":[{"type":"sampled","unit":"none","startValue":0,"endValue":1,"samples":[[` + repeated("0,") + "0]]}]}"
		}},
		{"many chunks", "jfr", func() string { return strings.Repeat(recording, most/len(recording)) }},
		{"zeros in a chunk", "jfr", func() string { return recording[:len(recording)/2] + repeated("\x00") }},
	} {
		t.Run(c.format+" "+c.name, func(t *testing.T) {
			w := way{path: "/ingest?name=hostile&format=" + c.format, encoding: "Content-Encoding", wrap: whole(bytes.Clone)}
			// With noise behind it the ratio lets it pass.
			attack := flood(t, n, []way{w}, append([]byte(c.body()), noise(most/150)...))
			besides(t, n, attack)
		})
	}
}

func inflated(t *testing.T, file string) string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zr, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(zr)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A door for profiles says how it wants to be used.
func TestOnlyPostIsTaken(t *testing.T) {
	n := nodetest.New(t).Whole(neverCompact)
	for _, path := range []string{"/ingest", "/pyroscope/ingest", "/v1development/profiles", pushPath} {
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete, http.MethodOptions} {
			r := must(http.NewRequest(method, n.URL()+path+"?name=a&format=pprof", nil))
			resp := must(n.HTTP().Do(r))
			resp.Body.Close()
			if resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != http.MethodPost {
				t.Errorf("%s %s: %s, allowed are %q", method, path, resp.Status, resp.Header.Get("Allow"))
			}
		}
	}
}
