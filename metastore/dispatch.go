package metastore

import (
	"context"
	"crypto/rand"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	compactionv1 "github.com/kilndb/kiln/api/kiln/compaction/v1"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/metastore/compaction"
	"github.com/kilndb/kiln/metastore/fsm"
)

// commitPause is the least time between two looks at the state because of commits: a busy index commits hundreds of
// times a second, and most of these commits make nothing due.
const commitPause = 50 * time.Millisecond

// dispatcher plans jobs and hands them to the workers that wait. It is part of a term.
type dispatcher struct {
	m       *Metastore
	planner compaction.Planner
	started time.Time
	wake    chan struct{} // has room for one

	mu     sync.Mutex
	polls  []*poll // in the order of their arrival
	leases map[string]lease
	ended  bool
}

// poll is a worker that waits for jobs.
type poll struct {
	worker   string
	capacity int
	excludes bool                            // it leaves out what entries exclude; older builds do not
	answer   chan []*compactionv1.Assignment // has room; nil when the term has ended
	gone     bool                            // does not want to wait any longer; guarded by the dispatcher's mu
}

// lease is the latest renewal of a running job.
type lease struct {
	token   uint64
	expires time.Time
}

func newDispatcher(m *Metastore, now time.Time) *dispatcher {
	return &dispatcher{
		m:       m,
		planner: compaction.Planner{Levels: m.cfg.Levels, NewID: newIDs()},
		started: now,
		wake:    make(chan struct{}, 1),
		leases:  map[string]lease{},
	}
}

// newIDs returns a source of job ids, each greater than the one before. It draws from the system: the ulid package's
// own source locks only some of its methods, and would be shared with every other user of it in the process.
func newIDs() func(time.Time) ulid.ULID {
	entropy := ulid.Monotonic(rand.Reader, 0)
	return func(now time.Time) ulid.ULID { return ulid.MustNew(ulid.Timestamp(now), entropy) }
}

// dispatchLoop looks for what is due whenever something may have become so: a commit, a worker that polls, an age, the end of a
// lease.
func (d *dispatcher) dispatchLoop(ctx context.Context) {
	defer d.end()
	for ctx.Err() == nil {
		next, err := d.step(ctx)
		if err != nil && ctx.Err() == nil {
			d.m.log.Warn("compaction jobs could not be handed out", "err", err)
			pause(ctx, retryPause)
			continue
		}
		if !d.sleep(ctx, next) {
			return
		}
	}
}

// sleep waits for a reason to look again; next is one, unless it is zero. It returns false when ctx has ended.
func (d *dispatcher) sleep(ctx context.Context, next time.Time) bool {
	var due <-chan time.Time
	if !next.IsZero() {
		t := time.NewTimer(time.Until(next))
		defer t.Stop()
		due = t.C
	}
	select {
	case <-ctx.Done():
		return false
	case <-due:
	case <-d.wake:
	case <-d.m.machine.commits:
		t := time.NewTimer(commitPause)
		defer t.Stop()
		select {
		case <-ctx.Done():
			return false
		case <-t.C:
		case <-d.wake:
		}
	}
	return true
}

// decision is what one look at the state led to.
type decision struct {
	command storagev1.AssignJobs
	jobs    map[string]*storagev1.NewJob // of the assignments
	polls   map[string]*poll             // of the assignments
	next    time.Time                    // when to look again without a reason
}

// step looks once, and proposes what it decided.
func (d *dispatcher) step(ctx context.Context) (next time.Time, err error) {
	now := time.Now()
	taken := d.take()
	defer d.giveBack(taken)
	decided, err := d.decide(now, taken)
	if err != nil || len(decided.command.NewJobs)+len(decided.command.Assignments) == 0 {
		return decided.next, err
	}
	result, err := propose[compaction.Assigned](ctx, d.m, &storagev1.Command{
		Body: &storagev1.Command_AssignJobs{AssignJobs: &decided.command},
	})
	if err != nil {
		return next, err
	}
	answers, err := d.accepted(decided, result)
	if err != nil {
		return next, err
	}
	for p, assignments := range answers {
		p.answer <- assignments
		delete(taken, p)
	}
	if len(answers) == 0 && !slices.Contains(result.NewJobs, nil) {
		return now.Add(retryPause), nil // all was refused: repeating it at once would only fill the log
	}
	return now, nil // there may be more
}

// decide reads the state and says what to hand to the polls, and what new jobs there are.
func (d *dispatcher) decide(now time.Time, polls map[*poll]int) (dec *decision, err error) {
	dec = &decision{jobs: map[string]*storagev1.NewJob{}, polls: map[string]*poll{}}
	capacity := 0
	for p := range polls {
		capacity += p.capacity
	}
	var runnable []*storagev1.Job
	var planned []*storagev1.NewJob
	err = d.m.state.View(func(tx *fsm.Tx) (err error) {
		var leaseEnds, due time.Time
		if runnable, leaseEnds, err = d.m.machine.jobs.Runnable(tx, now, capacity, d.lease); err != nil {
			return err
		}
		room := d.m.cfg.MaxWaitingJobs - d.m.machine.jobs.Summary().Waiting
		if planned, due, err = d.planner.Plan(tx, now, max(0, room)); err != nil {
			return err
		}
		rewrites, rewriteDue, err := d.planner.Rewrites(tx, d.m.machine.jobs, now, max(0, room-len(planned)), planned)
		if err != nil {
			return err
		}
		planned = append(planned, rewrites...)
		dec.next = sooner(sooner(leaseEnds, due), rewriteDue)
		return nil
	})
	dec.command.NewJobs = planned
	jobs := make([]*storagev1.NewJob, 0, len(runnable)+len(planned))
	for _, j := range runnable {
		jobs = append(jobs, j.GetJob())
	}
	if err == nil {
		err = d.deal(dec, append(jobs, planned...), polls, now)
	}
	return dec, err
}

// deal gives the jobs to the polls in turn, the one that waits longest first. Those whose sources exclude series are only for
// workers that leave these out.
func (d *dispatcher) deal(dec *decision, jobs []*storagev1.NewJob, polls map[*poll]int, now time.Time) error {
	turn := make([]*poll, len(polls))
	free := map[*poll]int{}
	for p, place := range polls {
		turn[place], free[p] = p, p.capacity
	}
	for _, j := range jobs {
		if len(turn) == 0 {
			return nil
		}
		next := 0
		if !turn[0].excludes {
			excluding, err := d.excluding(j)
			if err != nil {
				return err
			}
			if next = slices.IndexFunc(turn, func(p *poll) bool { return p.excludes || !excluding }); next < 0 {
				continue
			}
		}
		p := turn[next]
		dec.jobs[j.GetId()], dec.polls[j.GetId()] = j, p
		dec.command.Assignments = append(dec.command.Assignments, &storagev1.Assignment{
			Job: j.GetId(), Worker: p.worker, LeaseExpires: now.Add(d.m.cfg.JobLease).UnixNano(),
		})
		turn = slices.Delete(turn, next, next+1)
		if free[p]--; free[p] > 0 {
			turn = append(turn, p)
		}
	}
	return nil
}

// excluding says whether a source of a job excludes series.
func (d *dispatcher) excluding(j *storagev1.NewJob) (excluding bool, err error) {
	err = d.m.state.View(func(tx *fsm.Tx) error {
		sources, err := d.sources(tx, j)
		excluding = slices.ContainsFunc(sources, excludes)
		return err
	})
	return excluding, err
}

// excludes says whether an entry excludes series.
func excludes(m *storagev1.BlockMeta) bool {
	return slices.ContainsFunc(m.GetDatasets(), func(d *storagev1.Dataset) bool { return len(d.GetExcluded()) > 0 })
}

// accepted starts the leases of the assignments that the state accepted, and returns what to answer.
func (d *dispatcher) accepted(dec *decision, result compaction.Assigned) (map[*poll][]*compactionv1.Assignment, error) {
	answers := map[*poll][]*compactionv1.Assignment{}
	err := d.m.state.View(func(tx *fsm.Tx) error {
		for i, a := range dec.command.GetAssignments() {
			d.drop(a.GetJob())
			if result.Assignments[i] != nil {
				d.m.log.Warn("compaction job was not assigned", "job", a.GetJob(), "err", result.Assignments[i])
				continue
			}
			assignment, err := d.assignment(tx, dec.jobs[a.GetJob()], result.Token)
			if err != nil {
				return err
			}
			p := dec.polls[a.GetJob()]
			if !p.excludes && slices.ContainsFunc(assignment.GetSources(), excludes) {
				d.m.log.Warn("compaction job is left to another worker: series were deleted meanwhile", "job", a.GetJob(), "worker", p.worker)
				continue // when the lease ends
			}
			answers[p] = append(answers[p], assignment)
		}
		return nil
	})
	return answers, err
}

func (d *dispatcher) assignment(tx *fsm.Tx, j *storagev1.NewJob, token uint64) (*compactionv1.Assignment, error) {
	a := &compactionv1.Assignment{
		Job: j.GetId(), Token: token, LeaseMs: uint32(d.m.cfg.JobLease.Milliseconds()),
		Tenant: j.GetTenant(), Shard: j.GetShard(), Level: j.GetLevel(), OutputLevel: compaction.OutputLevel(j),
	}
	sources, err := d.sources(tx, j)
	if err != nil {
		return nil, err
	}
	a.Sources = sources
	d.renew(a.GetJob(), token, time.Now())
	return a, nil
}

// sources returns the entries of a job's sources. One that is gone is missing for the worker, and for Complete.
func (d *dispatcher) sources(tx *fsm.Tx, j *storagev1.NewJob) (sources []*storagev1.BlockMeta, err error) {
	for _, source := range j.GetSources() {
		id, err := ulid.ParseStrict(source)
		if err != nil {
			return nil, err
		}
		m, err := d.m.machine.index.Get(tx, id)
		if err != nil {
			return nil, err
		}
		if m != nil {
			sources = append(sources, m)
		}
	}
	return sources, nil
}

// add lets p wait for jobs. It returns false when the term has ended.
func (d *dispatcher) add(p *poll) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended {
		return false
	}
	d.polls = append(d.polls, p)
	select {
	case d.wake <- struct{}{}:
	default:
	}
	return true
}

// withdraw ends p's wait. It returns false when p's answer is there or will be after the step that is going on.
func (d *dispatcher) withdraw(p *poll) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := slices.Index(d.polls, p)
	if i < 0 {
		p.gone = true
		return false
	}
	d.polls = slices.Delete(d.polls, i, i+1)
	return true
}

// take returns all that wait, each with its place in the order, and takes them off the list.
func (d *dispatcher) take() map[*poll]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	taken := make(map[*poll]int, len(d.polls))
	for i, p := range d.polls {
		taken[p] = i
	}
	d.polls = nil
	return taken
}

// giveBack puts those that got nothing back in front of those that came since, but for those that are gone.
func (d *dispatcher) giveBack(taken map[*poll]int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	back := make([]*poll, 0, len(taken)+len(d.polls))
	for p := range taken {
		if p.gone {
			p.answer <- []*compactionv1.Assignment{}
			continue
		}
		back = append(back, p)
	}
	slices.SortFunc(back, func(a, b *poll) int { return taken[a] - taken[b] })
	d.polls = append(back, d.polls...)
}

// end answers all that still wait.
func (d *dispatcher) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended = true
	for _, p := range d.polls {
		p.answer <- nil
	}
	d.polls = nil
}

// lease returns when the lease of a running job ends. What an earlier leader renewed is not known here, so each of its
// leases is as good as new when this term begins.
func (d *dispatcher) lease(j *storagev1.Job) time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l, ok := d.leases[j.GetJob().GetId()]; ok && l.token == j.GetToken() {
		return l.expires
	}
	return later(time.Unix(0, j.GetLeaseExpires()), d.started.Add(d.m.cfg.JobLease))
}

func (d *dispatcher) renew(job string, token uint64, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.leases[job] = lease{token, now.Add(d.m.cfg.JobLease)}
}

// drop forgets the lease of a job that is done, failed or about to get another.
func (d *dispatcher) drop(job string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.leases, job)
}

// sooner returns the earlier time; zero means never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
