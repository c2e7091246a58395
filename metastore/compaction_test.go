package metastore

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	compactionv1 "github.com/kilndb/kiln/api/kiln/compaction/v1"
	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/metastore/compaction"
)

// code is the code of err, but for an error that says who leads.
func code(t *testing.T, err error) connect.Code {
	t.Helper()
	var e *connect.Error
	if errors.As(err, &e) && len(e.Details()) != 0 {
		t.Errorf("%v has details", err)
	}
	return connect.CodeOf(err)
}

func TestAJobIsHandedOutAsSoonAsItIsLargeEnough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := serving(t, t.TempDir(), &deletions{})
		polled := make(chan []*compactionv1.Assignment)
		go func() { polled <- r.poll("w", 4, 30*time.Second) }()
		begun := time.Now()
		for range 20 {
			r.mustAdd(segment(newID(), 1, dataset{"a", "web", 1, 2}))
		}
		jobs := <-polled
		if took := time.Since(begun); took > time.Second {
			t.Errorf("the job came after %v", took)
		}
		if len(jobs) != 1 || len(jobs[0].GetSources()) != 20 {
			t.Fatalf("%d jobs", len(jobs))
		}
		if got := r.poll("w", 4, 2*time.Second); len(got) != 0 {
			t.Errorf("the same sources were handed out twice: %v", got)
		}
	})
}

func TestCapacityIsSharedAndNotExceeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := serving(t, t.TempDir(), &deletions{})
		for shard := range uint32(5) {
			r.mustAdd(segment(newID(), shard, dataset{"a", "web", 1, 2}))
		}
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if l := r.list(); len(l.GetJobs()) != 5 {
			t.Fatalf("%d jobs wait, want 5", len(l.GetJobs()))
		}
		seen := map[string]bool{}
		for _, want := range []int{2, 2, 1} {
			jobs := r.poll("w", 2, time.Second)
			if len(jobs) != want {
				t.Errorf("%d jobs, want %d", len(jobs), want)
			}
			for _, a := range jobs {
				if seen[a.GetJob()] {
					t.Errorf("job %s twice", a.GetJob())
				}
				seen[a.GetJob()] = true
			}
		}
	})
}

func TestLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := serving(t, t.TempDir(), &deletions{})
		r.mustAdd(segment(newID(), 1, dataset{"a", "web", 1, 2}))
		first := r.poll("first", 1, 30*time.Second)[0]
		if got := time.Duration(first.GetLeaseMs()) * time.Millisecond; got != r.cfg.JobLease {
			t.Errorf("the lease is %v, want %v", got, r.cfg.JobLease)
		}
		renew := func(worker string, a *compactionv1.Assignment) []string {
			answer, err := r.Workers().Renew(t.Context(), connect.NewRequest(&compactionv1.RenewRequest{
				Worker: worker, Leases: []*compactionv1.Lease{{Job: a.GetJob(), Token: a.GetToken()}},
			}))
			if err != nil {
				t.Fatal(err)
			}
			return answer.Msg.GetLost()
		}
		for range 10 { // as long as it is renewed nobody else gets it
			if lost := renew("first", first); len(lost) != 0 {
				t.Fatalf("lost %v", lost)
			}
			if got := r.poll("second", 1, r.cfg.JobLease/2); len(got) != 0 {
				t.Fatalf("handed out in spite of its lease: %v", got)
			}
		}
		if lost := renew("second", first); len(lost) != 1 {
			t.Error("somebody else renewed the lease")
		}
		second := r.poll("second", 1, r.cfg.JobLease)
		if len(second) != 1 || second[0].GetJob() != first.GetJob() || second[0].GetToken() <= first.GetToken() {
			t.Fatalf("after the lease: %v", second)
		}
		if lost := renew("first", first); !slices.Equal(lost, []string{first.GetJob()}) {
			t.Errorf("lost %v, want the job", lost)
		}
		late := merged(first)
		if got := code(t, r.complete("first", first, late)); got != connect.CodeFailedPrecondition {
			t.Errorf("a late report ends with %v", got)
		}
		if got := code(t, r.fail("first", first, "late")); got != connect.CodeFailedPrecondition {
			t.Errorf("a late failure ends with %v", got)
		}
		higher := proto.CloneOf(second[0])
		higher.Token++
		if got := code(t, r.complete("second", higher, merged(higher))); got != connect.CodeFailedPrecondition {
			t.Errorf("a report with a higher token ends with %v", got)
		}
		if got := r.list().GetTombstones(); got != 2 {
			t.Errorf("%d tombstones, want one for each refused output", got)
		}
		outputs := merged(second[0])
		if err := r.complete("second", second[0], outputs); err != nil {
			t.Fatal(err)
		}
		if got := code(t, r.complete("first", first, late)); got != connect.CodeFailedPrecondition {
			t.Errorf("a late report after the end of the job ends with %v", got)
		}
		if got := r.ids("a"); !slices.Equal(got, []string{outputs[0].GetId()}) {
			t.Errorf("the index has %v", got)
		}
	})
}

func TestReportsThatAreNotTheJobAreRefused(t *testing.T) {
	cases := map[string]func(a *compactionv1.Assignment, outputs []*storagev1.BlockMeta) []*storagev1.BlockMeta{
		"no outputs": func(*compactionv1.Assignment, []*storagev1.BlockMeta) []*storagev1.BlockMeta { return nil },
		"a source is missing": func(a *compactionv1.Assignment, o []*storagev1.BlockMeta) []*storagev1.BlockMeta {
			o[0].Sources = o[0].Sources[1:]
			return o
		},
		"a source of somebody else": func(a *compactionv1.Assignment, o []*storagev1.BlockMeta) []*storagev1.BlockMeta {
			o[0].Sources = append(o[0].Sources, newID())
			return o
		},
		"the wrong level": func(a *compactionv1.Assignment, o []*storagev1.BlockMeta) []*storagev1.BlockMeta {
			o[0].Level = 2
			return o
		},
		"the wrong shard": func(a *compactionv1.Assignment, o []*storagev1.BlockMeta) []*storagev1.BlockMeta {
			o[0].Shard++
			return o
		},
		"the id of a source": func(a *compactionv1.Assignment, o []*storagev1.BlockMeta) []*storagev1.BlockMeta {
			o[0].Id = a.GetSources()[0].GetId()
			return o
		},
		"an output twice": func(a *compactionv1.Assignment, o []*storagev1.BlockMeta) []*storagev1.BlockMeta {
			return append(o, o[0])
		},
		"a service is missing": func(a *compactionv1.Assignment, o []*storagev1.BlockMeta) []*storagev1.BlockMeta {
			return []*storagev1.BlockMeta{object(newID(), "a", 1, 1, o[0].Sources, dataset{"a", "web", 1, 2})}
		},
		"a tenant of somebody else": func(a *compactionv1.Assignment, o []*storagev1.BlockMeta) []*storagev1.BlockMeta {
			return append(o, object(newID(), "b", 1, 1, o[0].Sources, dataset{"b", "web", 1, 2}))
		},
		"a tenant's name that leads elsewhere": func(a *compactionv1.Assignment, o []*storagev1.BlockMeta) []*storagev1.BlockMeta {
			return append(o, object(newID(), "../x", 1, 1, o[0].Sources, dataset{"../x", "web", 1, 2}))
		},
		"a reference out of range": func(a *compactionv1.Assignment, o []*storagev1.BlockMeta) []*storagev1.BlockMeta {
			o[0].Datasets[0].Service = 99
			return o
		},
	}
	synctest.Test(t, func(t *testing.T) {
		r := serving(t, t.TempDir(), &deletions{})
		ids := []string{newID(), newID()}
		slices.Sort(ids)
		r.mustAdd(
			segment(ids[0], 1, dataset{"a", "web", 1, 2}, dataset{"a", "db", 1, 2}),
			segment(ids[1], 1, dataset{"a", "web", 1, 2}),
		)
		a := r.poll("w", 1, 30*time.Second)[0]
		for name, change := range cases {
			want := connect.CodeFailedPrecondition
			if name == "a tenant's name that leads elsewhere" || name == "a reference out of range" {
				want = connect.CodeInvalidArgument // no object at all
			}
			if got := code(t, r.complete("w", a, change(a, merged(a)))); got != want {
				t.Errorf("%s: ends with %v, want %v", name, got, want)
			}
			if got := r.ids("a"); !slices.Equal(got, ids) {
				t.Fatalf("%s: the index has %v, want %v", name, got, ids)
			}
		}
		if err := r.complete("w", a, merged(a)); err != nil {
			t.Errorf("the right report: %v", err)
		}
	})
}

func TestAPoisonSourceEndsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := serving(t, t.TempDir(), &deletions{})
		poison := newID()
		var all []string
		for i := range 20 {
			id := newID()
			if i == 13 {
				id = poison
			}
			all = append(all, id)
			r.mustAdd(segment(id, 1, dataset{"a", "web", 1, 2}))
		}
		failures := 0
		for {
			jobs := r.poll("w", 1, 30*time.Second)
			if len(jobs) == 0 {
				break
			}
			bad := slices.ContainsFunc(jobs[0].GetSources(), func(m *storagev1.BlockMeta) bool { return m.GetId() == poison })
			if !bad {
				if err := r.complete("w", jobs[0], merged(jobs[0])); err != nil {
					t.Fatal(err)
				}
				continue
			}
			failures++
			if err := r.fail("w", jobs[0], "section profiles of "+poison+" is corrupt"); err != nil {
				t.Fatal(err)
			}
		}
		if most := compaction.MaxFailures * 6; failures > most { // 20, 10, 5, 3, 2, 1
			t.Errorf("%d failures, want at most %d", failures, most)
		}
		var parked []*compactionv1.Job
		for _, j := range r.list().GetJobs() {
			if j.GetState() != compactionv1.JobState_JOB_STATE_DONE {
				parked = append(parked, j)
			}
		}
		if len(parked) != 1 || parked[0].GetSources() != 1 || parked[0].GetFailures() != compaction.MaxFailures ||
			!strings.Contains(parked[0].GetLastFailure(), poison) {
			t.Errorf("parked: %v", parked)
		}
		if got := r.ids("a"); !slices.Contains(got, poison) {
			t.Errorf("the poison source cannot be queried: %v", got)
		}
		for _, id := range all {
			if id != poison && slices.Contains(r.ids("a"), id) {
				t.Errorf("%s was not compacted", id)
			}
		}
		r.mustAdd(segment(poison, 1, dataset{"a", "web", 1, 2})) // known, and so no reason to plan it
		if got := r.poll("w", 1, 30*time.Second); len(got) != 0 {
			t.Errorf("planned again: %v", got)
		}
	})
}

func TestAWorkerThatIsGoneLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := serving(t, t.TempDir(), &deletions{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			_, err := r.Workers().Poll(ctx, connect.NewRequest(&compactionv1.PollRequest{Worker: "w", Capacity: 1, WaitMs: 30_000}))
			done <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-done; code(t, err) != connect.CodeCanceled {
			t.Errorf("the poll ends with %v", err)
		}
		r.mustAdd(segment(newID(), 1, dataset{"a", "web", 1, 2}))
		if got := r.poll("other", 1, 30*time.Second); len(got) != 1 {
			t.Errorf("the next worker got %v", got)
		}
		go func() {
			_, err := r.Workers().Poll(context.Background(), connect.NewRequest(&compactionv1.PollRequest{Worker: "w", Capacity: 1, WaitMs: 30_000}))
			done <- err
		}()
		synctest.Wait()
		go r.stop()
		if err := <-done; code(t, err) != connect.CodeUnavailable {
			t.Errorf("a poll that outlives the metastore ends with %v", err)
		}
	})
}

func TestATombstoneStaysUntilItsObjectIsDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := &deletions{}
		dir := t.TempDir()
		r := serving(t, dir, bucket)
		ids := []string{newID(), newID()}
		slices.Sort(ids)
		for _, id := range ids {
			r.mustAdd(segment(id, 1, dataset{"a", "web", 1, 2}))
		}
		bucket.fail = func(key string) error {
			if strings.HasSuffix(key, ids[0]) {
				return errors.New("bucket is down")
			}
			return nil
		}
		a := r.poll("w", 1, 30*time.Second)[0]
		if err := r.complete("w", a, merged(a)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(r.cfg.Grace + time.Minute)
		synctest.Wait()
		if got := r.list().GetTombstones(); got != 1 {
			t.Fatalf("%d tombstones, want that of the object which could not be deleted", got)
		}
		r.stop()
		r = serving(t, dir, bucket)
		if got := r.list().GetTombstones(); got != 1 {
			t.Fatalf("%d tombstones after a restart", got)
		}
		bucket.mu.Lock()
		bucket.fail = nil
		bucket.mu.Unlock()
		time.Sleep(deletionRetry)
		r.until(func() bool { return r.list().GetTombstones() == 0 })
		if got := bucket.deleted(); !slices.Equal(got, []string{"segments/1/" + ids[0], "segments/1/" + ids[1]}) {
			t.Errorf("deleted %v", got)
		}
	})
}

func TestMembership(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := serving(t, t.TempDir(), &deletions{})
		beat := func(node string) (nodes []string) {
			answer, err := r.Membership().Heartbeat(t.Context(), connect.NewRequest(&metastorev1.HeartbeatRequest{
				Member: &metastorev1.Member{Node: node, Address: node + ":4040", Roles: []string{"querybackend"}},
			}))
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range answer.Msg.GetMembers() {
				nodes = append(nodes, m.GetNode())
			}
			return nodes
		}
		beat("b")
		if got := beat("a"); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("members are %v", got)
		}
		time.Sleep(r.cfg.MemberLease / 2)
		beat("a")
		time.Sleep(r.cfg.MemberLease / 2)
		if got := beat("c"); !slices.Equal(got, []string{"a", "c"}) {
			t.Errorf("members are %v after b's lease", got)
		}
		if _, err := r.Membership().Leave(t.Context(), connect.NewRequest(&metastorev1.LeaveRequest{Node: "a"})); err != nil {
			t.Fatal(err)
		}
		if got := beat("c"); !slices.Equal(got, []string{"c"}) {
			t.Errorf("members are %v after a left", got)
		}
		for _, bad := range []*metastorev1.Member{nil, {Address: "x"}, {Node: "x"}, {Node: strings.Repeat("x", 5000), Address: "x"}} {
			_, err := r.Membership().Heartbeat(t.Context(), connect.NewRequest(&metastorev1.HeartbeatRequest{Member: bad}))
			if connect.CodeOf(err) != connect.CodeInvalidArgument {
				t.Errorf("%v ends with %v", bad, err)
			}
		}
	})
}
