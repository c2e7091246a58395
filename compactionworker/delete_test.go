package compactionworker

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/oklog/ulid/v2"
	"google.golang.org/protobuf/proto"

	adminv1 "github.com/kilndb/kiln/api/kiln/admin/v1"
	compactionv1 "github.com/kilndb/kiln/api/kiln/compaction/v1"
	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/metastore/metastoretest"
	"github.com/kilndb/kiln/objstore"
	"github.com/kilndb/kiln/objstore/memory"
	"github.com/kilndb/kiln/objstore/objstoretest"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/segmentwriter/segmentwritertest"
)

// What is planted in the data that is to be deleted. They share no beginning with any other name, so that no encoding
// stores them in pieces.
const (
	plantedFunction = "QzPlantedFunction_b1946ac92492d2347c6235b4d2611184"
	plantedLabel    = "QyPlantedLabel_591785b794601e212b260e25925636fd"
)

// planted writes a segment: tenant a with a service that holds what is planted and, in the same group, one that does
// not; tenant v with nothing but what is planted; tenant b without.
func planted(t *testing.T, at time.Time) ([]byte, *storagev1.BlockMeta) {
	t.Helper()
	var object bytes.Buffer
	w := block.NewWriter(&object, block.Header{ID: ulid.MustNew(ulid.Timestamp(at), ulid.DefaultEntropy()).String(), Shard: 3, Writer: "test"})
	for _, tenant := range []struct {
		name     string
		services map[string]bool // and whether it holds what is planted
	}{{"a", map[string]bool{"secret": true, "web": false}}, {"b", map[string]bool{"web": false}}, {"v", map[string]bool{"web": true}}} {
		g := w.Group(tenant.name, false)
		names := profile.NewTable()
		for i, name := range []string{"main", "x", plantedFunction} {
			if i == 2 && !slices.Contains(slices.Collect(maps.Values(tenant.services)), true) {
				break
			}
			names.Functions = append(names.Functions, profile.Function{Name: names.AddString([]byte(name))})
			names.Lines = append(names.Lines, profile.Line{Function: uint32(i + 1), Line: 1})
			names.Locations = append(names.Locations, profile.Location{FirstLine: uint32(i), Lines: 1})
		}
		g.Symbols(&names.Symbols)
		var series []labels.Labels
		services := slices.Sorted(maps.Keys(tenant.services))
		for _, s := range services {
			label := "plain"
			if tenant.services[s] {
				label = plantedLabel
			}
			series = append(series, labels.FromStrings("service_name", s, "team", label))
		}
		g.Series(series)
		tree := &profile.StackTree{Parents: []uint32{0, 0, 1}, Locations: []uint32{0, 0, 1}}
		if len(names.Locations) == 3 {
			tree.Parents, tree.Locations = append(tree.Parents, 1), append(tree.Locations, 2)
		}
		trees := g.Trees(tree, nil)
		for i, s := range services {
			node := uint32(2)
			if tenant.services[s] {
				node = 3
			}
			p := block.Profile{Time: at.UnixNano(), Series: uint32(i), ID: profile.NewID(), Duration: 1, Period: 1}
			if err := g.Rows(s, cpu, trees).Append(p, []uint32{node}, [][]int64{{7}, {70}}); err != nil {
				t.Fatal(err)
			}
		}
		if err := g.Close(); err != nil {
			t.Fatal(err)
		}
	}
	meta, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return object.Bytes(), meta
}

func (h *house) register(object []byte, meta *storagev1.BlockMeta) (*metastorev1.AddSegmentsResponse, error) {
	h.t.Helper()
	if err := h.bucket.Put(h.t.Context(), block.Key(meta), object); err != nil {
		h.t.Fatal(err)
	}
	answer, err := h.server.AddSegments(h.t.Context(), connect.NewRequest(&metastorev1.AddSegmentsRequest{Segments: []*storagev1.BlockMeta{meta}}))
	if err != nil {
		return nil, err
	}
	return answer.Msg, nil
}

func (h *house) delete(tenant string, service *string) *adminv1.Deletion {
	h.t.Helper()
	answer, err := h.server.Delete(h.t.Context(), connect.NewRequest(&adminv1.DeleteRequest{Tenant: tenant, Service: service}))
	if err != nil {
		h.t.Fatal(err)
	}
	return answer.Msg.GetDeletion()
}

func (h *house) deletion(id string) *adminv1.Deletion {
	h.t.Helper()
	answer, err := h.server.GetDeletion(h.t.Context(), connect.NewRequest(&adminv1.GetDeletionRequest{Id: id}))
	if err != nil {
		h.t.Fatal(err)
	}
	return answer.Msg.GetDeletion()
}

// objects returns every object in the bucket.
func (h *house) objects() map[string][]byte {
	h.t.Helper()
	all := map[string][]byte{}
	if err := h.bucket.List(h.t.Context(), "", func(a objstore.Attributes) error {
		b, err := h.bucket.Get(h.t.Context(), a.Key)
		all[a.Key] = b
		return err
	}); err != nil {
		h.t.Fatal(err)
	}
	return all
}

// holding returns the keys of the objects that hold what is planted.
func (h *house) holding() []string {
	h.t.Helper()
	return objstoretest.Holding(h.t, h.bucket, plantedFunction, plantedLabel)
}

func TestDeletedIsGoneFromEveryByte(t *testing.T) {
	segmentwritertest.Bubble(t, func(t *testing.T) {
		h := newHouse(t)
		push := func() {
			if _, err := h.register(planted(t, time.Now())); err != nil {
				t.Fatal(err)
			}
		}
		for range 3 {
			push()
		}
		time.Sleep(12 * time.Second) // they become one block per tenant
		synctest.Wait()
		push() // and this is still a segment
		b := h.entries("b")
		block0, bytes0 := block.Key(b[0]), h.objects()[block.Key(b[0])]
		if len(h.holding()) < 3 || bytes0 == nil {
			t.Fatalf("what is planted is in %v only", h.holding())
		}
		before := map[string]map[string]int64{"a": h.totals("a"), "b": h.totals("b"), "v": h.totals("v")}
		equal(t, "a at first", before["a"], map[string]int64{"web;main;x": 28, "secret;main;" + plantedFunction: 28})

		secret := "secret"
		first, second := h.delete("a", &secret), h.delete("v", nil)
		delete(before["a"], "secret;main;"+plantedFunction)
		check := func(when string) {
			t.Helper()
			equal(t, "a "+when, h.totals("a"), before["a"])
			equal(t, "b "+when, h.totals("b"), before["b"])
			if left := h.entries("v"); len(left) != 0 {
				t.Errorf("tenant v %s: %v", when, left)
			}
			for _, m := range h.entries("a") {
				for _, d := range m.GetDatasets() {
					if m.GetStrings()[d.GetService()] == secret {
						t.Errorf("service secret %s is in %s", when, m.GetId())
					}
				}
			}
		}
		check("at once")
		for _, d := range []*adminv1.Deletion{first, second} {
			if d.GetState() != adminv1.DeletionState_DELETION_STATE_HIDDEN || d.GetObjects() != 2 || d.GetRemaining() != 2 {
				t.Errorf("deletion begins as %v", d)
			}
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		check("after the rewriting")
		time.Sleep(11 * time.Minute) // longer than the grace
		synctest.Wait()
		check("after the grace")
		for _, d := range []*adminv1.Deletion{first, second} {
			if got := h.deletion(d.GetId()); got.GetState() != adminv1.DeletionState_DELETION_STATE_FINISHED || got.GetRemaining() != 0 {
				t.Errorf("deletion ends as %v", got)
			}
		}
		if keys := h.holding(); len(keys) != 0 {
			t.Errorf("what is planted is still in %v", keys)
		}
		if !bytes.Equal(h.objects()[block0], bytes0) {
			t.Errorf("%s, which held nothing of it, has changed", block0)
		}
	})
}

// Series are deleted that share their dataset with others, that are all there is of a service, and that are all there is of a
// tenant in every object.
func TestDeletedSeriesAreGoneFromEveryByte(t *testing.T) {
	segmentwritertest.Bubble(t, func(t *testing.T) {
		h := newHouse(t)
		var last *storagev1.BlockMeta
		push := func() {
			object, meta := planted(t, time.Now())
			last = meta
			if _, err := h.register(object, meta); err != nil {
				t.Fatal(err)
			}
		}
		for range 3 {
			push()
			h.push("y", 5, "a/secret") // series of the same service that stay
		}
		time.Sleep(12 * time.Second) // they become one block per tenant
		synctest.Wait()
		push() // and this is still a segment
		before := map[string]map[string]int64{"a": h.totals("a"), "b": h.totals("b")}
		delete(before["a"], "secret;main;"+plantedFunction)
		var all []*adminv1.Deletion
		for _, tenant := range []string{"a", "v"} {
			answer, err := h.server.Delete(t.Context(), connect.NewRequest(&adminv1.DeleteRequest{Tenant: tenant, Selector: `{team=~"QyPlanted.*"}`}))
			if err != nil {
				t.Fatal(err)
			}
			d := answer.Msg.GetDeletion()
			if d.GetState() != adminv1.DeletionState_DELETION_STATE_HIDDEN || d.GetObjects() != 2 || d.GetRemaining() != 2 || d.GetSelector() != `{team=~"QyPlanted.*"}` {
				t.Errorf("deletion begins as %v", d)
			}
			all = append(all, d)
		}
		object, err := h.bucket.Get(t.Context(), block.Key(last))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.register(object, last); err != nil { // its first answer got lost
			t.Errorf("the segment again: %v", err)
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		check := func(when string) {
			t.Helper()
			equal(t, "a "+when, h.totals("a"), before["a"])
			equal(t, "b "+when, h.totals("b"), before["b"])
			if left := h.entries("v"); len(left) != 0 {
				t.Errorf("tenant v %s: %v", when, left)
			}
		}
		check("after the rewriting")
		if len(h.holding()) == 0 {
			t.Error("nothing holds what is planted, before the grace is over: this tests nothing")
		}
		time.Sleep(11 * time.Minute) // longer than the grace
		synctest.Wait()
		check("after the grace")
		for _, d := range all {
			if got := h.deletion(d.GetId()); got.GetState() != adminv1.DeletionState_DELETION_STATE_FINISHED || got.GetRemaining() != 0 {
				t.Errorf("deletion ends as %v", got)
			}
		}
		if keys := h.holding(); len(keys) != 0 {
			t.Errorf("what is planted is still in %v", keys)
		}
		for _, j := range h.list().GetJobs() {
			if j.GetFailures() > 0 || j.GetState() != compactionv1.JobState_JOB_STATE_DONE {
				t.Errorf("job %v", j)
			}
		}
		push() // the same series again
		before["a"]["secret;main;"+plantedFunction], before["a"]["web;main;x"], before["b"]["web;main;x"] = 7, before["a"]["web;main;x"]+7, before["b"]["web;main;x"]+7
		equal(t, "pushed again", h.totals("a"), before["a"])
	})
}

// A job of whose sources nothing is left has no outputs.
func TestAJobOfWhichNothingIsLeft(t *testing.T) {
	segmentwritertest.Bubble(t, func(t *testing.T) {
		h := newHouse(t)
		h.push("x", 1, "a/web")
		answer, err := h.server.Delete(t.Context(), connect.NewRequest(&adminv1.DeleteRequest{Tenant: "a", Selector: `{service_name="web"}`}))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		jobs := h.list().GetJobs()
		if len(h.entries("a")) != 0 || len(jobs) != 1 || jobs[0].GetState() != compactionv1.JobState_JOB_STATE_DONE || jobs[0].GetOutputs() != 0 {
			t.Errorf("entries are %v, jobs %v", h.entries("a"), jobs)
		}
		time.Sleep(11 * time.Minute)
		synctest.Wait()
		if d := h.deletion(answer.Msg.GetDeletion().GetId()); d.GetState() != adminv1.DeletionState_DELETION_STATE_FINISHED {
			t.Errorf("deletion ends as %v", d)
		}
		for key := range h.objects() {
			if !strings.HasPrefix(key, "snapshots/") {
				t.Errorf("%s is left", key)
			}
		}
	})
}

// Of a block it is known which series it has, so that a deletion of others does not touch it.
func TestABlockWithoutDeletedSeriesStays(t *testing.T) {
	segmentwritertest.Bubble(t, func(t *testing.T) {
		h := newHouse(t)
		if _, err := h.register(planted(t, time.Now())); err != nil {
			t.Fatal(err)
		}
		time.Sleep(12 * time.Second)
		synctest.Wait()
		before := h.entries("a")
		objects := func(selector string) uint64 {
			t.Helper()
			answer, err := h.server.Delete(t.Context(), connect.NewRequest(&adminv1.DeleteRequest{Tenant: "a", Selector: selector}))
			if err != nil {
				t.Fatal(err)
			}
			return answer.Msg.GetDeletion().GetObjects()
		}
		for _, selector := range []string{`{team="nobody"}`, `{service_name=~"no.*"}`, `{team="nobody",pod=~".+"}`} {
			if got := objects(selector); got != 0 {
				t.Errorf("%s is in %d objects", selector, got)
			}
		}
		if got := h.entries("a"); !proto.Equal(got[0], before[0]) {
			t.Errorf("the entry became %v", got)
		}
		if got := objects(`{team=~"nobody"}`); got != 1 { // which nobody knows without looking
			t.Errorf("what may be there is in %d objects", got)
		}
	})
}

func TestLateDataDoesNotBringBackWhatWasDeleted(t *testing.T) {
	segmentwritertest.Bubble(t, func(t *testing.T) {
		h := newHouse(t)
		object, meta := planted(t, time.Now())
		onlyV, v := segment(t, plantedFunction, 1, "v/web")
		time.Sleep(time.Second)
		h.delete("v", nil)
		answer, err := h.register(object, meta)
		if err != nil || len(answer.GetDropped()) != 1 || answer.GetDropped()[0].GetTenant() != "v" {
			t.Errorf("a segment with others' data: %v, %v", answer, err)
		}
		if _, err := h.register(onlyV, v); connect.CodeOf(err) != connect.CodeOutOfRange {
			t.Errorf("a segment with nothing else: %v", err)
		}
		again, err := h.register(object, meta) // its first answer got lost
		if err != nil || len(again.GetDropped()) != 1 {
			t.Errorf("the segment again: %v, %v", again, err)
		}
		equal(t, "others", h.totals("b"), map[string]int64{"web;main;x": 7})
		time.Sleep(12 * time.Minute)
		synctest.Wait()
		for key, object := range h.objects() { // a/secret has the planted names too, and is not deleted
			if r, err := block.Open(objstore.Object(h.bucket, key, int64(len(object))), h.entries("a")[0]); err == nil && slices.Contains(block.Tenants(r), "v") {
				t.Errorf("%s has data of v", key)
			}
			if key == block.Key(meta) || key == block.Key(v) {
				t.Errorf("%s is still there", key)
			}
		}
		h.push("new", 5, "v/web") // newer than the deletion
		equal(t, "new data of v", h.totals("v"), map[string]int64{"web;main;new": 5})
	})
}

func TestRetentionIsByTheTimeOfData(t *testing.T) {
	segmentwritertest.Bubble(t, func(t *testing.T) {
		h := &house{t: t, bucket: objstoretest.NewFaulty(memory.New())}
		h.server = metastoretest.Start(t, h.bucket, metastoretest.Retention(func(tenant, service string) time.Duration {
			return map[string]time.Duration{"a/web": time.Hour, "a/db": 2 * time.Hour}[tenant+"/"+service]
		}, 10*time.Minute))
		h.work(h.server)
		h.push("old", 1, "a/db", "a/web", "b/web")
		time.Sleep(30 * time.Minute)
		h.push("young", 2, "a/db", "a/web", "b/web")
		expect := func(when string, a map[string]int64) {
			t.Helper()
			synctest.Wait()
			equal(t, when, h.totals("a"), a)
			equal(t, "kept for ever, "+when, h.totals("b"), map[string]int64{"web;main;old": 1, "web;main;young": 2})
		}
		expect("at first", map[string]int64{"db;main;old": 1, "web;main;old": 1, "db;main;young": 2, "web;main;young": 2})
		time.Sleep(32 * time.Minute)
		expect("after an hour", map[string]int64{"db;main;old": 1, "db;main;young": 2, "web;main;young": 2})
		time.Sleep(30 * time.Minute)
		expect("after an hour and a half", map[string]int64{"db;main;old": 1, "db;main;young": 2})
		time.Sleep(65 * time.Minute)
		expect("in the end", map[string]int64{})
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		for key := range h.objects() {
			if bytes.HasPrefix([]byte(key), []byte("blocks/a/")) || bytes.HasPrefix([]byte(key), []byte("segments/")) {
				t.Errorf("%s is still there", key)
			}
		}
		if s := fmt.Sprint(h.list().GetLevels()); h.list().GetTombstones() != 0 {
			t.Errorf("left: %s", s)
		}
	})
}
