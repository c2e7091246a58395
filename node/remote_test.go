package node_test

import (
	"fmt"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	gprofile "github.com/google/pprof/profile"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"github.com/kilndb/kiln/node"
	"github.com/kilndb/kiln/node/nodetest"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/oracle"
)

// TestRemoteBucket keeps its objects in an S3 server: pushes gather, blocks replace segments, and the sources
// are deleted after the grace.
func TestRemoteBucket(t *testing.T) {
	objects := s3mem.New()
	if err := objects.CreateBucket("profiles"); err != nil {
		t.Fatal(err)
	}
	s3 := httptest.NewServer(gofakes3.New(objects).Server())
	t.Cleanup(s3.Close)
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "testsecret")
	n := nodetest.New(t).Whole(func(cfg *node.Config) {
		cfg.Bucket = fmt.Sprintf("s3://profiles?endpoint=%s&region=us-east-1&use_path_style=true", s3.URL)
		cfg.CompactAfter, cfg.DeleteAfter = time.Second, time.Second
	})
	base, start := oracle.Parse(corpus.Get("compress-mutex-1").Gzipped), time.Now().Add(-time.Minute).Truncate(time.Millisecond)
	sent := make([]*gprofile.Profile, 40)
	var group sync.WaitGroup
	for i := range sent {
		profile, body := scaled(base, int64(i+1), start.Add(time.Duration(i)*time.Millisecond))
		sent[i] = profile
		group.Go(func() {
			if err := push(n, "", series("mutex", "remote", body, "push", fmt.Sprint(i))); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	want := expect(around(`{}`, sent...), "mutex", sent...)
	want.verify(t, n)
	waitCompacted(t, n)
	want.verify(t, n)
	count := func(prefix string) int {
		list, err := objects.ListBucket("profiles", &gofakes3.Prefix{HasPrefix: true, Prefix: prefix}, gofakes3.ListBucketPage{})
		if err != nil {
			t.Fatal(err)
		}
		return len(list.Contents)
	}
	for deadline := time.Now().Add(20 * time.Second); count("segments/") > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d replaced segments are still in the bucket", count("segments/"))
		}
	}
	if count("blocks/anonymous/") == 0 {
		t.Error("there are no blocks in the bucket")
	}
	want.verify(t, n)
}
