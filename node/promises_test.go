package node_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/kilndb/kiln/node"
	"github.com/kilndb/kiln/node/nodetest"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/oracle"
	"github.com/kilndb/kiln/tenant"
)

// TestReadYourWrites asks after each of 1,000 acknowledged pushes, while segments are being compacted, and
// wants each to be there.
func TestReadYourWrites(t *testing.T) {
	n := nodetest.New(t).Whole(func(cfg *node.Config) { cfg.CompactAfter = 100 * time.Millisecond })
	base := oracle.Parse(corpus.Get("regexp-mutex-1").Gzipped)
	const writers = 8
	rounds := 125
	if testing.Short() {
		rounds = 25
	}
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			service := fmt.Sprintf("writer-%d", w)
			start := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
			want := int64(0)
			for round := range rounds {
				p, body := scaled(base, int64(round+1), start.Add(time.Duration(round)*time.Millisecond))
				if err := push(n, "", series("mutex", service, body)); err != nil {
					t.Errorf("%s push %d: %v", service, round, err)
					return
				}
				want += oracle.Sum("delay", p).Total
				s := scope{selector: fmt.Sprintf(`{service_name=%q}`, service), start: start.UnixMilli(), end: start.UnixMilli() + int64(rounds)}
				if got := flameTotal(t, n, s, typeID("mutex", p, 1)); got != want {
					t.Errorf("%s is stale after push %d: total %d, want %d", service, round, got, want)
					return
				}
			}
		})
	}
	group.Wait()
}

// TestTenantsAreAlone gives two tenants the same service, series and times, and different values.
func TestTenantsAreAlone(t *testing.T) {
	n := nodetest.New(t).Whole(func(cfg *node.Config) { cfg.MultiTenant = true; cfg.CompactAfter = 24 * time.Hour })
	base := oracle.Parse(corpus.Get("compress-mem-0").Gzipped)
	at := time.Now().Add(-time.Minute).Truncate(time.Millisecond)
	red, redBody := scaled(base, 2, at)
	blue, blueBody := scaled(base, 3, at)
	for id, body := range map[tenant.ID][]byte{"red": redBody, "blue": blueBody} {
		if err := push(n, id, series("memory", "shop", body, "color", string(id))); err != nil {
			t.Fatal(err)
		}
	}
	verify := func(n *nodetest.Node) {
		t.Helper()
		for _, selector := range []string{`{}`, `{service_name="shop"}`, `{color=~".+"}`} {
			s := around(selector, red)
			s.tenant = "red"
			mustEqual(t, n, s, "memory", red)
			s.tenant = "blue"
			mustEqual(t, n, s, "memory", blue)
			s.tenant = "green"
			if got := flameTotal(t, n, s, typeID("memory", red, 0)); got != 0 {
				t.Errorf("a tenant without data sees %d", got)
			}
		}
		s := around(`{color="blue"}`, red)
		s.tenant = "red"
		if got := flameTotal(t, n, s, typeID("memory", red, 0)); got != 0 {
			t.Errorf("red sees %d of blue", got)
		}
		for _, id := range []tenant.ID{"red", "blue"} {
			if got := labelValues(t, n, id, "color", s); len(got) != 1 || got[0] != string(id) {
				t.Errorf("%s sees the colors %v", id, got)
			}
		}
	}
	verify(n)
	n = nodetest.Compacting(n)
	if err := push(n, "red", series("memory", "other", redBody)); err != nil {
		t.Fatal(err)
	}
	waitCompactedAs(t, n, "red")
	verify2 := around(`{service_name="shop"}`, red)
	verify2.tenant = "red"
	mustEqual(t, n, verify2, "memory", red)
	verify2.tenant = "blue"
	mustEqual(t, n, verify2, "memory", blue)

	if err := push(n, "", series("memory", "shop", redBody)); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("a push without a tenant: %v, want unauthenticated", err)
	}
	for _, id := range []tenant.ID{"..", ".", "a/b", "a|b", "%2e%2e"} {
		if err := push(n, id, series("memory", "shop", redBody)); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("a push as tenant %q: %v, want invalid argument", id, err)
		}
	}
}
