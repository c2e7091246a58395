package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	gprofile "github.com/google/pprof/profile"
	pushv1 "github.com/grafana/pyroscope/api/gen/proto/go/push/v1"
	"github.com/grafana/pyroscope/api/gen/proto/go/push/v1/pushv1connect"
	querierv1 "github.com/grafana/pyroscope/api/gen/proto/go/querier/v1"
	"github.com/grafana/pyroscope/api/gen/proto/go/querier/v1/querierv1connect"
	typesv1 "github.com/grafana/pyroscope/api/gen/proto/go/types/v1"

	compactionv1 "github.com/kilndb/kiln/api/kiln/compaction/v1"
	"github.com/kilndb/kiln/api/kiln/compaction/v1/compactionv1connect"
	"github.com/kilndb/kiln/metastore/fsck"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/oracle"
)

// mostPushes is as many as a test makes: they are a millisecond apart.
const mostPushes = 10_000

// pushes are numbered profiles, and what was said of each.
type pushes struct {
	base   *gprofile.Profile
	start  time.Time
	totals []int64 // of those that were sent
	acked  []atomic.Bool
	acks   atomic.Int64
}

func newPushes(n int) *pushes {
	return &pushes{
		base: oracle.Parse(corpus.Get("regexp-mutex-1").Gzipped), start: time.Now().Add(-time.Minute).Truncate(time.Millisecond),
		totals: make([]int64, n), acked: make([]atomic.Bool, n),
	}
}

// numbered is profile i: the base times i+1, captured at a moment of its own.
func numbered(base *gprofile.Profile, i int, start time.Time) (total int64, body []byte) {
	p := base.Copy()
	p.TimeNanos = start.Add(time.Duration(i) * time.Millisecond).UnixNano()
	for _, s := range p.Sample {
		for j := range s.Value {
			s.Value[j] *= int64(i + 1)
		}
	}
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		panic(err)
	}
	return oracle.Sum("delay", p).Total, b.Bytes()
}

// send pushes profile i once and returns how many are acknowledged, or 0 if this one is not.
func (x *pushes) send(client pushv1connect.PusherServiceClient, i int) int64 {
	total, body := numbered(x.base, i, x.start)
	x.totals[i] = total
	_, err := client.Push(context.Background(), connect.NewRequest(&pushv1.PushRequest{Series: []*pushv1.RawProfileSeries{{
		Labels:  []*typesv1.LabelPair{{Name: "__name__", Value: "mutex"}, {Name: "service_name", Value: fmt.Sprintf("service-%d", i%20)}, {Name: "push", Value: strconv.Itoa(i)}},
		Samples: []*pushv1.RawSample{{RawProfile: body}},
	}}}))
	if err != nil {
		return 0
	}
	x.acked[i].Store(true)
	return x.acks.Add(1)
}

// waitAcked waits until that many more pushes are acknowledged.
func (x *pushes) waitAcked(t *testing.T, more int64) {
	t.Helper()
	want := x.acks.Load() + more
	for deadline := time.Now().Add(30 * time.Second); x.acks.Load() < want; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d pushes are acknowledged, want %d", x.acks.Load(), want)
		}
	}
}

// verify wants every acknowledged push to be there exactly once, and every other one at most once.
func (x *pushes) verify(t *testing.T, p *process, when string) {
	t.Helper()
	stored, found := pushesStored(t, p, x.start), 0
	for i := range x.totals {
		switch got := stored[i]; {
		case x.acked[i].Load() && got != x.totals[i]:
			t.Errorf("%s: acknowledged push %d is there with %d, want %d", when, i, got, x.totals[i])
		case !x.acked[i].Load() && got != 0 && got != x.totals[i]:
			t.Errorf("%s: unacknowledged push %d is there with %d, want 0 or %d", when, i, got, x.totals[i])
		case got != 0:
			found++
		}
	}
	t.Logf("%s: %d acknowledged, %d stored", when, x.acks.Load(), found)
}

// pushesStored asks for the value of every push by its label.
func pushesStored(t *testing.T, p *process, start time.Time) map[int]int64 {
	t.Helper()
	resp, err := querierv1connect.NewQuerierServiceClient(http.DefaultClient, p.url).SelectSeries(context.Background(), connect.NewRequest(&querierv1.SelectSeriesRequest{
		ProfileTypeID: "mutex:delay:nanoseconds:contentions:count", LabelSelector: `{}`, Step: 3600, GroupBy: []string{"push"},
		Start: start.UnixMilli(), End: start.UnixMilli() + mostPushes,
	}))
	if err != nil {
		t.Fatal(err)
	}
	stored := map[int]int64{}
	for _, s := range resp.Msg.Series {
		i, err := strconv.Atoi(s.Labels[0].Value)
		if err != nil {
			t.Fatal(err)
		}
		for _, point := range s.Points {
			stored[i] += int64(point.Value)
		}
	}
	return stored
}

// pusher returns a client of the server at a URL.
func pusher(url string) pushv1connect.PusherServiceClient {
	return pushv1connect.NewPusherServiceClient(&http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 128}, Timeout: 20 * time.Second}, url)
}

// TestKillDuringPushes kills the server among 2,000 concurrent pushes and wants every acknowledged one to be
// there exactly once after a restart, still after compaction, and after the metastore was lost and rebuilt from the bucket.
func TestKillDuringPushes(t *testing.T) {
	const n = 2000
	dir := t.TempDir()
	p := serve(t, "--data-dir", dir, "--compact-after", "200ms")
	x, client := newPushes(n), pusher(p.url)
	var sent atomic.Int64
	var senders sync.WaitGroup
	for range 64 {
		senders.Go(func() {
			for i := int(sent.Add(1) - 1); i < n; i = int(sent.Add(1) - 1) {
				if x.send(client, i) == n/3 {
					go p.kill()
				}
			}
		})
	}
	senders.Wait()
	<-p.ended
	if acks := x.acks.Load(); acks < n/3 || acks == n {
		t.Fatalf("%d of %d pushes were acknowledged: the crash did not come among them", acks, n)
	}
	p = serve(t, "--data-dir", dir, "--compact-after", "200ms")
	x.verify(t, p, "after the restart")
	waitNoSegments(t, p)
	x.verify(t, p, "after compaction")
	checkBucket(t, dir, "--server", p.url)

	p.kill()
	checkBucket(t, dir)
	if err := os.RemoveAll(filepath.Join(dir, "metastore")); err != nil {
		t.Fatal(err)
	}
	if out := mustKiln(t, "bucket", "rebuild-index", "--data-dir", dir); strings.Contains(out, "problem") {
		t.Errorf("rebuild-index: %s", out)
	}
	if _, errs, err := kiln(t, "bucket", "rebuild-index", "--data-dir", dir); err == nil || !strings.Contains(errs, "there is an index already") {
		t.Errorf("a second time: %v %s", err, errs)
	}
	p = serve(t, "--data-dir", dir, "--compact-after", "200ms")
	x.verify(t, p, "after the index was rebuilt from the bucket")
	waitNoSegments(t, p)
	x.verify(t, p, "after compaction of the rebuilt index")
	checkBucket(t, dir, "--server", p.url)
}

// checkBucket wants nothing to be wrong with the bucket of a server that runs or ran in dir.
func checkBucket(t *testing.T, dir string, more ...string) {
	t.Helper()
	args := append([]string{"bucket", "fsck", "--deep", "-o", "json", "--data-dir", dir}, more...)
	var report fsck.Report
	if err := json.Unmarshal([]byte(mustKiln(t, args...)), &report); err != nil {
		t.Fatal(err)
	}
	if report.Entries == 0 || report.Objects < report.Entries || len(report.Problems) > 0 || len(report.Orphans) > 0 {
		t.Errorf("fsck %v: %+v", more, report)
	}
}

func waitNoSegments(t *testing.T, p *process) {
	t.Helper()
	client := compactionv1connect.NewJobServiceClient(http.DefaultClient, p.url)
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		resp, err := client.List(context.Background(), connect.NewRequest(&compactionv1.ListRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		segments := uint64(0)
		for _, l := range resp.Msg.Levels {
			if l.Level == 0 {
				segments += l.Entries
			}
		}
		if segments == 0 {
			return
		}
	}
	t.Fatal("segments are left after half a minute")
}
