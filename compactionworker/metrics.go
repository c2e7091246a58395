package compactionworker

import "github.com/prometheus/client_golang/prometheus"

// metrics are the numbers of one worker.
type metrics struct {
	jobs    *prometheus.CounterVec
	seconds prometheus.Histogram
	running prometheus.Gauge
	read    prometheus.Counter
	written prometheus.Counter
	panics  prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		jobs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kiln_compaction_jobs_total",
			Help: "Compaction jobs that this worker ended, by result: done, failed (given back), lost (its lease), refused (its report).",
		}, []string{"result"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "kiln_compaction_job_seconds",
			Help:    "Time from taking a job to its end.",
			Buckets: prometheus.ExponentialBuckets(0.01, 2, 16),
		}),
		running: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "kiln_compaction_running_jobs",
			Help: "Compaction jobs that this worker runs now.",
		}),
		read: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kiln_compaction_read_bytes_total",
			Help: "Size of the sources of jobs that were done.",
		}),
		written: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kiln_compaction_written_bytes_total",
			Help: "Size of the outputs of jobs that were done.",
		}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kiln_compaction_panics_total",
			Help: "Merges that panicked.",
		}),
	}
	reg.MustRegister(m.jobs, m.seconds, m.running, m.read, m.written, m.panics)
	return m
}
