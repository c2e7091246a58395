package node_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/oklog/ulid/v2"
	"google.golang.org/protobuf/proto"

	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	"github.com/kilndb/kiln/api/kiln/metastore/v1/metastorev1connect"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/node"
	"github.com/kilndb/kiln/node/nodetest"
	"github.com/kilndb/kiln/objstore"
	"github.com/kilndb/kiln/objstore/memory"
	"github.com/kilndb/kiln/objstore/objstoretest"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/oracle"
	"github.com/kilndb/kiln/segmentwriter/segmentwritertest"
)

// docs/operations/faults.md says which fault is tested where.

// TestTheTableOfFaultsNamesTests keeps the table true where tests are renamed.
func TestTheTableOfFaultsNamesTests(t *testing.T) {
	table, err := os.ReadFile("../docs/operations/faults.md")
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	err = filepath.WalkDir("..", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, m := range declared.FindAllSubmatch(source, -1) {
			tests[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`(Test\\w+)`").FindAllSubmatch(table, -1)
	if len(named) < 16 {
		t.Errorf("the table names %d tests", len(named))
	}
	for _, m := range named {
		if !tests[string(m[1])] {
			t.Errorf("there is no %s", m[1])
		}
	}
}

// audited is a bucket that fails the test where a key is given other bytes than it had.
type audited struct {
	objstore.Bucket
	t *testing.T

	mu   sync.Mutex
	sums map[string][sha256.Size]byte // guarded by mu; by key
}

func (a *audited) Put(ctx context.Context, key string, data []byte) error {
	a.check(key, sha256.Sum256(data))
	return a.Bucket.Put(ctx, key, data)
}

func (a *audited) check(key string, sum [sha256.Size]byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if old, ok := a.sums[key]; ok && old != sum {
		a.t.Errorf("%s is overwritten with other bytes", key)
	}
	a.sums[key] = sum
}

// faulty is a bucket whose puts take 20 ms, until it is told otherwise.
func faulty(t *testing.T) *objstoretest.Faulty {
	f := objstoretest.NewFaulty(&audited{Bucket: memory.New(), t: t, sums: map[string][sha256.Size]byte{}})
	heal(f)
	return f
}

func heal(f *objstoretest.Faulty) {
	f.Heal()
	puts(f, objstoretest.BeforePut, func(int) (time.Duration, error) { return 20 * time.Millisecond, nil })
}

var errInjected = errors.New("injected fault")

// puts makes each put of a segment take a time and fail, or not, at a step. do is given a number below 100 at random. Compaction
// has tests of its own.
func puts(f *objstoretest.Faulty, at objstoretest.Step, do func(percent int) (time.Duration, error)) {
	f.Do(at, func(ctx context.Context, key string) error {
		if !strings.HasPrefix(key, "segments/") {
			return nil
		}
		took, err := do(rand.IntN(100))
		select {
		case <-time.After(took):
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	})
}

// newClients returns a stream of clients that push about once a second.
func newClients() *stream {
	s := newStream()
	s.think = time.Second
	return s
}

// within5s waits for an acknowledged push and wants it soon.
func (s *stream) within5s(t *testing.T) {
	t.Helper()
	before, begun := s.acks(), time.Now()
	for s.acks() == before && time.Since(begun) < time.Minute {
		time.Sleep(100 * time.Millisecond)
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("the first push was acknowledged %s after the end of the fault", took)
	}
}

// inflight returns the bytes that the segment-writer of a node holds.
func inflight(t *testing.T, n *nodetest.Node) int64 {
	t.Helper()
	return int64(metric(t, n, "kiln_segment_writer_inflight_bytes"))
}

// metric returns a number that a node says of itself; 0 if it says nothing.
func metric(t *testing.T, n *nodetest.Node, name string) float64 {
	t.Helper()
	resp, err := n.HTTP().Get(n.URL() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(body), "\n"+name+" ")
	if !ok {
		return 0
	}
	text, _, _ := strings.Cut(after, "\n")
	value, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// TestFaultsOfTheBucketUnderPushes has pushes keep coming while the bucket is in trouble for half a minute, and compaction running.
func TestFaultsOfTheBucketUnderPushes(t *testing.T) {
	const before, after = objstoretest.BeforePut, objstoretest.AfterPut
	for name, c := range map[string]struct {
		fault func(*objstoretest.Faulty)
		acks  bool // whether pushes are acknowledged meanwhile
	}{
		"slow": {func(f *objstoretest.Faulty) {
			puts(f, before, func(percent int) (time.Duration, error) {
				if percent < 2 {
					return 5 * time.Second, nil
				}
				return time.Duration(percent) * 10 * time.Millisecond, nil
			})
		}, true},
		"60 % fail": {func(f *objstoretest.Faulty) {
			puts(f, before, func(percent int) (time.Duration, error) {
				if percent < 60 {
					return 20 * time.Millisecond, errInjected
				}
				return 20 * time.Millisecond, nil
			})
		}, true},
		"answers are lost": {func(f *objstoretest.Faulty) {
			puts(f, after, func(percent int) (time.Duration, error) {
				if percent < 60 {
					return time.Second, errInjected
				}
				return 20 * time.Millisecond, nil
			})
		}, true},
		"down": {func(f *objstoretest.Faulty) {
			puts(f, before, func(int) (time.Duration, error) { return 0, errInjected })
		}, false},
		"hanging": {func(f *objstoretest.Faulty) {
			puts(f, before, func(int) (time.Duration, error) { return time.Hour, nil })
		}, false},
		"all answers are lost": {func(f *objstoretest.Faulty) {
			puts(f, after, func(int) (time.Duration, error) { return 20 * time.Millisecond, errInjected })
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			segmentwritertest.Bubble(t, func(t *testing.T) {
				bucket := faulty(t)
				cluster := nodetest.New(t)
				cluster.Bucket = bucket
				n := cluster.Whole(func(cfg *node.Config) {
					cfg.Bucket = "s3://faulty"
					cfg.CompactAfter, cfg.DeleteAfter = 5*time.Second, 5*time.Second
				})
				s := newClients()
				stop := s.run(n, 8)
				time.Sleep(10 * time.Second) // some are compacted, and the pace of puts is known
				bucket.Heal()
				c.fault(bucket)
				time.Sleep(time.Second) // what was on its way has landed
				acks, held := s.acks(), int64(0)
				for range 30 {
					time.Sleep(time.Second)
					held = max(held, inflight(t, n))
				}
				if acked := s.acks() - acks; (acked > 0) != c.acks {
					t.Errorf("%d pushes were acknowledged during the fault", acked)
				}
				if held > 16<<20 {
					t.Errorf("the writer held up to %d bytes for 8 clients", held)
				}
				early := scope{selector: `{push="0"}`, start: s.start.UnixMilli(), end: s.start.UnixMilli()}
				if got := flameTotal(t, n, early, typeID("mutex", s.base, 1)); got != oracle.Sum("delay", s.base).Total {
					t.Errorf("during the fault the first push is read as %d", got)
				}
				heal(bucket)
				s.within5s(t)
				stop()
				s.verify(t, n)
				waitCompacted(t, n)
				s.verify(t, n)
				t.Logf("%d of %d pushes acknowledged, up to %d bytes held", s.acks(), s.sent, held)
			})
		})
	}
}

// TestWithoutAMetastoreNothingIsAcknowledged cuts the metastore off for half a minute, and then restarts it, while pushes keep coming.
func TestWithoutAMetastoreNothingIsAcknowledged(t *testing.T) {
	segmentwritertest.Bubble(t, func(t *testing.T) {
		p := apart(t, faulty(t), 2, nil)
		s := newClients()
		stop := s.run(p.front, 8)
		time.Sleep(5 * time.Second)
		p.cluster.Partition("store:4040", true)
		synctest.Wait() // what had left it arrives
		acks := s.acks()
		time.Sleep(30 * time.Second)
		if acked := s.acks() - acks; acked > 0 {
			t.Errorf("%d pushes were acknowledged without the metastore", acked)
		}
		p.cluster.Partition("store:4040", false)
		s.within5s(t)
		time.Sleep(5 * time.Second)
		p.store = p.store.Restart()
		s.within5s(t)
		stop()
		s.verify(t, p.front)
		t.Logf("%d of %d pushes acknowledged", s.acks(), s.sent)
	})
}

// TestAWriterThatVanishes cuts a writer off while pushes keep coming: those that it has are of unknown fate, the others go to
// the other writer, and nothing is lost or there twice.
func TestAWriterThatVanishes(t *testing.T) {
	segmentwritertest.Bubble(t, func(t *testing.T) {
		p := apart(t, faulty(t), 2, nil)
		s := newClients()
		stop := s.run(p.front, 8)
		time.Sleep(5 * time.Second)
		p.cluster.Partition("writer-0:4040", true)
		time.Sleep(15 * time.Second) // now it has been asked for a sign of life
		failed, acks := s.failures(), s.acks()
		time.Sleep(20 * time.Second)
		if more := s.failures() - failed; more > 0 || s.acks() == acks {
			t.Errorf("%d pushes failed and %d did not while one of two writers was known to be gone", more, s.acks()-acks)
		}
		if failed == 0 || failed > 8 { // none would mean that somebody sent them twice
			t.Errorf("%d pushes failed, of 8 clients that wait for their answers", failed)
		}
		p.cluster.Partition("writer-0:4040", false)
		s.within5s(t)
		stop()
		s.verify(t, p.front)
		t.Logf("%d of %d pushes acknowledged", s.acks(), s.sent)
	})
}

func (s *stream) failures() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.failed)
}

// TestASegmentIsTakenOnce proposes a segment again when it has been compacted away and deleted, and after a restart; and segments of
// writers whose clocks are wrong.
func TestASegmentIsTakenOnce(t *testing.T) {
	segmentwritertest.Bubble(t, func(t *testing.T) {
		bucket := faulty(t)
		cluster := nodetest.New(t)
		cluster.Bucket = bucket
		n := cluster.Whole(func(cfg *node.Config) {
			cfg.Bucket, cfg.RPC = "s3://faulty", "kiln:4041"
			cfg.CompactAfter, cfg.DeleteAfter = 5*time.Second, 5*time.Second
		})
		s := newStream()
		if err := s.push(n); err != nil {
			t.Fatal(err)
		}
		index := func() metastorev1connect.IndexServiceClient {
			return metastorev1connect.NewIndexServiceClient(n.HTTP(), "http://kiln:4041")
		}
		entries := func() []*storagev1.BlockMeta {
			t.Helper()
			found, err := index().Find(t.Context(), connect.NewRequest(&metastorev1.FindRequest{Tenants: []string{"anonymous"}}))
			if err != nil {
				t.Fatal(err)
			}
			return found.Msg.GetEntries()
		}
		add := func(m *storagev1.BlockMeta) {
			t.Helper()
			if _, err := index().AddSegments(t.Context(), connect.NewRequest(&metastorev1.AddSegmentsRequest{Segments: []*storagev1.BlockMeta{m}})); err != nil {
				t.Errorf("segment %s: %v", m.GetId(), err)
			}
		}
		segment := entries()[0]
		object, err := bucket.Get(t.Context(), block.Key(segment))
		if err != nil || segment.GetLevel() != 0 {
			t.Fatalf("entry %v, %v", segment, err)
		}
		waitCompacted(t, n)
		for _, err = bucket.Attributes(t.Context(), block.Key(segment)); err == nil; _, err = bucket.Attributes(t.Context(), block.Key(segment)) {
			time.Sleep(time.Second)
		}
		for range 2 {
			if err := bucket.Put(t.Context(), block.Key(segment), object); err != nil { // a put that is late
				t.Fatal(err)
			}
			add(segment)
			if got := entries(); len(got) != 1 || got[0].GetId() == segment.GetId() {
				t.Errorf("entries %v: the segment is back", got)
			}
			s.verify(t, n)
			n = n.Restart()
		}
		for _, skew := range []time.Duration{time.Hour, -time.Hour} {
			other := proto.CloneOf(segment)
			other.Id = ulid.MustNew(ulid.Timestamp(time.Now().Add(skew)), bytes.NewReader(make([]byte, 10))).String()
			before := len(entries())
			add(other)
			add(other)
			if got := len(entries()); got != before+1 {
				t.Errorf("a segment of a clock that is %s ahead: %d entries, want %d", skew, got, before+1)
			}
		}
	})
}

// TestAPushIsTakenOnceHoweverOftenItIsSent repeats a push with its id, in other segments and shards: once compacted it counts once.
func TestAPushIsTakenOnceHoweverOftenItIsSent(t *testing.T) {
	segmentwritertest.Bubble(t, func(t *testing.T) {
		cluster := nodetest.New(t)
		cluster.Bucket = faulty(t)
		n := cluster.Whole(func(cfg *node.Config) { cfg.Bucket = "s3://faulty"; cfg.CompactAfter = 5 * time.Second })
		p, body := scaled(oracle.Parse(corpus.Get("regexp-mutex-1").Gzipped), 3, time.Now().Add(-time.Minute).Truncate(time.Millisecond))
		for i := range 3 {
			again := series("mutex", "again", body)
			again.Samples[0].ID = "01234567-89ab-cdef-0123-456789abcdef"
			if err := push(n, "", again); err != nil {
				t.Fatalf("push %d: %v", i, err)
			}
		}
		waitCompacted(t, n)
		mustEqual(t, n, around(`{}`, p), "mutex", p)
	})
}
