package node_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	gprofile "github.com/google/pprof/profile"

	"github.com/kilndb/kiln/node"
	"github.com/kilndb/kiln/node/nodetest"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/oracle"
)

func neverCompact(cfg *node.Config) { cfg.CompactAfter = 24 * time.Hour }

// TestEveryFileComesBack pushes each real profile as a service of its own and asks for it in every way, as a
// segment, as a block, and after a restart.
func TestEveryFileComesBack(t *testing.T) {
	n := nodetest.New(t).Whole(neverCompact)
	files := corpus.All()
	profiles := make([]*gprofile.Profile, len(files))
	for i, f := range files {
		profiles[i] = oracle.Parse(f.Gzipped)
		mustPush(t, n, series(f.Kind(), f.Name, f.Gzipped))
	}
	verify := func(when string, n *nodetest.Node) {
		t.Helper()
		for i, f := range files {
			mustEqual(t, n, around(fmt.Sprintf(`{service_name=%q}`, f.Name), profiles[i]), f.Kind(), profiles[i])
		}
		if t.Failed() {
			t.Fatalf("wrong %s", when)
		}
	}
	verify("as segments", n)
	if segments := levels(t, n)[0]; segments == 0 {
		t.Fatal("there are no segments: this did not test them")
	}
	n = nodetest.Compacting(n)
	waitCompacted(t, n)
	verify("as blocks", n)
	n = n.Restart()
	verify("after a restart", n)
	if got := levels(t, n); got[0] != 0 || got[1] == 0 {
		t.Fatalf("objects per level are %v: this did not test blocks", got)
	}
}

// TestFiveHundredPushes sums 500 pushes of different values over 10 series of 3 services.
func TestFiveHundredPushes(t *testing.T) {
	n := nodetest.New(t).Whole(neverCompact)
	base := []*gprofile.Profile{
		oracle.Parse(corpus.Get("api-gateway-cpu-0").Gzipped),
		oracle.Parse(corpus.Get("net-http-cpu-1").Gzipped),
		oracle.Parse(corpus.Get("regexp-cpu-0").Gzipped),
	}
	services := []string{"gateway", "proxy", "matcher"}
	start := time.Now().Add(-10 * time.Minute).Truncate(time.Millisecond)

	const pushes, pods = 500, 10
	sent := make([]*gprofile.Profile, pushes)
	var group sync.WaitGroup
	slots := make(chan struct{}, 16)
	for i := range pushes {
		pod := i % pods
		profile, body := scaled(base[pod%3], int64(i+1), start.Add(time.Duration(i)*time.Second))
		sent[i] = profile
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			if err := push(n, "", series("process_cpu", services[pod%3], body, "pod", fmt.Sprint(pod))); err != nil {
				t.Errorf("push %d: %v", i, err)
			}
		})
	}
	group.Wait()

	of := func(keep func(i int) bool) (some []*gprofile.Profile) {
		for i, p := range sent {
			if keep(i) {
				some = append(some, p)
			}
		}
		return some
	}
	expectations := []expectation{expect(around(`{}`, sent...), "process_cpu", sent...)}
	for s, name := range services {
		some := of(func(i int) bool { return i%pods%3 == s })
		expectations = append(expectations, expect(around(fmt.Sprintf(`{service_name=%q}`, name), some...), "process_cpu", some...))
	}
	for pod := range pods {
		some := of(func(i int) bool { return i%pods == pod })
		expectations = append(expectations, expect(around(fmt.Sprintf(`{pod="%d"}`, pod), some...), "process_cpu", some...))
	}
	middle := of(func(i int) bool { return i >= 100 && i < 300 && (i%pods == 1 || i%pods == 2 || i%pods == 7) })
	expectations = append(expectations, expect(around(`{pod=~"1|2|7"}`, middle...), "process_cpu", middle...))
	verify := func(when string, n *nodetest.Node) {
		t.Helper()
		for i, e := range expectations {
			e.verify(t, n)
			if pod := i - 1 - len(services); pod >= 0 && pod < pods {
				group := seriesSum(t, n, expectations[0].scope, e.ids[1], "pod")[fmt.Sprintf("pod=%d", pod)]
				if group != e.answers[1].Total {
					t.Errorf("time series of pod %d sums to %d, want %d", pod, group, e.answers[1].Total)
				}
			}
		}
		if t.Failed() {
			t.Fatalf("wrong %s", when)
		}
	}
	verify("before compaction", n)
	n = nodetest.Compacting(n)
	waitCompacted(t, n)
	verify("after compaction", n)
	n = n.Restart()
	verify("after a restart", n)
}
