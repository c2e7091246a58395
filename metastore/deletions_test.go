package metastore

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	adminv1 "github.com/kilndb/kiln/api/kiln/admin/v1"
	compactionv1 "github.com/kilndb/kiln/api/kiln/compaction/v1"
	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/metastore/compaction"
	"github.com/kilndb/kiln/metastore/fsm"
	"github.com/kilndb/kiln/metastore/index"
)

func (r *running) delete(tenant string) (*adminv1.Deletion, error) {
	answer, err := r.Deletions().Delete(r.t.Context(), connect.NewRequest(&adminv1.DeleteRequest{Tenant: tenant}))
	if err != nil {
		return nil, err
	}
	return answer.Msg.GetDeletion(), nil
}

func TestADeletionIsSeenToItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := &deletions{}
		dir := t.TempDir()
		r := serving(t, dir, bucket)
		now := time.Now().UnixNano()
		only, shared := newID(), newID()
		r.mustAdd(segment(only, 1, dataset{"a", "web", now, now}))
		r.mustAdd(segment(shared, 1, dataset{"a", "web", now, now}, dataset{"b", "web", now, now}))
		if _, err := r.delete("../a"); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("a tenant that cannot be: %v", err)
		}
		d, err := r.delete("a")
		if err != nil || d.GetObjects() != 2 || d.GetState() != adminv1.DeletionState_DELETION_STATE_HIDDEN {
			t.Fatalf("deletion: %v, %v", d, err)
		}
		if got := r.ids("a"); len(got) != 0 {
			t.Errorf("deleted, and found: %v", got)
		}
		r.stop() // it is no matter of memory
		r = serving(t, dir, bucket)
		if got := r.ids("a"); len(got) != 0 {
			t.Errorf("deleted, and found after a restart: %v", got)
		}
		jobs := r.poll("w", 4, 30*time.Second)
		if len(jobs) != 1 || len(jobs[0].GetSources()) != 1 || len(jobs[0].GetSources()[0].GetDatasets()) != 1 || jobs[0].GetOutputLevel() != 1 {
			t.Fatalf("jobs: %v", jobs)
		}
		if err := r.complete("w", jobs[0], merged(jobs[0])); err != nil {
			t.Fatal(err)
		}
		time.Sleep(r.cfg.Grace + time.Minute)
		synctest.Wait()
		if got := bucket.deleted(); len(got) != 2 {
			t.Errorf("objects deleted: %v", got)
		}
		answer, err := r.Deletions().ListDeletions(t.Context(), connect.NewRequest(&adminv1.ListDeletionsRequest{Tenant: "a"}))
		if err != nil || len(answer.Msg.GetDeletions()) != 1 || answer.Msg.GetDeletions()[0].GetState() != adminv1.DeletionState_DELETION_STATE_FINISHED {
			t.Errorf("in the end: %v, %v", answer, err)
		}
		_, err = r.Deletions().GetDeletion(t.Context(), connect.NewRequest(&adminv1.GetDeletionRequest{Id: newID()}))
		if connect.CodeOf(err) != connect.CodeNotFound {
			t.Errorf("no deletion: %v", err)
		}
	})
}

// A merge that began before the deletion knows the data. Its result comes after it.
func TestAMergeDoesNotBringBackWhatWasDeletedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := &deletions{}
		r := serving(t, t.TempDir(), bucket)
		now := time.Now().UnixNano()
		r.mustAdd(segment(newID(), 1, dataset{"a", "web", now, now}, dataset{"b", "web", now, now}))
		job := r.poll("w", 1, 30*time.Second)[0]
		if _, err := r.delete("a"); err != nil {
			t.Fatal(err)
		}
		outputs := merged(job)
		if err := r.complete("w", job, outputs); connect.CodeOf(err) != connect.CodeFailedPrecondition {
			t.Errorf("the result of the merge: %v", err)
		}
		if got := append(r.ids("a"), r.ids("b")...); len(got) != 1 {
			t.Errorf("entries: %v", got)
		}
		again := r.poll("w", 1, 30*time.Second)
		if len(again) != 1 || len(again[0].GetSources()[0].GetDatasets()) != 1 {
			t.Fatalf("the job again: %v", again)
		}
		if err := r.complete("w", again[0], merged(again[0])); err != nil {
			t.Error(err)
		}
		time.Sleep(r.cfg.Grace + time.Minute)
		synctest.Wait()
		if got := bucket.deleted(); len(got) != 3 { // the source, and both outputs that were refused
			t.Errorf("objects deleted: %v", got)
		}
	})
}

func TestOnlyWhatAllMembersUnderstandIsWritten(t *testing.T) {
	if v := fsm.VersionOf(&storagev1.Command{Body: &storagev1.Command_AddSegments{}}); v != 1 {
		t.Errorf("AddSegments is written with version %d", v)
	}
	rewrite := &storagev1.Command{Body: &storagev1.Command_AssignJobs{AssignJobs: &storagev1.AssignJobs{NewJobs: []*storagev1.NewJob{{}, {Rewrite: true}}}}}
	for _, cmd := range []*storagev1.Command{{Body: &storagev1.Command_DropData{}}, rewrite} {
		if v := fsm.VersionOf(cmd); v != 2 {
			t.Errorf("%T is written with version %d", cmd.GetBody(), v)
		}
	}
	selecting := &storagev1.DropData{Drops: []*storagev1.Drop{{Tenant: "a"}, {Tenant: "a", Selector: `{pod="1"}`}}}
	if v := fsm.VersionOf(&storagev1.Command{Body: &storagev1.Command_DropData{DropData: selecting}}); v != 3 {
		t.Errorf("DropData by a selector is written with version %d", v)
	}
	m := newMembers(time.Minute, time.Now(), func(time.Time) *metastorev1.Placement { return nil })
	announce := func(node, id string, version uint32) {
		member := &metastorev1.Member{Node: node, Metastore: &metastorev1.GroupMember{Id: id, CommandVersion: version}}
		if _, err := m.announce(member, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(id string, want uint32) {
		t.Helper()
		if got := m.commandVersion(id); got != want {
			t.Errorf("%s understands %d, want %d", id, got, want)
		}
	}
	expect("one", 1) // nobody knows
	announce("n1", "one", 2)
	expect("one", 2)
	announce("n2", "one", 1) // restarted with an older build, and still known as it was
	expect("one", 1)
	announce("n3", "two", 0) // a build that did not announce it
	expect("two", 1)
	announce("n4", "three", 3)
	announce("n5", "four", 2)
	for want, ids := range map[uint32][]string{3: {"three"}, 2: {"three", "four"}, 1: {"three", "four", "two"}} {
		if got := leastVersion(ids, m.commandVersion); got != want {
			t.Errorf("%v understand %d, want %d", ids, got, want)
		}
	}
}

// What is hidden waits to be rewritten, and only so many selectors may wait in one dataset. One that comes again counts once.
func TestSelectorsOfADatasetAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := serving(t, t.TempDir(), &deletions{})
		r.mustAdd(segment(newID(), 1, dataset{"a", "db", 1, 2}, dataset{"a", "web", 1, 2}))
		remove := func(selector string, service *string) (*adminv1.Deletion, error) {
			answer, err := r.Deletions().Delete(t.Context(), connect.NewRequest(&adminv1.DeleteRequest{Tenant: "a", Service: service, Selector: selector}))
			if err != nil {
				return nil, err
			}
			return answer.Msg.GetDeletion(), nil
		}
		web := "web"
		for i := range index.MaxExcluded {
			if _, err := remove(fmt.Sprintf(`{pod="%d"}`, i), &web); err != nil {
				t.Fatal(err)
			}
		}
		_, err := remove(`{pod="one too many"}`, nil)
		if connect.CodeOf(err) != connect.CodeResourceExhausted || !strings.Contains(err.Error(), "MaxExcluded") || !strings.Contains(err.Error(), `"web"`) {
			t.Errorf("one too many: %v", err)
		}
		d, err := remove(`{ pod = '7', }`, &web)
		if err != nil || d.GetObjects() != 1 || d.GetSelector() != `{pod="7"}` {
			t.Errorf("one that is there: %v, %v", d, err)
		}
		excluded := func() (n []int) {
			for _, m := range r.entries(t) {
				for _, d := range m.GetDatasets() {
					n = append(n, len(d.GetExcluded()))
				}
			}
			return n
		}
		if got := excluded(); !slices.Equal(got, []int{0, index.MaxExcluded}) {
			t.Errorf("datasets carry %v selectors", got)
		}
		jobs := r.poll("w", 1, 30*time.Second)
		if err := r.complete("w", jobs[0], merged(jobs[0])); err != nil {
			t.Fatal(err)
		}
		if _, err := remove(`{pod="one too many"}`, nil); err != nil || !slices.Equal(excluded(), []int{1, 1}) {
			t.Errorf("after the rewriting: %v, %v", err, excluded())
		}
	})
}

// A worker of a build that knows of no exclusions would bring the series back.
func TestOldWorkersGetNoJobsThatExclude(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := serving(t, t.TempDir(), &deletions{})
		old := &compactionv1.PollRequest{Worker: "old", Capacity: 8, WaitMs: 30_000}
		r.mustAdd(segment(newID(), 1, dataset{"a", "web", 1, 2}))
		taken := r.pollAs(old)
		if len(taken) != 1 {
			t.Fatalf("jobs before the deletion: %v", taken)
		}
		if _, err := r.Deletions().Delete(t.Context(), connect.NewRequest(&adminv1.DeleteRequest{Tenant: "a", Selector: `{pod="1"}`})); err != nil {
			t.Fatal(err)
		}
		if err := r.complete("old", taken[0], merged(taken[0])); connect.CodeOf(err) != connect.CodeFailedPrecondition {
			t.Errorf("the result of a job that began before: %v", err)
		}
		r.mustAdd(segment(newID(), 2, dataset{"a", "web", 1, 2}))
		jobs := r.pollAs(old)
		if len(jobs) != 1 || jobs[0].GetShard() != 2 {
			t.Fatalf("the old worker got %v, want the job without deleted series", jobs)
		}
		if err := r.complete("old", jobs[0], merged(jobs[0])); err != nil {
			t.Fatal(err)
		}
		if jobs := r.pollAs(old); len(jobs) != 0 {
			t.Errorf("the old worker got %v", jobs)
		}
		// Nor does it if the deletion comes between the decision and its commit.
		waiting := r.list().GetJobs()
		var id string
		for _, j := range waiting {
			if j.GetState() == compactionv1.JobState_JOB_STATE_WAITING {
				id = j.GetId()
			}
		}
		p := &poll{worker: "old"}
		late := &decision{
			command: storagev1.AssignJobs{Assignments: []*storagev1.Assignment{{Job: id}}}, polls: map[string]*poll{id: p},
			jobs: map[string]*storagev1.NewJob{id: {Id: id, Sources: []string{r.entries(t)[0].GetId()}}},
		}
		answers, err := newDispatcher(r.Metastore, time.Now()).accepted(late, compaction.Assigned{Assignments: []error{nil}})
		if err != nil || len(answers) != 0 || id == "" {
			t.Errorf("the old worker is answered %v (%v) for job %q", answers, err, id)
		}
		if jobs := r.poll("new", 8, 30*time.Second); len(jobs) == 0 || jobs[0].GetShard() != 1 {
			t.Errorf("the new worker got %v", jobs)
		}
	})
}

// Nobody registers an object that hides something: only the index says so.
func TestNewObjectsHideNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := serving(t, t.TempDir(), &deletions{})
		m := segment(newID(), 1, dataset{"a", "web", 1, 2})
		hiding := hide(m, `{pod="1"}`, []string{"a/web"})
		if err := r.add(hiding); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("a segment that hides series: %v", err)
		}
		r.mustAdd(m)
		job := r.poll("w", 1, 30*time.Second)[0]
		outputs := merged(job)
		if err := r.complete("w", job, []*storagev1.BlockMeta{hide(outputs[0], `{pod="1"}`, []string{"a/web"})}); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("an output that hides series: %v", err)
		}
		if err := r.complete("w", job, outputs); err != nil {
			t.Error(err)
		}
	})
}

func TestTheStateHashIsServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := serving(t, t.TempDir(), &deletions{})
		hash := func(index uint64) (*adminv1.StateHashResponse, error) {
			answer, err := r.State().StateHash(t.Context(), connect.NewRequest(&adminv1.StateHashRequest{Index: index}))
			if err != nil {
				return nil, err
			}
			return answer.Msg, nil
		}
		now, err := hash(0)
		if err != nil || len(now.GetHash()) != 32 {
			t.Fatalf("now: %v, %v", now, err)
		}
		next := make(chan *adminv1.StateHashResponse)
		go func() {
			h, err := hash(now.GetIndex() + 1)
			if err != nil {
				t.Error(err)
			}
			next <- h
		}()
		synctest.Wait()
		r.mustAdd(segment(newID(), 1, dataset{"a", "web", 1, 2}))
		then := <-next
		if bytes.Equal(then.GetHash(), now.GetHash()) || then.GetIndex() != now.GetIndex()+1 {
			t.Errorf("the next: %v, after %v", then, now)
		}
		if _, err := hash(now.GetIndex()); connect.CodeOf(err) != connect.CodeFailedPrecondition {
			t.Errorf("of the past: %v", err)
		}
	})
}
