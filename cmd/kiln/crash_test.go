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

const pushesBeforeCrash = 2000

// numbered is profile i of the crash test: the base times i+1, captured at a moment of its own.
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

// TestKillDuringPushes kills the server among 2,000 concurrent pushes and wants every acknowledged one to be
// there exactly once after a restart, still after compaction, and after the metastore was lost and rebuilt from the bucket.
func TestKillDuringPushes(t *testing.T) {
	dir := t.TempDir()
	p := serve(t, "--data-dir", dir, "--compact-after", "200ms")
	base := oracle.Parse(corpus.Get("regexp-mutex-1").Gzipped)
	start := time.Now().Add(-time.Minute).Truncate(time.Millisecond)
	totals := make([]int64, pushesBeforeCrash)
	acked := make([]atomic.Bool, pushesBeforeCrash)
	var acks, sent atomic.Int64
	client := pushv1connect.NewPusherServiceClient(&http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 128}, Timeout: 20 * time.Second}, p.url)
	var senders sync.WaitGroup
	for range 64 {
		senders.Go(func() {
			for {
				i := int(sent.Add(1) - 1)
				if i >= pushesBeforeCrash {
					return
				}
				total, body := numbered(base, i, start)
				totals[i] = total
				_, err := client.Push(context.Background(), connect.NewRequest(&pushv1.PushRequest{Series: []*pushv1.RawProfileSeries{{
					Labels:  []*typesv1.LabelPair{{Name: "__name__", Value: "mutex"}, {Name: "service_name", Value: fmt.Sprintf("service-%d", i%20)}, {Name: "push", Value: strconv.Itoa(i)}},
					Samples: []*pushv1.RawSample{{RawProfile: body}},
				}}}))
				if err == nil {
					acked[i].Store(true)
					if acks.Add(1) == pushesBeforeCrash/3 {
						go p.kill()
					}
				}
			}
		})
	}
	senders.Wait()
	<-p.ended
	if n := acks.Load(); n < pushesBeforeCrash/3 || n == pushesBeforeCrash {
		t.Fatalf("%d of %d pushes were acknowledged: the crash did not come among them", n, pushesBeforeCrash)
	}
	p = serve(t, "--data-dir", dir, "--compact-after", "200ms")
	verify := func(when string) {
		t.Helper()
		stored := pushesStored(t, p, start)
		found := 0
		for i := range pushesBeforeCrash {
			switch got := stored[i]; {
			case acked[i].Load() && got != totals[i]:
				t.Errorf("%s: acknowledged push %d is there with %d, want %d", when, i, got, totals[i])
			case !acked[i].Load() && got != 0 && got != totals[i]:
				t.Errorf("%s: unacknowledged push %d is there with %d, want 0 or %d", when, i, got, totals[i])
			case got != 0:
				found++
			}
		}
		t.Logf("%s: %d acknowledged, %d stored", when, acks.Load(), found)
	}
	verify("after the restart")
	waitNoSegments(t, p)
	verify("after compaction")
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
	verify("after the index was rebuilt from the bucket")
	waitNoSegments(t, p)
	verify("after compaction of the rebuilt index")
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

// pushesStored asks for the value of every push by its label.
func pushesStored(t *testing.T, p *process, start time.Time) map[int]int64 {
	t.Helper()
	resp, err := querierv1connect.NewQuerierServiceClient(http.DefaultClient, p.url).SelectSeries(context.Background(), connect.NewRequest(&querierv1.SelectSeriesRequest{
		ProfileTypeID: "mutex:delay:nanoseconds:contentions:count", LabelSelector: `{}`, Step: 3600, GroupBy: []string{"push"},
		Start: start.UnixMilli(), End: start.UnixMilli() + pushesBeforeCrash,
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
