package metastore

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"log/slog"
	"maps"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	compactionv1 "github.com/kilndb/kiln/api/kiln/compaction/v1"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/metastore/compaction"
	"github.com/kilndb/kiln/metastore/index"
	"github.com/kilndb/kiln/metastore/snapshots"
	"github.com/kilndb/kiln/objstore"
	"github.com/kilndb/kiln/objstore/memory"
)

// encoded is an object that is nothing but its footer. It sets the size in m.
func encoded(m *storagev1.BlockMeta) []byte {
	m.Size = 1 // fixed width
	n := proto.Size(m)
	m.Size = uint64(5 + n + 13)
	footer, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(err)
	}
	b := append([]byte("KILN\x01"), footer...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(footer)))
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(footer, crc32.MakeTable(crc32.Castagnoli)))
	return append(b, "\x01KILN"...)
}

// history is a metastore, its bucket, and what is in every object that was ever stored.
type history struct {
	t       *testing.T
	random  *rand.Rand
	bucket  objstore.Bucket
	content map[string]map[portion]bool // of every object, by id
	acked   map[portion]bool
	late    []*storagev1.BlockMeta     // segments that are stored and not registered yet
	held    []*compactionv1.Assignment // by workers that are slow
	*running
	steps []string
}

// portion is what one segment has of one tenant.
type portion struct{ segment, tenant string }

var historyTenants = []string{"a", "b", "c"}

func (h *history) put(m *storagev1.BlockMeta, content map[portion]bool) {
	h.t.Helper()
	h.content[m.GetId()] = content
	if err := h.bucket.Put(h.t.Context(), block.Key(m), encoded(m)); err != nil {
		h.t.Fatal(err)
	}
}

// push stores a segment, and registers it unless the writer dies, or is slow.
func (h *history) push() {
	var ds []dataset
	content := map[portion]bool{}
	id := newID()
	for _, name := range historyTenants {
		if h.random.Intn(2) == 0 {
			ds = append(ds, dataset{name, "web", 1, 2})
			content[portion{id, name}] = true
		}
	}
	if len(ds) == 0 {
		return
	}
	m := segment(id, uint32(h.random.Intn(2)), ds...)
	h.put(m, content)
	switch h.random.Intn(8) {
	case 0: // it died
	case 1:
		h.late = append(h.late, m)
	default:
		h.register(m)
	}
}

func (h *history) register(m *storagev1.BlockMeta) {
	if err := h.add(m); connect.CodeOf(err) == connect.CodeInvalidArgument {
		return // the sweep took it for an orphan: it is too late
	} else if err != nil {
		h.t.Fatal(err)
	}
	maps.Copy(h.acked, h.content[m.GetId()])
}

func (h *history) registerLate() {
	for _, m := range h.late {
		h.register(m)
	}
	h.late = nil
}

// work takes a job and does it, or a part of it.
func (h *history) work() {
	for _, a := range h.poll("w", 1, 5*time.Second) {
		switch h.random.Intn(8) {
		case 0:
			h.held = append(h.held, a)
		case 1:
			h.attempt(a, 1+h.random.Intn(3), false) // dies after some of its uploads
		case 2:
			h.attempt(a, 9, false) // dies before its report
		case 3:
			if err := h.fail("w", a, "test"); err != nil {
				h.t.Fatal(err)
			}
		default:
			h.attempt(a, 9, true)
		}
	}
}

// attempt uploads at most so many outputs of a job, and reports them.
func (h *history) attempt(a *compactionv1.Assignment, uploads int, report bool) {
	outputs := merged(a)
	slices.SortFunc(outputs, func(x, y *storagev1.BlockMeta) int { return strings.Compare(tenantName(x), tenantName(y)) })
	for i, m := range outputs {
		m.Sources = nil
		content := map[portion]bool{}
		for _, s := range a.GetSources() {
			if !slices.Contains(tenantsOf(s), tenantName(m)) {
				continue
			}
			m.Sources = append(m.Sources, s.GetId()) // as workers do: only those with the tenant
			for l := range h.content[s.GetId()] {
				if l.tenant == tenantName(m) {
					if content[l] {
						h.t.Fatalf("%v is merged twice", l)
					}
					content[l] = true
				}
			}
		}
		if i < uploads {
			h.put(m, content)
		}
	}
	if report {
		_ = h.complete("w", a, outputs) // whether it counts is up to the token
	}
}

func tenantName(m *storagev1.BlockMeta) string { return m.GetStrings()[m.GetTenant()] }

// zombie has a worker report that was slow.
func (h *history) zombie() {
	for _, a := range h.held {
		h.attempt(a, 9, true)
	}
	h.held = nil
}

func (h *history) step() {
	steps := []struct {
		name   string
		weight int
		do     func()
	}{
		{"push", 10, h.push},
		{"work", 10, h.work},
		{"late", 1, h.registerLate},
		{"zombie", 1, h.zombie},
		{"seconds", 3, func() { time.Sleep(time.Duration(1+h.random.Intn(20)) * time.Second) }},
		{"minutes", 1, func() { time.Sleep(time.Duration(5+h.random.Intn(20)) * time.Minute) }},
	}
	n := 0
	for _, s := range steps {
		n += s.weight
	}
	n = h.random.Intn(n)
	for _, s := range steps {
		if n -= s.weight; n < 0 {
			h.steps = append(h.steps, s.name)
			s.do()
			return
		}
	}
}

func (h *history) start(dir string) {
	h.running = serving(h.t, dir, h.bucket, historyConfig)
}

func historyConfig(c *Config) {
	c.Levels = []compaction.Level{
		{Level: 0, MinSources: 4, MaxAge: 10 * time.Second, MaxSources: 6, MaxBytes: 1 << 20},
		{Level: 1, MinSources: 2, MaxAge: time.Minute, MaxSources: 4, MaxBytes: 1 << 20},
		{Level: 2, MinSources: 2, MaxAge: 5 * time.Minute, MaxSources: 4, MaxBytes: 1 << 20},
	}
	c.Grace = 3 * time.Minute
	c.Snapshots = SnapshotConfig{Interval: 15 * time.Minute, Entries: 1 << 40, Keep: 3}
	c.Sweep = SweepConfig{Interval: 5 * time.Minute, Age: 30 * time.Minute, Apart: 10 * time.Minute}
}

// wipe loses the metastore and rebuilds it from the bucket.
func (h *history) wipe(dir string) Rebuilt {
	h.t.Helper()
	h.stop()
	h.held = nil // their jobs are gone
	cfg := DefaultConfig(dir)
	historyConfig(&cfg)
	report, err := Rebuild(h.t.Context(), cfg, h.bucket, slog.New(slog.DiscardHandler))
	if err != nil {
		h.t.Fatal(err)
	}
	return report
}

// check counts every portion in the answers.
func (h *history) check() {
	h.t.Helper()
	for _, name := range historyTenants {
		count := map[portion]int{}
		for _, id := range h.ids(name) {
			for l := range h.content[id] {
				if l.tenant == name {
					count[l]++
				}
			}
		}
		for l := range h.acked {
			if l.tenant == name && count[l] != 1 {
				h.t.Errorf("%v is in %d entries", l, count[l])
			}
		}
		for l, n := range count {
			if n > 1 {
				h.t.Errorf("%v, acknowledged %v, is in %d entries", l, h.acked[l], n)
			}
		}
	}
	for _, m := range h.machine.index.View().Find(index.Query{Tenants: historyTenants}) {
		if _, err := h.bucket.Attributes(h.t.Context(), block.Key(m)); err != nil {
			h.t.Errorf("the index has %s: %v", m.GetId(), err)
		}
	}
}

// fastDir is a directory in memory where there is such a thing: nothing here is about the disk.
func fastDir(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "kiln")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestAWipedMetastoreIsRebuiltExactly(t *testing.T) {
	seeds := 6
	if testing.Short() {
		seeds = 3
	}
	for seed := range int64(seeds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			dir := fastDir(t)
			synctest.Test(t, func(t *testing.T) {
				h := &history{
					t: t, random: rand.New(rand.NewSource(seed)),
					bucket:  &skewed{memory.New(), time.Duration(rand.New(rand.NewSource(seed)).Intn(5)-2) * 12 * time.Hour},
					content: map[string]map[portion]bool{}, acked: map[portion]bool{},
				}
				h.start(filepath.Join(dir, "0"))
				for round := 1; round <= 3; round++ {
					for range 20 + h.random.Intn(100) {
						h.step()
					}
					h.check()
					if h.random.Intn(2) == 0 {
						h.tear()
					}
					next := filepath.Join(dir, fmt.Sprint(round))
					report := h.wipe(next)
					for _, p := range report.Problems {
						if !strings.HasPrefix(p.Key, snapshots.Prefix) {
							t.Errorf("problem: %+v", p)
						}
					}
					h.start(next)
					if got := h.machine.index.View().Levels(); report.Entries != total(got) {
						t.Errorf("%d entries are reported, there are %v", report.Entries, got)
					}
					h.check()
					if t.Failed() {
						t.Fatalf("seed %d, round %d, after %v", seed, round, h.steps)
					}
				}
				h.cleared()
				h.stop()
			})
		})
	}
}

// cleared wants nothing to be left in the bucket that nobody names, after a while.
func (h *history) cleared() {
	h.t.Helper()
	for jobs := h.poll("w", 10, 30*time.Second); len(jobs) > 0; jobs = h.poll("w", 10, 30*time.Second) {
		for _, a := range jobs {
			h.attempt(a, 9, true)
		}
	}
	time.Sleep(2 * time.Hour)
	synctest.Wait()
	h.check()
	var all []objstore.Attributes
	for _, prefix := range []string{"segments/", "blocks/"} {
		if err := h.bucket.List(h.t.Context(), prefix, func(a objstore.Attributes) error {
			all = append(all, a)
			return nil
		}); err != nil {
			h.t.Fatal(err)
		}
	}
	w := &sweeper{m: h.Metastore}
	unnamed, err := w.unnamed(all)
	if err != nil {
		h.t.Fatal(err)
	}
	claimed, err := w.claimed()
	if err != nil {
		h.t.Fatal(err)
	}
	for _, a := range unnamed {
		if m, err := readEntry(h.t.Context(), h.bucket, a); err != nil || !anyOf(claimed, m.GetSources()) {
			h.t.Errorf("%s of %v is left (%v)", a.Key, a.ModTime, err)
		}
	}
}

// skewed is a bucket whose clock is off.
type skewed struct {
	objstore.Bucket
	by time.Duration
}

func (s *skewed) Attributes(ctx context.Context, key string) (objstore.Attributes, error) {
	a, err := s.Bucket.Attributes(ctx, key)
	a.ModTime = a.ModTime.Add(s.by)
	return a, err
}

func (s *skewed) List(ctx context.Context, prefix string, fn func(objstore.Attributes) error) error {
	return s.Bucket.List(ctx, prefix, func(a objstore.Attributes) error {
		a.ModTime = a.ModTime.Add(s.by)
		return fn(a)
	})
}

// tear leaves a snapshot in the bucket that is newer than all, and not whole.
func (h *history) tear() {
	all := h.stored()
	if len(all) == 0 {
		return
	}
	content, err := h.bucket.Get(h.t.Context(), all[0].Key)
	if err != nil {
		h.t.Fatal(err)
	}
	at := h.state.Position()
	at.Index++
	if _, err := snapshots.Put(h.t.Context(), h.bucket, at, strings.NewReader(string(content[:len(content)-3])), int64(len(content)-3)); err != nil {
		h.t.Fatal(err)
	}
}

func TestRebuildTellsWhatIsDamaged(t *testing.T) {
	ctx, bucket, dir := context.Background(), memory.New(), t.TempDir()
	put := func(m *storagev1.BlockMeta, change func([]byte) []byte) string {
		b := encoded(m)
		if change != nil {
			b = change(b)
		}
		if err := bucket.Put(ctx, block.Key(m), b); err != nil {
			t.Fatal(err)
		}
		return block.Key(m)
	}
	web := dataset{"a", "web", 1, 2}
	good := segment(newID(), 1, web)
	put(good, nil)
	var bad []string
	bad = append(bad, put(segment(newID(), 1, web), func(b []byte) []byte { return b[:len(b)/2] }))
	bad = append(bad, put(segment(newID(), 1, web), func(b []byte) []byte { b[20] ^= 1; return b }))
	bad = append(bad, put(segment(newID(), 1, web), func([]byte) []byte { return nil }))
	if err := bucket.Put(ctx, "segments/1/README", []byte("hello")); err != nil {
		t.Fatal(err)
	}
	elsewhere := segment(newID(), 2, web)
	if err := bucket.Put(ctx, "segments/3/"+elsewhere.GetId(), encoded(elsewhere)); err != nil {
		t.Fatal(err)
	}
	bad = append(bad, "segments/1/README", "segments/3/"+elsewhere.GetId())
	report, err := Rebuild(ctx, DefaultConfig(dir), bucket, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range report.Problems {
		got = append(got, p.Key)
	}
	if slices.Sort(bad); !slices.Equal(got, bad) || report.Entries != 1 || report.Cluster == "" {
		t.Errorf("problems are %v, want %v; %+v", got, bad, report)
	}
	if _, err := Rebuild(ctx, DefaultConfig(dir), bucket, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("an index was rebuilt over another")
	}
	r := serving(t, dir, bucket)
	if got := r.ids("a"); !slices.Equal(got, []string{good.GetId()}) {
		t.Errorf("found %v", got)
	}
	if got := r.state.Position().Cluster; got != report.Cluster {
		t.Errorf("the cluster is %q, reported %q", got, report.Cluster)
	}
	r.mustAdd(segment(newID(), 1, web))
	r.stop()
	r = serving(t, dir, bucket) // the log goes on from the rebuilt state
	if got := r.ids("a"); len(got) != 2 {
		t.Errorf("after a restart %v are found", got)
	}
}

func total(levels []index.Level) (entries int) {
	for _, l := range levels {
		entries += int(l.Entries)
	}
	return entries
}

// tenantsOf returns the tenants that an object has data of.
func tenantsOf(m *storagev1.BlockMeta) []string {
	var names []string
	for _, d := range m.GetDatasets() {
		names = append(names, m.GetStrings()[d.GetTenant()])
	}
	return slices.Compact(names) // datasets are sorted
}
