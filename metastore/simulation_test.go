package metastore

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	compactionv1 "github.com/kilndb/kiln/api/kiln/compaction/v1"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/metastore/compaction"
	"github.com/kilndb/kiln/metastore/fsm"
	"github.com/kilndb/kiln/metastore/index"
)

// leaf is the data of one series of one service of one segment: what must be in every answer exactly once from its
// registration until it is dropped.
type leaf struct{ segment, dataset, pod string }

// simSelectors are the selectors of deletions, and the series that they mean.
var simSelectors = map[string][]string{`{pod="x"}`: {"x"}, `{pod=~"y|z"}`: {"y", "z"}, `{pod=~".+"}`: {"x", "y", "z"}}

// shown returns those leaves in a dataset of an object that its entry does not hide.
func shown(m *storagev1.BlockMeta, d *storagev1.Dataset, leaves []leaf) []leaf {
	return slices.DeleteFunc(slices.Clone(leaves), func(l leaf) bool {
		return slices.ContainsFunc(d.GetExcluded(), func(ref uint32) bool { return slices.Contains(simSelectors[m.GetStrings()[ref]], l.pod) })
	})
}

// simulation is the steps of the state machine, a bucket, and everybody around them, on a clock of its own. Everything
// follows from the seed.
type simulation struct {
	rng   *rand.Rand
	tx    *fsm.Tx
	m     *machine
	now   time.Time
	index uint64
	ids   uint64

	bucket   map[string]map[string][]leaf // by id: what lies in the object, by dataset
	named    map[string]bool              // ids that were ever in the index
	expected map[leaf]bool
	refused  map[string]bool // segments that were not taken
	taken    []*storagev1.BlockMeta
	workers  []*simWorker
	delayed  []*storagev1.Command // of a leader that is none any more, and may still come through
	queries  []simQuery
	history  []string
}

// simWorker is one compaction worker. A job is a walk through its steps; a crash forgets it, a pause does not.
type simWorker struct {
	name    string
	job     *compactionv1.Assignment
	step    int
	content map[string]map[string][]leaf // by tenant: what it read
	outputs []*storagev1.BlockMeta
	paused  int // steps that it sleeps
}

type simQuery struct {
	begun   time.Time
	entries []*storagev1.BlockMeta
}

const simGrace = 10 * time.Minute

var simLevels = []compaction.Level{
	{Level: 0, MinSources: 3, MaxAge: 10 * time.Second, MaxSources: 4, MaxBytes: 1 << 20},
	{Level: 1, MinSources: 2, MaxAge: time.Minute, MaxSources: 3, MaxBytes: 1 << 20},
}

func newSimulation(tx *fsm.Tx, seed uint64) (*simulation, error) {
	s := &simulation{
		rng: rand.New(rand.NewPCG(seed, 0)), tx: tx, m: newMachine(), now: time.Unix(1_800_000_000, 0), index: 1,
		bucket: map[string]map[string][]leaf{}, named: map[string]bool{}, expected: map[leaf]bool{}, refused: map[string]bool{},
		workers: []*simWorker{{name: "one"}, {name: "two"}},
	}
	for _, c := range s.m.components() {
		for _, name := range c.Buckets() {
			if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
				return nil, err
			}
		}
		if err := c.Load(tx, 0); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *simulation) id() ulid.ULID {
	s.ids++
	id := ulid.ULID{}
	_ = id.SetTime(ulid.Timestamp(s.now))
	for i := range 8 {
		id[15-i] = byte(s.ids >> (8 * i))
	}
	return id
}

func (s *simulation) note(format string, args ...any) {
	s.history = append(s.history, fmt.Sprintf("%d %s ", s.index, s.now.Format("15:04:05"))+fmt.Sprintf(format, args...))
}

// apply applies one command, as the state machine does, and publishes it.
func (s *simulation) apply(cmd *storagev1.Command) any {
	s.index++
	e := fsm.Entry{Index: s.index, Term: 1, Time: s.now.UnixNano()}
	var result any
	var err error
	switch body := cmd.GetBody().(type) {
	case *storagev1.Command_AddSegments:
		var encoded []byte
		if encoded, err = proto.Marshal(body.AddSegments); err == nil {
			result, err = s.m.addSegments(s.tx, e, encoded)
		}
	case *storagev1.Command_AssignJobs:
		result, err = s.m.assignJobs(s.tx, e, body)
	case *storagev1.Command_CompleteJob:
		result, err = s.m.completeJob(s.tx, e, body)
	case *storagev1.Command_FailJob:
		result, err = s.m.failJob(s.tx, e, body)
	case *storagev1.Command_DeleteTombstones:
		result, err = s.m.deleteTombstones(s.tx, e, body)
	case *storagev1.Command_DropData:
		s.expectDrop(body.DropData)
		result, err = s.m.dropData(s.tx, e, body)
	}
	if err != nil {
		panic(fmt.Sprintf("%T: %v", cmd.GetBody(), err))
	}
	for _, c := range s.m.components() {
		c.Commit(s.index)
	}
	for _, m := range s.entries() {
		s.named[m.GetId()] = true
	}
	return result
}

func (s *simulation) entries() []*storagev1.BlockMeta {
	return s.m.index.View().Find(index.Query{Tenants: []string{"a", "b"}})
}

// push stores a segment and registers it; it may die between the two, or not hear the answer and ask again.
func (s *simulation) push() {
	id := s.id().String()
	var ds []dataset
	content := map[string][]leaf{}
	for _, name := range []string{"a/db", "a/web", "b/web"} {
		if s.rng.IntN(2) == 0 {
			continue
		}
		to := s.now.Add(-time.Duration(s.rng.IntN(3600)) * time.Second).UnixNano()
		ds = append(ds, dataset{name[:1], name[2:], to - int64(time.Second)*s.rng.Int64N(60), to})
		for _, pod := range []string{"x", "y", "z"} {
			if s.rng.IntN(2) == 0 {
				content[name] = append(content[name], leaf{id, name, pod})
			}
		}
		if len(content[name]) == 0 {
			content[name] = []leaf{{id, name, "w"}}
		}
	}
	if len(ds) == 0 {
		return
	}
	m := segment(id, s.rng.Uint32N(2), ds...)
	s.bucket[id] = content
	if s.rng.IntN(10) == 0 {
		s.note("push %s died", id)
		return
	}
	for range 1 + s.rng.IntN(2) {
		result := s.apply(&storagev1.Command{Body: &storagev1.Command_AddSegments{AddSegments: &storagev1.AddSegments{Segments: []*storagev1.BlockMeta{m}}}}).(added)
		s.note("push %s: %v, without %v", id, result.refused[0], result.dropped[0])
		if result.refused[0] != nil {
			s.refused[id] = true
			continue
		}
		for i, d := range m.GetDatasets() {
			if name := datasetName(m, d); !slices.Contains(result.dropped[0], i) {
				for _, l := range content[name] {
					s.expected[l] = true
				}
			}
		}
		s.taken = append(s.taken, m)
	}
}

// pushAgain registers a segment that was registered before, whatever has become of it: nothing changes.
func (s *simulation) pushAgain() {
	if len(s.taken) == 0 {
		return
	}
	m := s.taken[s.rng.IntN(len(s.taken))]
	result := s.apply(&storagev1.Command{Body: &storagev1.Command_AddSegments{AddSegments: &storagev1.AddSegments{Segments: []*storagev1.BlockMeta{m}}}}).(added)
	s.note("push %s again: %v", m.GetId(), result.refused[0])
}

// expectDrop takes what a command drops off what is expected, by the entries before it.
func (s *simulation) expectDrop(cmd *storagev1.DropData) {
	for _, drop := range cmd.GetDrops() {
		if drop.GetBefore() > s.now.UnixNano() {
			continue // refused
		}
		for _, m := range s.entries() {
			for _, d := range m.GetDatasets() {
				name := datasetName(m, d)
				if name[:1] != drop.GetTenant() || drop.Service != nil && name[2:] != drop.GetService() || !drop.GetStored() && d.GetMaxTime() >= drop.GetBefore() {
					continue
				}
				for _, l := range shown(m, d, s.bucket[m.GetId()][name]) {
					if drop.GetSelector() == "" || slices.Contains(simSelectors[drop.GetSelector()], l.pod) {
						delete(s.expected, l)
					}
				}
			}
		}
	}
}

func (s *simulation) drop() {
	d := &storagev1.Drop{Tenant: []string{"a", "b"}[s.rng.IntN(2)], Before: s.now.Add(-time.Duration(s.rng.IntN(7200)-60) * time.Second).UnixNano()}
	if s.rng.IntN(2) == 0 {
		service := []string{"db", "web"}[s.rng.IntN(2)]
		d.Service = &service
	}
	cmd := &storagev1.DropData{Drops: []*storagev1.Drop{d}, RewriteAfter: int64(time.Minute)}
	if s.rng.IntN(3) == 0 && d.GetBefore() <= s.now.UnixNano() {
		d.Stored, cmd.Deletion = true, s.id().String()
		if s.rng.IntN(3) > 0 {
			d.Before, d.Selector = 0, slices.Sorted(maps.Keys(simSelectors))[s.rng.IntN(len(simSelectors))]
		}
	}
	result := s.apply(&storagev1.Command{Body: &storagev1.Command_DropData{DropData: cmd}})
	s.note("drop %v: %+v", cmd, result)
}

// plan decides what the leader decides now. The command may be held back, and come when it is not true any more.
func (s *simulation) plan() {
	w := s.workers[s.rng.IntN(len(s.workers))]
	if w.job != nil || w.paused > 0 {
		return
	}
	cmd := s.decide(w)
	if len(cmd.GetNewJobs())+len(cmd.GetAssignments()) == 0 {
		return
	}
	wrapped := &storagev1.Command{Body: &storagev1.Command_AssignJobs{AssignJobs: cmd}}
	if s.rng.IntN(8) == 0 {
		s.delayed = append(s.delayed, wrapped)
		return
	}
	s.assigned(w, cmd, s.apply(wrapped).(compaction.Assigned))
}

func (s *simulation) decide(w *simWorker) *storagev1.AssignJobs {
	planner := compaction.Planner{Levels: simLevels, NewID: func(time.Time) ulid.ULID { return s.id() }}
	jobs, _, err := planner.Plan(s.tx, s.now, 3)
	if err != nil {
		panic(err)
	}
	rewrites, _, err := planner.Rewrites(s.tx, s.m.jobs, s.now, 2, jobs)
	if err != nil {
		panic(err)
	}
	cmd := &storagev1.AssignJobs{NewJobs: append(jobs, rewrites...)}
	running, _, err := s.m.jobs.Runnable(s.tx, s.now, 3, func(j *storagev1.Job) time.Time { return time.Unix(0, j.GetLeaseExpires()) })
	if err != nil {
		panic(err)
	}
	var names []string
	for _, j := range running {
		names = append(names, j.GetJob().GetId())
	}
	for _, j := range cmd.GetNewJobs() {
		names = append(names, j.GetId())
	}
	if len(names) > 0 {
		cmd.Assignments = []*storagev1.Assignment{{Job: names[s.rng.IntN(len(names))], Worker: w.name, LeaseExpires: s.now.Add(15 * time.Second).UnixNano()}}
	}
	return cmd
}

// assigned tells the worker of its job, as the dispatcher does.
func (s *simulation) assigned(w *simWorker, cmd *storagev1.AssignJobs, result compaction.Assigned) {
	s.note("assign %v: %v %v", cmd, result.NewJobs, result.Assignments)
	if len(cmd.GetAssignments()) == 0 || result.Assignments[0] != nil {
		return
	}
	j, err := s.m.jobs.Job(s.tx, cmd.GetAssignments()[0].GetJob())
	if err != nil || j == nil {
		panic(fmt.Sprintf("assigned job %v: %v", j, err))
	}
	a := &compactionv1.Assignment{
		Job: j.GetJob().GetId(), Token: result.Token, Tenant: j.GetJob().GetTenant(), Shard: j.GetJob().GetShard(), Level: j.GetJob().GetLevel(),
		OutputLevel: compaction.OutputLevel(j.GetJob()),
	}
	for _, source := range j.GetJob().GetSources() {
		m, err := s.m.index.Get(s.tx, ulid.MustParse(source))
		if err != nil || m == nil {
			panic(fmt.Sprintf("source %s of job %s: %v", source, a.GetJob(), err))
		}
		a.Sources = append(a.Sources, m)
	}
	*w = simWorker{name: w.name, job: a}
}

// work does the next step of a worker: read, upload, report, and report again if the answer got lost.
func (s *simulation) work(w *simWorker) {
	if w.job == nil {
		return
	}
	w.step++
	switch w.step {
	case 1:
		s.read(w)
	case 2, 3:
		s.upload(w, w.step == 3)
	case 4, 5:
		s.report(w)
	case 6:
		w.job = nil
	}
}

// read takes what the entries name out of the objects. One that is missing fails the job.
func (s *simulation) read(w *simWorker) {
	w.content = map[string]map[string][]leaf{}
	for _, m := range w.job.GetSources() {
		object := s.bucket[m.GetId()]
		if object == nil {
			s.fail(w, "source "+m.GetId()+" is missing")
			return
		}
		for _, d := range m.GetDatasets() {
			name := datasetName(m, d)
			if w.content[name[:1]] == nil {
				w.content[name[:1]] = map[string][]leaf{}
			}
			w.content[name[:1]][name] = append(w.content[name[:1]][name], shown(m, d, object[name])...)
		}
	}
	w.outputs = merged(&compactionv1.Assignment{Sources: w.job.GetSources(), Shard: w.job.GetShard(), Level: w.job.GetOutputLevel() - 1})
	slices.SortFunc(w.outputs, func(x, y *storagev1.BlockMeta) int { return int(x.Strings[x.Tenant][0]) - int(y.Strings[y.Tenant][0]) })
	for i, m := range w.outputs {
		m.Id = s.id().String()
		w.outputs[i], _ = drop(m, func(name string, _ *storagev1.Dataset) bool { return len(w.content[name[:1]][name]) == 0 })
	}
	w.outputs = slices.DeleteFunc(w.outputs, func(m *storagev1.BlockMeta) bool { return len(m.GetDatasets()) == 0 })
}

// upload puts the first output into the bucket, or all others.
func (s *simulation) upload(w *simWorker, rest bool) {
	for i, m := range w.outputs {
		if (i > 0) == rest {
			s.bucket[m.GetId()] = w.content[m.GetStrings()[m.GetTenant()]]
		}
	}
}

func (s *simulation) report(w *simWorker) {
	j, err := s.m.jobs.Job(s.tx, w.job.GetJob())
	if err != nil {
		panic(err)
	}
	result := s.apply(&storagev1.Command{Body: &storagev1.Command_CompleteJob{
		CompleteJob: &storagev1.CompleteJob{Job: w.job.GetJob(), Token: w.job.GetToken(), Outputs: w.outputs},
	}}).(reported)
	s.note("worker %s completes %s with token %d: %v", w.name, w.job.GetJob(), w.job.GetToken(), result.refused)
	if result.refused == nil && j != nil && (j.GetState() != storagev1.JobState_JOB_STATE_RUNNING || j.GetToken() != w.job.GetToken()) {
		panic(fmt.Sprintf("token %d was accepted for %v", w.job.GetToken(), j))
	}
}

func (s *simulation) fail(w *simWorker, reason string) {
	result := s.apply(&storagev1.Command{Body: &storagev1.Command_FailJob{FailJob: &storagev1.FailJob{Job: w.job.GetJob(), Token: w.job.GetToken(), Reason: reason}}}).(reported)
	s.note("worker %s fails %s: %s: %v", w.name, w.job.GetJob(), reason, result.refused)
	w.job = nil
}

// collect deletes what has been replaced for longer than the grace, and may die before it says so.
func (s *simulation) collect() {
	due, _, err := s.m.jobs.Tombstones(s.tx, s.now.Add(-simGrace).UnixNano(), 5)
	if err != nil {
		panic(err)
	}
	var ids []string
	for _, t := range due {
		if s.rng.IntN(4) > 0 { // the bucket may fail
			delete(s.bucket, t.GetId())
			ids = append(ids, t.GetId())
		}
	}
	if s.rng.IntN(5) == 0 || len(ids) == 0 {
		return
	}
	s.apply(&storagev1.Command{Body: &storagev1.Command_DeleteTombstones{DeleteTombstones: &storagev1.DeleteTombstones{Ids: ids}}})
	s.note("deleted %v", ids)
}

// step lets somebody do something.
func (s *simulation) step() {
	w := s.workers[s.rng.IntN(len(s.workers))]
	switch n := s.rng.IntN(100); {
	case n < 24:
		s.push()
	case n < 25:
		s.pushAgain()
	case n < 40:
		s.plan()
	case n < 68:
		if w.paused > 0 {
			w.paused--
		} else {
			s.work(w)
		}
	case n < 71: // crash
		*w = simWorker{name: w.name}
	case n < 74: // it sleeps through its lease, and goes on as if nothing had happened
		w.paused = 5 + s.rng.IntN(20)
	case n < 76 && w.job != nil && w.paused == 0:
		s.fail(w, "merge")
	case n < 80:
		s.drop()
	case n < 85:
		s.collect()
	case n < 87 && len(s.delayed) > 0:
		cmd := s.delayed[0]
		s.delayed = s.delayed[1:]
		result := s.apply(cmd)
		s.note("late %v: %+v", cmd, result)
	case n < 90:
		s.queries = append(s.queries, simQuery{s.now, s.entries()})
	default:
		s.now = s.now.Add([]time.Duration{time.Second, 5 * time.Second, 16 * time.Second, time.Minute, 6 * time.Minute}[s.rng.IntN(5)])
	}
}

// check returns what is wrong.
func (s *simulation) check() error {
	seen := map[leaf]string{}
	waiting := map[string]int{}
	for _, m := range s.entries() {
		object := s.bucket[m.GetId()]
		if object == nil {
			return fmt.Errorf("entry %s has no object", m.GetId())
		}
		waiting[m.GetId()] = 0
		for _, d := range m.GetDatasets() {
			for _, l := range shown(m, d, object[datasetName(m, d)]) {
				if other, twice := seen[l]; twice {
					return fmt.Errorf("%v is in the entries %s and %s", l, other, m.GetId())
				}
				seen[l] = m.GetId()
				if !s.expected[l] {
					return fmt.Errorf("%v was dropped and is in %s", l, m.GetId())
				}
			}
		}
	}
	for l := range s.expected {
		if seen[l] == "" {
			return fmt.Errorf("%v is in no entry", l)
		}
	}
	return s.checkOwners(waiting)
}

// checkOwners checks that every entry waits or is in one job, that sources exist, that queries can read what they found,
// and that what was deleted is gone.
func (s *simulation) checkOwners(owners map[string]int) error {
	if err := s.tx.Bucket([]byte("waiting")).ForEach(func(k, _ []byte) error {
		owners[ulid.ULID(k[len(k)-16:]).String()]++
		return nil
	}); err != nil {
		return err
	}
	if err := s.m.jobs.Jobs(s.tx, func(j *storagev1.Job) error {
		for _, source := range j.GetJob().GetSources() {
			owners[source]++
		}
		return nil
	}); err != nil {
		return err
	}
	for id, n := range owners {
		if m, err := s.m.index.Get(s.tx, ulid.MustParse(id)); err != nil || m == nil || n != 1 {
			return fmt.Errorf("entry %s (there: %v) waits or is in a job %d times: %v", id, m != nil, n, err)
		}
	}
	for _, q := range s.queries {
		for _, m := range q.entries {
			if s.now.Sub(q.begun) < simGrace && s.bucket[m.GetId()] == nil {
				return fmt.Errorf("a query of %v cannot read %s", q.begun, m.GetId())
			}
		}
	}
	return s.m.jobs.Deletions(s.tx, func(d *storagev1.Deletion, _ uint64) error {
		for id, object := range s.bucket {
			for name, leaves := range object {
				covered := name[:1] == d.GetTenant() && (d.Service == nil || name[2:] == d.GetService())
				for _, l := range leaves {
					covered := covered && (d.GetSelector() == "" || slices.Contains(simSelectors[d.GetSelector()], l.pod))
					at := ulid.Time(ulid.MustParse(l.segment).Time()).UnixNano()
					if covered && d.GetFinished() != 0 && s.named[id] && !s.expected[l] && at < d.GetRequested() && s.droppedBy(l, d) {
						return fmt.Errorf("deletion %v is finished, and %s holds %v", d, id, l)
					}
				}
			}
		}
		return nil
	})
}

// droppedBy says whether a leaf was in the index when a deletion was asked for.
func (s *simulation) droppedBy(l leaf, d *storagev1.Deletion) bool {
	return s.named[l.segment] && ulid.MustParse(l.segment).Compare(ulid.MustParse(d.GetId())) < 0
}

// run runs a seed and returns what went wrong.
func simulate(db *bbolt.DB, seed uint64, steps int) (err error) {
	tx, err := db.Begin(true)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	s, err := newSimulation(tx, seed)
	if err != nil {
		return err
	}
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, fmt.Sprint(s.history[max(0, len(s.history)-12):]))
		}
	}()
	for i := range steps {
		before := s.index
		s.step()
		if s.index == before && i%10 != 0 {
			continue // nothing that the checks are about has happened
		}
		if err := s.check(); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	return nil
}

func openScratch(t testing.TB, dir string) *bbolt.DB {
	db, err := bbolt.Open(filepath.Join(dir, "scratch.db"), 0o600, &bbolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// TestSimulation runs many seeds; KILN_SIMULATION_SEED runs one, KILN_SIMULATION_SEEDS that many.
func TestSimulation(t *testing.T) {
	first, seeds, steps := uint64(1), uint64(500), 300
	if one, err := strconv.ParseUint(os.Getenv("KILN_SIMULATION_SEED"), 10, 64); err == nil {
		first, seeds = one, 1
	} else if n, err := strconv.ParseUint(os.Getenv("KILN_SIMULATION_SEEDS"), 10, 64); err == nil {
		seeds = n
	}
	queue := make(chan uint64, seeds)
	for seed := range seeds {
		queue <- first + seed
	}
	close(queue)
	var all sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		db := openScratch(t, t.TempDir())
		all.Go(func() {
			for seed := range queue {
				if err := simulate(db, seed, steps); err != nil {
					t.Errorf("KILN_SIMULATION_SEED=%d go test ./metastore -run TestSimulation: %v", seed, err)
					return
				}
			}
		})
	}
	all.Wait()
}
