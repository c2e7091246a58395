package querybackend

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	queryv1 "github.com/kilndb/kiln/api/kiln/query/v1"
)

type metrics struct {
	requests *prometheus.CounterVec
	seconds  prometheus.Histogram
	waiting  prometheus.Gauge
	entries  prometheus.Counter
	datasets prometheus.Counter
	profiles prometheus.Counter
	samples  prometheus.Counter
	rollups  prometheus.Counter
	fetched  prometheus.Counter
	decoded  prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	with := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return with.NewCounter(prometheus.CounterOpts{Name: "kiln_query_backend_" + name, Help: help})
	}
	return &metrics{
		requests: with.NewCounterVec(prometheus.CounterOpts{
			Name: "kiln_query_backend_requests_total", Help: "Executed nodes of plans, with all below them, by the code of the answer.",
		}, []string{"code"}),
		seconds: with.NewHistogram(prometheus.HistogramOpts{
			Name: "kiln_query_backend_seconds", Help: "Duration of executing a node of a plan and all below it.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 17),
		}),
		waiting: with.NewGauge(prometheus.GaugeOpts{
			Name: "kiln_query_backend_waiting_leaves", Help: "Leaves that wait for one of those at work to end.",
		}),
		entries:  counter("entries_total", "Objects opened."),
		datasets: counter("datasets_total", "Datasets read."),
		profiles: counter("profiles_total", "Rows of profiles that were selected."),
		samples:  counter("samples_total", "Samples that were added up."),
		rollups:  counter("rollups_total", "Rows that were answered by rollups, at least in part."),
		fetched:  counter("fetched_bytes_total", "Bytes read from the bucket."),
		decoded:  counter("decoded_bytes_total", "Bytes of memory that sections took once decoded."),
	}
}

// observe counts an answer; what an error had cost by then is not known exactly and left out.
func (m *metrics) observe(code string, d time.Duration, s *queryv1.Statistics) {
	m.requests.WithLabelValues(code).Inc()
	m.seconds.Observe(d.Seconds())
	m.entries.Add(float64(s.GetEntries()))
	m.datasets.Add(float64(s.GetDatasets()))
	m.profiles.Add(float64(s.GetProfiles()))
	m.samples.Add(float64(s.GetSamples()))
	m.rollups.Add(float64(s.GetRollups()))
	m.fetched.Add(float64(s.GetBytesFetched()))
	m.decoded.Add(float64(s.GetBytesDecoded()))
}
