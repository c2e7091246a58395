package queryfrontend

import (
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/kilndb/kiln/query"
	"github.com/kilndb/kiln/tenant"
)

const ms = int64(time.Millisecond)

func TestRange(t *testing.T) {
	for _, c := range []struct{ start, end, wantStart, wantEnd int64 }{
		{1000, 4000, 1000 * ms, 4001 * ms},
		{5, 5, 5 * ms, 6 * ms},
		{0, 1, 0, 2 * ms},
		{-3, -3, -3 * ms, -2 * ms},
		{0, math.MaxInt64, 0, math.MaxInt64},
		{math.MinInt64, 0, math.MinInt64, ms},
	} {
		got, err := parseRange(c.start, c.end)
		if err != nil || got.start != c.wantStart || got.end != c.wantEnd {
			t.Errorf("parseRange(%d, %d) = %v, %v; want %d, %d", c.start, c.end, got, err, c.wantStart, c.wantEnd)
		}
	}
	_, err := parseRange(7000, 6999)
	wantInvalid(t, err, "6999", "7000")
	_, err = parseRange(0, 0)
	wantInvalid(t, err, "start", "end")
	_, err = parseRange(math.MaxInt64-1, math.MaxInt64)
	wantInvalid(t, err, "1970")
}

func TestRangeLimit(t *testing.T) {
	limits := tenant.Limits{MaxQueryLength: time.Hour}
	if _, err := parseLimitedRange(1, 1+3_600_000, limits); err != nil {
		t.Errorf("a range of the limit: %v", err)
	}
	_, err := parseLimitedRange(1, 2+3_600_000, limits)
	wantInvalid(t, err, "3600001", "1h0m0s")
	_, err = parseLimitedRange(math.MinInt64, math.MaxInt64, limits)
	wantInvalid(t, err, "limit")
	if _, err := parseLimitedRange(1, math.MaxInt64, tenant.Limits{}); err != nil {
		t.Errorf("no limit: %v", err)
	}
}

// TestBuckets checks which point each time belongs to, at the edges of whole milliseconds.
func TestBuckets(t *testing.T) {
	b, err := parseBuckets(10_000, 25_500, 10, tenant.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if b.start != 1*ms || b.end != 25_501*ms {
		t.Errorf("range is %d to %d: the first point covers the step before start", b.start, b.end)
	}
	for _, c := range []struct{ at, point int64 }{
		{1 * ms, 10_000}, {10_000 * ms, 10_000}, {10_001*ms - 1, 10_000}, {10_001 * ms, 20_000}, {20_001*ms - 1, 20_000},
		{20_001 * ms, 30_000}, {25_501*ms - 1, 30_000},
	} {
		if got := millis(query.Bucket(c.at, b.origin, b.step)); got != c.point {
			t.Errorf("a profile at %d ns counts at %d, want %d", c.at, got, c.point)
		}
	}
	for _, step := range []float64{0, -1, 0.0009, math.NaN(), math.Inf(1), math.Inf(-1), 1e18} {
		_, err := parseBuckets(1, 2, step, tenant.Limits{})
		wantInvalid(t, err, "step")
	}
	for step, want := range map[float64]int64{0.001: ms, 1.001: 1001 * ms, 0.29: 290 * ms, 15: 15_000 * ms} {
		if b, err := parseBuckets(1, 2, step, tenant.Limits{}); err != nil || b.step != want {
			t.Errorf("step %v is %d ns, %v; want %d", step, b.step, err, want)
		}
	}
	far, err := parseBuckets(1, math.MaxInt64, 1e6, tenant.Limits{})
	if err != nil || far.end > math.MaxInt64-far.step {
		t.Errorf("range to the end of time: %v, %v", far, err)
	}
}

func TestMillis(t *testing.T) {
	for nanos, want := range map[int64]int64{0: 0, 1: 0, ms - 1: 0, ms: 1, -1: -1, -ms: -1, -ms - 1: -2} {
		if got := millis(nanos); got != want {
			t.Errorf("millis(%d) = %d, want %d", nanos, got, want)
		}
	}
}

func TestSelectors(t *testing.T) {
	sel, err := parseSelector("matchers", `{a="1"}`, ``, `{b=~"x|y"}`)
	if err != nil || sel.String() != `{a="1", b=~"x|y"}` {
		t.Errorf("joined: %s, %v", sel, err)
	}
	_, err = parseSelector("matchers", `{a="1"}`, `{b=`)
	wantInvalid(t, err, "matchers[1]", `{b=`)
	_, err = parseSelector("label_selector", `{b=`)
	wantInvalid(t, err, "label_selector:", `{b=`)
	long := `{a="` + strings.Repeat("x", 3000) + `"}`
	_, err = parseSelector("matchers", long, long)
	wantInvalid(t, err, "joined", "4096")
}

func TestMaxNodes(t *testing.T) {
	limits := tenant.DefaultLimits()
	ask := func(n int64) *int64 { return &n }
	for _, c := range []struct {
		asked *int64
		want  int
	}{{nil, 8192}, {ask(0), 8192}, {ask(1), 1}, {ask(1 << 20), 1 << 20}} {
		if got, err := parseMaxNodes(c.asked, limits.DefaultNodes, limits); err != nil || got != c.want {
			t.Errorf("max_nodes %v: %d, %v; want %d", c.asked, got, err, c.want)
		}
	}
	_, err := parseMaxNodes(ask(-1), limits.DefaultNodes, limits)
	wantInvalid(t, err, "max_nodes", "-1")
	_, err = parseMaxNodes(ask(1<<20+1), limits.DefaultNodes, limits)
	wantInvalid(t, err, "max_nodes", "1048577", "1048576")
}

func TestAcceptsUTF8(t *testing.T) {
	for accept, want := range map[string]bool{
		"": false, "application/json": false, "application/json; allow-utf8-labelnames=true": true,
		"*/*;allow-utf8-labelnames=true, text/html": true, "application/json; allow-utf8-labelnames=false": false,
	} {
		if got := acceptsUTF8(http.Header{"Accept": {accept}}); got != want {
			t.Errorf("Accept %q: %t", accept, got)
		}
	}
}

func wantInvalid(t *testing.T, err error, says ...string) {
	t.Helper()
	if connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("error is %v, want invalid argument", err)
		return
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("error %q does not say %q", err, s)
		}
	}
}
