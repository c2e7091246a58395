package metastore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	compactionv1 "github.com/kilndb/kiln/api/kiln/compaction/v1"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/metastore/compaction"
	"github.com/kilndb/kiln/metastore/fsm"
	"github.com/kilndb/kiln/metastore/index"
)

// model is what the state machine must be, as plain maps.
type model struct {
	live       map[string]*storagev1.BlockMeta
	leaves     map[string]map[string][]string  // of each dataset of each live entry: the segments that went into it
	registered map[string]*storagev1.BlockMeta // segments that were accepted, without what was dropped since
	waiting    map[string]bool
	jobs       map[string]*modelJob
	tombstones map[string]bool
	floors     map[string]int64           // of a tenant, and of a tenant/service
	rewrites   map[string]bool            // live entries whose objects hold dropped data
	deletions  map[string]map[string]bool // of each deletion the objects that hold its data
}

type modelJob struct {
	sources  []string
	shard    uint32
	level    uint32
	rewrite  bool
	running  bool
	token    uint64
	lease    int64
	failures int
}

func newModel() *model {
	return &model{
		live: map[string]*storagev1.BlockMeta{}, leaves: map[string]map[string][]string{}, registered: map[string]*storagev1.BlockMeta{},
		waiting: map[string]bool{}, jobs: map[string]*modelJob{}, tombstones: map[string]bool{},
		floors: map[string]int64{}, rewrites: map[string]bool{}, deletions: map[string]map[string]bool{},
	}
}

// datasetName returns the tenant and service of a dataset, as tenant/service.
func datasetName(m *storagev1.BlockMeta, d *storagev1.Dataset) string {
	return m.GetStrings()[d.GetTenant()] + "/" + m.GetStrings()[d.GetService()]
}

// drop returns m without the datasets for which gone says so, and their names.
func drop(m *storagev1.BlockMeta, gone func(name string, d *storagev1.Dataset) bool) (left *storagev1.BlockMeta, names []string) {
	left = proto.CloneOf(m)
	left.Datasets = slices.DeleteFunc(left.Datasets, func(d *storagev1.Dataset) bool {
		if gone(datasetName(m, d), d) {
			names = append(names, datasetName(m, d))
			return true
		}
		return false
	})
	return left, names
}

// below says whether a dataset is as old as dropped ones.
func (m *model) below(name string, d *storagev1.Dataset) bool {
	for _, key := range []string{name, name[:1]} {
		if floor, ok := m.floors[key]; ok && d.GetMaxTime() < floor {
			return true
		}
	}
	return false
}

// system is a replica, the log that made it, and the model beside it.
type system struct {
	t   *rapid.T
	dir string
	*replica
	log     []*fsm.Log
	now     time.Time
	model   *model
	entropy *ulid.MonotonicEntropy
	opened  int
}

func (s *system) id(at time.Time) string { return ulid.MustNew(ulid.Timestamp(at), s.entropy).String() }

// apply proposes a command and returns its result.
func (s *system) apply(cmd *storagev1.Command) any {
	cmd.Version, cmd.Time = fsm.VersionOf(cmd), s.now.UnixNano()
	if cmd.GetInitCluster() == nil {
		cmd.Cluster = "c"
	}
	data, err := fsm.EncodeCommand(cmd)
	if err != nil {
		s.t.Fatalf("encode: %v", err)
	}
	l := &fsm.Log{Index: uint64(len(s.log) + 1), Term: 1, Data: data}
	s.log = append(s.log, l)
	result := s.state.Apply(l)
	if err, failed := result.(error); failed {
		s.t.Fatalf("%T: %v", cmd.GetBody(), err)
	}
	return result
}

// add registers a new segment, a known one, or one outside of the window.
func (s *system) add(t *rapid.T) {
	at := s.now
	want := error(nil)
	switch rapid.IntRange(0, 9).Draw(t, "age") {
	case 0:
		at, want = s.now.Add(-index.Window-time.Hour), index.ErrWindow
	case 1:
		at, want = s.now.Add(index.Window+time.Hour), index.ErrWindow
	}
	var segments []*storagev1.BlockMeta
	for range rapid.IntRange(1, 5).Draw(t, "segments") {
		var ds []dataset
		for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a/web", "a/db", "b/web", "c/x"}), 1, 4, rapid.ID).Draw(t, "datasets") {
			ds = append(ds, dataset{name[:1], name[2:], rapid.Int64Range(0, 50).Draw(t, "from"), rapid.Int64Range(50, 100).Draw(t, "to")})
		}
		segments = append(segments, segment(s.id(at), rapid.Uint32Range(0, 2).Draw(t, "shard"), ds...))
	}
	var known []string
	if len(s.model.registered) > 0 && rapid.Bool().Draw(t, "with a known one") {
		old := rapid.SampledFrom(slices.Sorted(maps.Keys(s.model.registered))).Draw(t, "known")
		known = append(known, old)
		segments = append(segments, segment(old, 9, dataset{"a", "web", 1, 2}))
	}
	result := s.apply(&storagev1.Command{Body: &storagev1.Command_AddSegments{AddSegments: &storagev1.AddSegments{Segments: segments}}}).(added)
	for i, m := range segments {
		if slices.Contains(known, m.GetId()) {
			// An id that is older than the window may have been forgotten: it is refused then, never counted twice.
			if err := result.refused[i]; err != nil && !within(m.GetId(), s.now) && s.model.live[m.GetId()] == nil {
				continue
			}
			want = nil
		}
		left, dropped := drop(m, s.model.below)
		want := want
		if want == nil && len(left.Datasets) == 0 && s.model.registered[m.GetId()] == nil {
			want = index.ErrDropped
			s.model.tombstones[m.GetId()] = true
		}
		if got := result.refused[i]; !errors.Is(got, want) {
			s.t.Fatalf("add %s: %v, want %v", m.GetId(), got, want)
		}
		if want != nil {
			continue
		}
		if len(result.dropped[i]) != len(dropped) {
			s.t.Fatalf("add %s: datasets %v were dropped, want %v", m.GetId(), result.dropped[i], dropped)
		}
		if s.model.registered[m.GetId()] == nil {
			s.model.live[m.GetId()] = left
			s.model.leaves[m.GetId()] = map[string][]string{}
			for _, d := range left.GetDatasets() {
				s.model.leaves[m.GetId()][datasetName(left, d)] = []string{m.GetId()}
			}
			s.model.registered[m.GetId()] = left
			s.model.waiting[m.GetId()] = true
			if len(dropped) > 0 {
				s.model.rewrites[m.GetId()] = true
			}
		}
	}
}

// drop drops a tenant or a service by time, or all of it that is there, as retention or as a deletion.
func (s *system) drop(t *rapid.T) {
	d := &storagev1.Drop{
		Tenant: rapid.SampledFrom([]string{"a", "b", "c", "absent"}).Draw(t, "tenant"), Before: rapid.Int64Range(0, 101).Draw(t, "before"),
		Stored: rapid.Bool().Draw(t, "stored"),
	}
	key := d.Tenant
	if rapid.Bool().Draw(t, "one service") {
		service := rapid.SampledFrom([]string{"web", "db", "x"}).Draw(t, "service")
		d.Service, key = &service, d.Tenant+"/"+service
	}
	cmd := &storagev1.DropData{Drops: []*storagev1.Drop{d}, RewriteAfter: int64(rapid.SampledFrom([]time.Duration{0, time.Minute}).Draw(t, "delay"))}
	if rapid.Bool().Draw(t, "deletion") {
		cmd.Deletion = s.id(s.now)
		s.model.deletions[cmd.Deletion] = map[string]bool{}
	}
	s.model.floors[key] = max(s.model.floors[key], d.Before)
	gone := func(name string, ds *storagev1.Dataset) bool {
		return (name == key || name[:1] == key) && (d.Stored || ds.GetMaxTime() < d.Before)
	}
	var want compaction.Dropped
	for _, id := range slices.Sorted(maps.Keys(s.model.live)) {
		left, names := drop(s.model.live[id], gone)
		if len(names) == 0 {
			continue
		}
		for _, name := range names {
			for _, leaf := range s.model.leaves[id][name] {
				s.model.registered[leaf], _ = drop(s.model.registered[leaf], func(n string, _ *storagev1.Dataset) bool { return n == name })
			}
			delete(s.model.leaves[id], name)
		}
		if cmd.Deletion != "" {
			s.model.deletions[cmd.Deletion][id] = true
		}
		s.dropped(id, left)
		if len(left.Datasets) == 0 {
			want.Gone++
		} else {
			want.Reduced++
		}
	}
	s.hurried(cmd)
	if got := s.apply(&storagev1.Command{Body: &storagev1.Command_DropData{DropData: cmd}}).(compaction.Dropped); got != want {
		s.t.Fatalf("drop %v: %+v, want %+v", cmd, got, want)
	}
	// Nothing that is ill-formed does anything.
	bad := proto.CloneOf(cmd)
	bad.Deletion = rapid.SampledFrom([]string{"nonsense", ""}).Draw(t, "bad deletion")
	if bad.Deletion == "" {
		bad.Drops[0].Before = s.now.UnixNano() + 1
	}
	if got := s.apply(&storagev1.Command{Body: &storagev1.Command_DropData{DropData: bad}}).(compaction.Dropped); !errors.Is(got.Refused, compaction.ErrDrop) {
		s.t.Fatalf("drop %v: %+v", bad, got)
	}
}

// hurried has a deletion wait in the model for objects of which its data may have been dropped before.
func (s *system) hurried(cmd *storagev1.DropData) {
	d := cmd.GetDrops()[0]
	for id := range s.model.rewrites {
		m := s.model.live[id]
		if cmd.Deletion != "" && slices.ContainsFunc(m.GetGroups(), func(g *storagev1.Group) bool { return m.GetStrings()[g.GetTenant()] == d.Tenant }) &&
			(d.Service == nil || slices.Contains(m.GetStrings(), d.GetService())) {
			s.model.deletions[cmd.Deletion][id] = true
		}
	}
}

// hide returns m whose datasets of these names carry a selector more.
func hide(m *storagev1.BlockMeta, selector string, names []string) *storagev1.BlockMeta {
	m = proto.CloneOf(m)
	ref := slices.Index(m.Strings, selector)
	if ref < 0 {
		ref = len(m.Strings)
		m.Strings = append(m.Strings, selector)
	}
	for _, d := range m.Datasets {
		if slices.Contains(names, datasetName(m, d)) {
			d.Excluded = append(d.Excluded, uint32(ref))
		}
	}
	return m
}

// exclude deletes series of a tenant or a service by a selector. The entries of this test have no label filters: but for the
// service everything may be in every dataset.
func (s *system) exclude(t *rapid.T) {
	d := &storagev1.Drop{
		Tenant: rapid.SampledFrom([]string{"a", "b", "c", "absent"}).Draw(t, "tenant"), Stored: true,
		Selector: rapid.SampledFrom([]string{`{pod="1"}`, `{pod=~".+"}`, `{service_name="web"}`, `{service_name!~"d.*", pod="1"}`}).Draw(t, "selector"),
	}
	if rapid.Bool().Draw(t, "one service") {
		d.Service = proto.String(rapid.SampledFrom([]string{"web", "db", "x"}).Draw(t, "service"))
	}
	cmd := &storagev1.DropData{Drops: []*storagev1.Drop{d}, Deletion: s.id(s.now)}
	s.refused(t, cmd)
	selector, err := labels.ParseSelector(d.Selector)
	if err != nil {
		s.t.Fatalf("%s: %v", d.Selector, err)
	}
	s.model.deletions[cmd.Deletion] = map[string]bool{}
	var want compaction.Dropped
	for _, id := range slices.Sorted(maps.Keys(s.model.live)) {
		m := s.model.live[id]
		var names []string
		for _, ds := range m.GetDatasets() {
			service := m.GetStrings()[ds.GetService()]
			known := slices.ContainsFunc(ds.GetExcluded(), func(ref uint32) bool { return m.GetStrings()[ref] == d.Selector })
			if datasetName(m, ds) == d.Tenant+"/"+service && (d.Service == nil || *d.Service == service) && !known &&
				selector.On(labels.ServiceName).Matches(func(string) string { return service }) {
				names = append(names, datasetName(m, ds))
			}
		}
		if len(names) > 0 {
			s.model.deletions[cmd.Deletion][id] = true
			s.dropped(id, hide(m, d.Selector, names))
			want.Reduced++
		}
	}
	s.hurried(cmd)
	if got := s.apply(&storagev1.Command{Body: &storagev1.Command_DropData{DropData: cmd}}).(compaction.Dropped); got != want {
		s.t.Fatalf("exclude %v: %+v, want %+v", cmd, got, want)
	}
}

// refused applies commands like one that is good, and that do nothing.
func (s *system) refused(t *rapid.T, good *storagev1.DropData) {
	bad := proto.CloneOf(good)
	want := compaction.ErrDrop
	switch rapid.IntRange(0, 4).Draw(t, "bad") {
	case 0:
		bad.Drops[0].Selector, want = rapid.SampledFrom([]string{`{`, `{pod!="1"}`, `{__type__="cpu"}`}).Draw(t, "bad selector"), index.ErrInvalid
	case 1:
		bad.Drops[0].Stored = false
	case 2:
		bad.Drops[0].Before = 1
	case 3:
		bad.Deletion = ""
	case 4:
		bad.Drops = append(bad.Drops, bad.Drops[0])
	}
	if got := s.apply(&storagev1.Command{Body: &storagev1.Command_DropData{DropData: bad}}).(compaction.Dropped); !errors.Is(got.Refused, want) {
		s.t.Fatalf("exclude %v: %+v, want %v", bad, got, want)
	}
}

// dropped does in the model what becomes of an entry that has lost datasets or hides series, and of the job that has claimed
// it.
func (s *system) dropped(id string, left *storagev1.BlockMeta) {
	over := len(left.Datasets) == 0
	for job, j := range s.model.jobs {
		if !slices.Contains(j.sources, id) {
			continue
		}
		j.running, j.failures = false, 0
		if over {
			j.sources = slices.DeleteFunc(slices.Clone(j.sources), func(source string) bool { return source == id })
		}
		if len(j.sources) == 0 {
			delete(s.model.jobs, job)
		}
	}
	if !over {
		s.model.live[id], s.model.rewrites[id] = left, true
		return
	}
	delete(s.model.live, id)
	delete(s.model.leaves, id)
	delete(s.model.waiting, id)
	delete(s.model.rewrites, id)
	s.model.tombstones[id] = true
}

func within(id string, now time.Time) bool {
	return now.Sub(time.UnixMilli(int64(ulid.MustParse(id).Time()))) <= index.Window
}

// assign plans and hands out as a leader does.
func (s *system) assign(t *rapid.T) {
	planner := compaction.Planner{
		Levels: []compaction.Level{
			{Level: 0, MinSources: 4, MaxAge: 10 * time.Second, MaxSources: 5, MaxBytes: 1 << 20},
			{Level: 1, MinSources: 3, MaxAge: time.Minute, MaxSources: 4, MaxBytes: 1 << 20},
		},
		NewID: func(now time.Time) ulid.ULID { return ulid.MustParse(s.id(now)) },
	}
	cmd := &storagev1.AssignJobs{}
	if err := s.state.View(func(tx *fsm.Tx) error {
		jobs, _, err := planner.Plan(tx, s.now, rapid.IntRange(0, 5).Draw(t, "limit"))
		if err != nil {
			return err
		}
		rewrites, _, err := planner.Rewrites(tx, s.jobs, s.now, 5, jobs)
		if err != nil {
			return err
		}
		jobs = append(jobs, rewrites...)
		cmd.NewJobs = jobs
		running, _, err := s.jobs.Runnable(tx, s.now, 5, func(j *storagev1.Job) time.Time { return time.Unix(0, j.GetLeaseExpires()) })
		for _, j := range running {
			jobs = append(jobs, j.GetJob())
		}
		for _, j := range jobs {
			if rapid.Bool().Draw(t, "assign") {
				cmd.Assignments = append(cmd.Assignments, &storagev1.Assignment{Job: j.GetId(), Worker: "w", LeaseExpires: s.now.Add(15 * time.Second).UnixNano()})
			}
		}
		return err
	}); err != nil {
		s.t.Fatalf("plan: %v", err)
	}
	want := len(cmd.NewJobs)
	if rapid.Bool().Draw(t, "with nonsense") { // claimed sources, unknown jobs, running ones: all refused
		for _, j := range s.model.jobs {
			cmd.NewJobs = append(cmd.NewJobs, &storagev1.NewJob{Id: s.id(s.now), Shard: j.shard, Level: j.level, Sources: j.sources})
			break
		}
		cmd.NewJobs = append(cmd.NewJobs, &storagev1.NewJob{Id: s.id(s.now)})
		for _, id := range slices.Sorted(maps.Keys(s.model.waiting)) {
			if m := s.model.live[id]; !s.model.rewrites[id] {
				cmd.NewJobs = append(cmd.NewJobs, &storagev1.NewJob{
					Id: s.id(s.now), Tenant: m.GetStrings()[m.GetTenant()], Shard: m.GetShard(), Level: m.GetLevel(), Sources: []string{id}, Rewrite: true,
				})
				break
			}
		}
		cmd.Assignments = append(cmd.Assignments, &storagev1.Assignment{Job: s.id(s.now), Worker: "w"}, &storagev1.Assignment{Job: "x", Worker: "w"})
	}
	result := s.apply(&storagev1.Command{Body: &storagev1.Command_AssignJobs{AssignJobs: cmd}}).(compaction.Assigned)
	for i, n := range cmd.NewJobs {
		if (result.NewJobs[i] == nil) != (i < want) {
			s.t.Fatalf("new job %d of %d: %v", i, want, result.NewJobs[i])
		}
		if i < want {
			s.model.jobs[n.GetId()] = &modelJob{sources: n.GetSources(), shard: n.GetShard(), level: n.GetLevel(), rewrite: n.GetRewrite()}
			for _, id := range n.GetSources() {
				if !s.model.waiting[id] {
					s.t.Fatalf("source %s does not wait", id)
				}
				delete(s.model.waiting, id)
			}
		}
	}
	for i, a := range cmd.Assignments {
		j := s.model.jobs[a.GetJob()]
		if j == nil {
			if result.Assignments[i] == nil {
				s.t.Fatalf("job %q was assigned", a.GetJob())
			}
			continue
		}
		if j.running && s.failed(a.GetJob()) { // bisected or parked by the end of its lease
			continue
		}
		if result.Assignments[i] != nil {
			s.t.Fatalf("assign %s: %v", a.GetJob(), result.Assignments[i])
		}
		j.running, j.token, j.lease = true, result.Token, a.GetLeaseExpires()
	}
}

// failed counts a failure in the model and says whether the job cannot be assigned now.
func (s *system) failed(id string) bool {
	j := s.model.jobs[id]
	j.running = false
	j.failures++
	if j.failures < compaction.MaxFailures {
		return false
	}
	if len(j.sources) > 1 {
		delete(s.model.jobs, id)
		half := len(j.sources) / 2
		// The halves' ids are the state's business; they are read back.
		if err := s.state.View(func(tx *fsm.Tx) error {
			return s.jobs.Jobs(tx, func(got *storagev1.Job) error {
				for _, part := range [][]string{j.sources[:half], j.sources[half:]} {
					if slices.Equal(part, got.GetJob().GetSources()) {
						s.model.jobs[got.GetJob().GetId()] = &modelJob{sources: part, shard: j.shard, level: j.level}
					}
				}
				return nil
			})
		}); err != nil {
			s.t.Fatalf("halves: %v", err)
		}
	}
	return true
}

// pick draws a job of the model.
func (s *system) pick(t *rapid.T) (string, *modelJob) {
	if len(s.model.jobs) == 0 {
		t.Skip("no jobs")
	}
	id := rapid.SampledFrom(slices.Sorted(maps.Keys(s.model.jobs))).Draw(t, "job")
	return id, s.model.jobs[id]
}

func (s *system) outputs(j *modelJob) []*storagev1.BlockMeta {
	a := &compactionv1.Assignment{Shard: j.shard, Level: j.level}
	if j.rewrite {
		a.Level = max(1, j.level) - 1
	}
	for _, id := range j.sources {
		a.Sources = append(a.Sources, s.model.live[id])
	}
	outputs := merged(a)
	slices.SortFunc(outputs, func(x, y *storagev1.BlockMeta) int {
		return bytes.Compare([]byte(x.Strings[x.Tenant]), []byte(y.Strings[y.Tenant]))
	})
	for _, m := range outputs {
		m.Id = s.id(s.now)
	}
	return outputs
}

// whole says whether some of these live entries has a dataset of that name, "" for any, that hides nothing.
func (s *system) whole(ids []string, name string) bool {
	return slices.ContainsFunc(ids, func(id string) bool {
		m := s.model.live[id]
		return slices.ContainsFunc(m.GetDatasets(), func(d *storagev1.Dataset) bool {
			return (name == "" || datasetName(m, d) == name) && len(d.GetExcluded()) == 0
		})
	})
}

// emptied takes some datasets out of outputs, of which it may be that nothing is left but hidden series.
func (s *system) emptied(t *rapid.T, j *modelJob, outputs []*storagev1.BlockMeta) []*storagev1.BlockMeta {
	for i, m := range outputs {
		outputs[i], _ = drop(m, func(name string, _ *storagev1.Dataset) bool {
			return !s.whole(j.sources, name) && rapid.Bool().Draw(t, "emptied")
		})
	}
	return slices.DeleteFunc(outputs, func(m *storagev1.BlockMeta) bool { return len(m.GetDatasets()) == 0 })
}

// complete reports a job: rightly, with another token, or with outputs that are not it.
func (s *system) complete(t *rapid.T) {
	id, j := s.pick(t)
	outputs := s.emptied(t, j, s.outputs(j))
	token := j.token
	ok := j.running
	fault := rapid.IntRange(0, 7).Draw(t, "fault")
	if len(outputs) == 0 && fault > 0 {
		fault = 7
	}
	switch fault {
	case 0:
		token += uint64(rapid.SampledFrom([]int{-1, 1}).Draw(t, "off by"))
		ok = false
	case 1:
		outputs[0].Sources = outputs[0].Sources[1:]
		ok = ok && (len(outputs) > 1 || !s.whole(j.sources[:1], "")) // another output names them all, or it need not be named
		if len(outputs[0].Sources) == 0 {
			t.Skip("not an object")
		}
	case 2:
		outputs[0].Level++
		ok = false
	case 3:
		if len(outputs[0].Datasets) == 1 {
			t.Skip("not an object")
		}
		ok = ok && !s.whole(j.sources, datasetName(outputs[0], outputs[0].Datasets[0]))
		outputs[0].Datasets = outputs[0].Datasets[1:]
	}
	cmd := &storagev1.CompleteJob{Job: id, Token: token, Outputs: outputs}
	result := s.apply(&storagev1.Command{Body: &storagev1.Command_CompleteJob{CompleteJob: cmd}}).(reported)
	if (result.refused == nil) != ok {
		s.t.Fatalf("complete %s: %v, want success %v", id, result.refused, ok)
	}
	if !ok {
		for _, m := range outputs {
			s.model.tombstones[m.GetId()] = true
		}
		return
	}
	leaves := map[string][]string{} // by dataset: which segments had rows of it
	for _, source := range j.sources {
		for name, segments := range s.model.leaves[source] {
			leaves[name] = append(leaves[name], segments...)
		}
		delete(s.model.live, source)
		delete(s.model.leaves, source)
		delete(s.model.rewrites, source)
		s.model.tombstones[source] = true
	}
	for _, m := range outputs {
		s.model.live[m.GetId()] = m
		s.model.leaves[m.GetId()] = map[string][]string{}
		for _, d := range m.GetDatasets() {
			s.model.leaves[m.GetId()][datasetName(m, d)] = leaves[datasetName(m, d)]
			delete(leaves, datasetName(m, d))
		}
		s.model.waiting[m.GetId()] = true
	}
	for name, segments := range leaves { // of which nothing was left
		for _, leaf := range segments {
			s.model.registered[leaf], _ = drop(s.model.registered[leaf], func(n string, _ *storagev1.Dataset) bool { return n == name })
		}
	}
	delete(s.model.jobs, id)
	if len(outputs) == 0 {
		return // nothing tells that it was done
	}
	if again := s.apply(&storagev1.Command{Body: &storagev1.Command_CompleteJob{CompleteJob: cmd}}).(reported); again.refused != nil {
		s.t.Fatalf("complete %s again: %v", id, again.refused)
	}
}

func (s *system) fail(t *rapid.T) {
	id, j := s.pick(t)
	token := j.token + uint64(rapid.SampledFrom([]int{0, 0, 0, 1}).Draw(t, "off by"))
	ok := j.running && token == j.token
	result := s.apply(&storagev1.Command{Body: &storagev1.Command_FailJob{FailJob: &storagev1.FailJob{Job: id, Token: token, Reason: "test"}}}).(reported)
	if (result.refused == nil) != ok {
		s.t.Fatalf("fail %s: %v, want success %v", id, result.refused, ok)
	}
	if ok {
		s.failed(id)
	}
}

func (s *system) forget(*rapid.T) {
	var due []*storagev1.Tombstone
	if err := s.state.View(func(tx *fsm.Tx) (err error) {
		due, _, err = s.jobs.Tombstones(tx, s.now.Add(-time.Minute).UnixNano(), 10)
		return err
	}); err != nil {
		s.t.Fatalf("tombstones: %v", err)
	}
	ids := []string{"nonsense", s.id(s.now)}
	for _, d := range due {
		ids = append(ids, d.GetId())
		delete(s.model.tombstones, d.GetId())
		for _, objects := range s.model.deletions {
			delete(objects, d.GetId())
		}
	}
	s.apply(&storagev1.Command{Body: &storagev1.Command_DeleteTombstones{DeleteTombstones: &storagev1.DeleteTombstones{Ids: ids}}})
}

func (s *system) wait(t *rapid.T) {
	s.now = s.now.Add(rapid.SampledFrom([]time.Duration{time.Second, 11 * time.Second, 16 * time.Second, 2 * time.Minute, 13 * time.Hour}).Draw(t, "for"))
}

// restore moves to another replica by a snapshot; reopen closes the file and opens it again.
func (s *system) restore(*rapid.T) {
	before, content := s.hash(s.t), s.snapshot(s.t)
	s.close(s.t)
	s.opened++
	s.replica = openReplica(s.t, filepath.Join(s.dir, fmt.Sprintf("%d.db", s.opened)))
	if err := s.state.Restore(io.NopCloser(bytes.NewReader(content))); err != nil {
		s.t.Fatalf("restore: %v", err)
	}
	if s.hash(s.t) != before {
		s.t.Fatalf("the restored state differs")
	}
}

func (s *system) reopen(*rapid.T) {
	before := s.hash(s.t)
	s.close(s.t)
	s.replica = openReplica(s.t, s.path)
	if s.hash(s.t) != before {
		s.t.Fatalf("the state differs after it was opened again")
	}
	for _, l := range s.log { // as raft does: all of it again
		if result := s.state.Apply(l); result != error(fsm.ErrReplayed) {
			s.t.Fatalf("entry %d was applied twice: %v", l.Index, result)
		}
	}
}

// check compares the state machine with the model.
func (s *system) check(*rapid.T) {
	m := s.model
	var entries []string
	tenants := []string{"a", "b", "c"}
	for _, e := range s.index.View().Find(index.Query{Tenants: tenants}) {
		entries = append(entries, e.GetId())
		if want := m.live[e.GetId()]; want == nil || !proto.Equal(want, e) {
			s.t.Fatalf("entry %s is %v, want %v", e.GetId(), e, want)
		}
	}
	if want := slices.Sorted(maps.Keys(m.live)); !slices.Equal(entries, want) {
		s.t.Fatalf("the index has %v, want %v", entries, want)
	}
	for _, name := range []string{"a/web", "a/db", "b/web", "c/x"} { // every segment exactly once in every service
		count := map[string]int{}
		for id := range m.live {
			for _, leaf := range m.leaves[id][name] {
				count[leaf]++
			}
		}
		for id, e := range m.registered {
			want := 0
			if slices.ContainsFunc(e.GetDatasets(), func(d *storagev1.Dataset) bool { return datasetName(e, d) == name }) {
				want = 1
			}
			if count[id] != want {
				s.t.Fatalf("segment %s is in %d entries of %s, want %d", id, count[id], name, want)
			}
		}
	}
	s.checkDeletions()
	s.checkJobs()
}

// checkDeletions compares what deletions wait for. One is finished when nothing holds its data, and never before.
func (s *system) checkDeletions() {
	if err := s.state.View(func(tx *fsm.Tx) error {
		known := 0
		err := s.jobs.Deletions(tx, func(d *storagev1.Deletion, remaining uint64) error {
			known++
			want := uint64(len(s.model.deletions[d.GetId()]))
			if remaining != want || d.GetFinished() != 0 && want != 0 {
				s.t.Fatalf("deletion %v waits for %d objects, want %d", d, remaining, want)
			}
			if d.GetFinished() == 0 && len(s.model.tombstones) == 0 && want == 0 {
				s.t.Fatalf("deletion %v is not finished", d)
			}
			return nil
		})
		if known != len(s.model.deletions) {
			s.t.Fatalf("there are %d deletions, want %d", known, len(s.model.deletions))
		}
		return err
	}); err != nil {
		s.t.Fatalf("deletions: %v", err)
	}
}

func (s *system) checkJobs() {
	m := s.model
	owners := map[string]int{}
	var want compaction.Summary
	jobs := map[string]bool{}
	if err := s.state.View(func(tx *fsm.Tx) error {
		if err := s.jobs.Jobs(tx, func(j *storagev1.Job) error {
			id := j.GetJob().GetId()
			jobs[id] = true
			mj := m.jobs[id]
			if mj == nil || !slices.Equal(mj.sources, j.GetJob().GetSources()) || mj.failures != int(j.GetFailures()) ||
				mj.running != (j.GetState() == storagev1.JobState_JOB_STATE_RUNNING) || mj.running && mj.token != j.GetToken() {
				s.t.Fatalf("job %v, want %+v", j, mj)
			}
			for _, source := range mj.sources {
				owners[source]++
			}
			switch {
			case compaction.Parked(j):
				want.Parked++
			case mj.running:
				want.Running++
			default:
				want.Waiting++
			}
			return nil
		}); err != nil {
			return err
		}
		tombstones, _, err := s.jobs.Tombstones(tx, 1<<62, 1<<30)
		var ids []string
		for _, t := range tombstones {
			ids = append(ids, t.GetId())
			if m.live[t.GetId()] != nil {
				s.t.Fatalf("tombstone of the live entry %s", t.GetId())
			}
		}
		if w := slices.Sorted(maps.Keys(m.tombstones)); !slices.Equal(slices.Sorted(slices.Values(ids)), w) {
			s.t.Fatalf("tombstones are %v, want %v", ids, w)
		}
		return err
	}); err != nil {
		s.t.Fatalf("jobs: %v", err)
	}
	if len(jobs) != len(m.jobs) {
		s.t.Fatalf("%d jobs, want %d", len(jobs), len(m.jobs))
	}
	for id := range m.waiting {
		owners[id]++
	}
	for id := range m.live {
		if owners[id] != 1 {
			s.t.Fatalf("entry %s waits or is in a job %d times", id, owners[id])
		}
	}
	if len(owners) != len(m.live) {
		s.t.Fatalf("%d entries wait or are in a job, %d are live", len(owners), len(m.live))
	}
	want.Tombstones = len(m.tombstones)
	want.Rewrites = len(m.rewrites)
	got := s.jobs.Summary()
	got.Finished = nil
	if fmt.Sprint(got) != fmt.Sprint(want) {
		s.t.Fatalf("summary is %+v, want %+v", got, want)
	}
}

func TestTheMachineIsItsModel(t *testing.T) {
	fast := t.TempDir()
	if memory, err := os.MkdirTemp("/dev/shm", "kiln"); err == nil { // nothing here is about the disk
		fast = memory
		defer os.RemoveAll(memory)
	}
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(fast, "")
		if err != nil {
			rt.Fatal(err)
		}
		s := &system{
			t: rt, dir: dir, replica: openReplica(rt, filepath.Join(dir, "0.db")), model: newModel(),
			now: time.Unix(1_800_000_000, 0), entropy: ulid.Monotonic(rand.New(rand.NewSource(1)), 0),
		}
		s.apply(&storagev1.Command{Body: &storagev1.Command_InitCluster{InitCluster: &storagev1.InitCluster{Cluster: "c"}}})
		rt.Repeat(map[string]func(*rapid.T){
			"add": s.add, "assign": s.assign, "complete": s.complete, "fail": s.fail, "forget": s.forget, "drop": s.drop, "exclude": s.exclude,
			"wait": s.wait, "restore": s.restore, "reopen": s.reopen, "": s.check,
		})
		// The same log on a fresh replica, in other batches, makes the same state.
		other := openReplica(rt, filepath.Join(dir, "other.db"))
		for rest := s.log; len(rest) > 0; {
			n := min(len(rest), 7)
			for i, result := range other.state.ApplyBatch(rest[:n]) {
				if err, failed := result.(error); failed {
					rt.Fatalf("replay of %d: %v", rest[i].Index, err)
				}
			}
			rest = rest[n:]
		}
		if other.hash(rt) != s.hash(rt) {
			rt.Fatalf("a replay makes another state")
		}
		other.close(rt)
		s.close(rt)
		if err := os.RemoveAll(dir); err != nil {
			rt.Fatal(err)
		}
	})
}
