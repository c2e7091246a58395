package segmentwriter

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Why profiles were refused or failed: the values of a metric's label.
const (
	reasonMemory   = "memory"   // the bound over all segments
	reasonFlights  = "flights"  // the bucket or the index are slower than what comes in
	reasonStopping = "stopping" // Run is ending
	reasonAppend   = "append"   // the profile cannot be held
	reasonEncode   = "encode"
	reasonPut      = "put"
	reasonIndex    = "index"
)

type metrics struct {
	segments     prometheus.Counter
	bytes        prometheus.Histogram
	profiles     prometheus.Histogram
	gatherTime   prometheus.Histogram
	flushSeconds prometheus.Histogram
	puts         prometheus.Counter
	putSeconds   prometheus.Histogram
	hedges       prometheus.Counter
	hedgeWins    prometheus.Counter
	failures     *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, inFlight func() float64) *metrics {
	f := promauto.With(reg)
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "kiln_segment_writer_inflight_bytes",
		Help: "Memory of profiles that are gathered or being flushed.",
	}, inFlight)
	return &metrics{
		segments: f.NewCounter(prometheus.CounterOpts{
			Name: "kiln_segment_writer_segments_total",
			Help: "Segments that were stored and registered.",
		}),
		bytes: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "kiln_segment_writer_segment_bytes",
			Help:    "Size of a segment that was stored and registered.",
			Buckets: prometheus.ExponentialBuckets(4<<10, 4, 8),
		}),
		profiles: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "kiln_segment_writer_segment_profiles",
			Help:    "Profiles in a segment.",
			Buckets: prometheus.ExponentialBuckets(1, 4, 8),
		}),
		gatherTime: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "kiln_segment_writer_gather_seconds",
			Help:    "Time from the first profile of a segment until it is cut.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 13),
		}),
		flushSeconds: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "kiln_segment_writer_flush_seconds",
			Help:    "Time from the cut of a segment until its pushes are answered.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 15),
		}),
		puts: f.NewCounter(prometheus.CounterOpts{
			Name: "kiln_segment_writer_puts_total",
			Help: "Puts of segments, every attempt and hedge counted.",
		}),
		putSeconds: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "kiln_segment_writer_put_seconds",
			Help:    "Time that puts of segments took that succeeded, with their hedges.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}),
		hedges: f.NewCounter(prometheus.CounterOpts{
			Name: "kiln_segment_writer_hedged_puts_total",
			Help: "Puts of segments that took so long that they were made a second time beside the first.",
		}),
		hedgeWins: f.NewCounter(prometheus.CounterOpts{
			Name: "kiln_segment_writer_hedge_wins_total",
			Help: "Hedged puts whose second was the one that succeeded.",
		}),
		failures: f.NewCounterVec(prometheus.CounterOpts{
			Name: "kiln_segment_writer_failed_profiles_total",
			Help: "Profiles that were refused or not confirmed, by reason.",
		}, []string{"reason"}),
	}
}

func (m *metrics) refused(reason string) { m.failed(reason, 1) }

func (m *metrics) failed(reason string, profiles int) {
	m.failures.WithLabelValues(reason).Add(float64(profiles))
}

func (m *metrics) written(bytes int64, profiles int) {
	m.segments.Inc()
	m.bytes.Observe(float64(bytes))
	m.profiles.Observe(float64(profiles))
}
