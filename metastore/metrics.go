package metastore

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kilndb/kiln/metastore/raftnode"
)

// metrics are the numbers of one member.
type metrics struct {
	apply     prometheus.Histogram
	batch     prometheus.Histogram
	deletions *prometheus.CounterVec

	snapshots     *prometheus.CounterVec
	snapshotBytes prometheus.Gauge
	orphans       *prometheus.GaugeVec
	buried        prometheus.Counter
	dropped       *prometheus.CounterVec
	terms         prometheus.Counter
}

func newMetrics(m *Metastore, reg prometheus.Registerer) *metrics {
	x := &metrics{
		apply: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "kiln_metastore_apply_seconds",
			Help:    "Time from proposing a command to its result.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "kiln_metastore_batch_segments",
			Help:    "Segments registered by one log entry.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 10),
		}),
		deletions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kiln_metastore_deletions_total",
			Help: "Attempts to delete a replaced object from the bucket, by result.",
		}, []string{"result"}),
		snapshots: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kiln_metastore_snapshots_total",
			Help: "Attempts to store a snapshot of the index in the bucket, by result.",
		}, []string{"result"}),
		snapshotBytes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "kiln_metastore_snapshot_bytes",
			Help: "Size of the latest snapshot that this member stored in the bucket.",
		}),
		orphans: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "kiln_metastore_orphans",
			Help: "Objects that nobody names, at this leader's latest sweep: young, claimed (outputs of a job that is not done), unreadable (left alone), due.",
		}, []string{"state"}),
		buried: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kiln_metastore_orphans_buried_total",
			Help: "Orphans that were given to deletion.",
		}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kiln_metastore_dropped_entries_total",
			Help: "Objects that lost data, by cause (retention, deletion) and what became of their entry (gone, reduced).",
		}, []string{"cause", "entry"}),
		terms: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kiln_metastore_leaderships_total",
			Help: "How often this member has become the leader. The sum over the members counts leader changes.",
		}),
	}
	reg.MustRegister(x.apply, x.batch, x.deletions, x.snapshots, x.snapshotBytes, x.orphans, x.buried, x.dropped, x.terms, stateCollector{m})
	return x
}

func (x *metrics) orphan(c orphanCounts) {
	for state, n := range map[string]int{"young": c.young, "claimed": c.claimed, "unreadable": c.unreadable, "due": c.buried} {
		x.orphans.WithLabelValues(state).Set(float64(n))
	}
}

var (
	leaderDesc     = prometheus.NewDesc("kiln_metastore_is_leader", "1 while this member leads and is up to date.", nil, nil)
	appliedDesc    = prometheus.NewDesc("kiln_metastore_applied_index", "Raft index of the last entry that was applied.", nil, nil)
	entriesDesc    = prometheus.NewDesc("kiln_metastore_entries", "Objects in the index, by level.", []string{"level"}, nil)
	bytesDesc      = prometheus.NewDesc("kiln_metastore_entry_bytes", "Bytes of the objects in the index, by level.", []string{"level"}, nil)
	jobsDesc       = prometheus.NewDesc("kiln_metastore_jobs", "Compaction jobs, by state.", []string{"state"}, nil)
	tombstonesDesc = prometheus.NewDesc("kiln_metastore_tombstones", "Replaced objects that await their deletion.", nil, nil)
	snapshotDesc   = prometheus.NewDesc("kiln_metastore_snapshot_age_seconds", "Age of the newest snapshot in the bucket, or of the leadership if there is none; on the leader only.", nil, nil)
	rewritesDesc   = prometheus.NewDesc("kiln_metastore_rewrites", "Objects in the index that hold dropped data and await being rewritten.", nil, nil)
	lagDesc        = prometheus.NewDesc("kiln_metastore_apply_lag", "Committed log entries that are not applied yet.", nil, nil)
	unreadyDesc    = prometheus.NewDesc("kiln_metastore_unready", "1 for the reason why this member could not serve now.", []string{"reason"}, nil)
	termDesc       = prometheus.NewDesc("kiln_metastore_term", "Latest Raft term that this member knows of.", nil, nil)
	lastIndexDesc  = prometheus.NewDesc("kiln_metastore_last_index", "Raft index of the last entry of this member's log.", nil, nil)
	commitDesc     = prometheus.NewDesc("kiln_metastore_commit_index", "Raft index of the last entry that this member knows to be committed. A follower whose commit index falls behind the leader's lags.", nil, nil)
	groupDesc      = prometheus.NewDesc("kiln_metastore_group_members", "Members of the Raft group, as this one knows it, by suffrage.", []string{"suffrage"}, nil)
	watchersDesc   = prometheus.NewDesc("kiln_metastore_watchers", "Nodes that watch the list of members; on the leader only.", nil, nil)
	membersDesc    = prometheus.NewDesc("kiln_metastore_members", "Nodes that announced themselves; on the leader only.", nil, nil)
)

// stateCollector reads what the member publishes anyway.
type stateCollector struct{ m *Metastore }

// Describe names the metrics.
func (c stateCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{termDesc, lastIndexDesc, commitDesc, groupDesc, leaderDesc, appliedDesc, entriesDesc, bytesDesc, jobsDesc, tombstonesDesc, lagDesc, unreadyDesc, snapshotDesc, rewritesDesc, membersDesc, watchersDesc} {
		ch <- d
	}
}

// Collect reads them.
func (c stateCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	leads := 0.0
	if c.m.node.Leads() {
		leads = 1
	}
	gauge(leaderDesc, leads)
	raft := c.m.node.Status()
	gauge(termDesc, float64(raft.Term))
	gauge(lastIndexDesc, float64(raft.LastIndex))
	gauge(commitDesc, float64(raft.CommitIndex))
	gauge(groupDesc, float64(raft.Voters), "voter")
	gauge(groupDesc, float64(raft.Learners), "learner")
	gauge(appliedDesc, float64(c.m.state.Position().Index))
	for level, l := range c.m.machine.index.View().Levels() {
		gauge(entriesDesc, float64(l.Entries), strconv.Itoa(level))
		gauge(bytesDesc, float64(l.Bytes), strconv.Itoa(level))
	}
	s := c.m.machine.jobs.Summary()
	gauge(jobsDesc, float64(s.Waiting), "waiting")
	gauge(jobsDesc, float64(s.Running), "running")
	gauge(jobsDesc, float64(s.Parked), "parked")
	gauge(tombstonesDesc, float64(s.Tombstones))
	gauge(rewritesDesc, float64(s.Rewrites))
	gauge(lagDesc, float64(c.m.node.Lag()))
	reason := raftnode.Reason(c.m.Ready())
	for _, r := range raftnode.Reasons {
		v := 0.0
		if r == reason {
			v = 1
		}
		gauge(unreadyDesc, v, r)
	}
	if t := c.m.term.Load(); t != nil {
		members, watchers := t.members.count()
		gauge(membersDesc, float64(members))
		gauge(watchersDesc, float64(watchers))
		gauge(snapshotDesc, time.Since(time.Unix(0, t.shipping.newest.Load())).Seconds())
	}
}
