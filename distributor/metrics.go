package distributor

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/kilndb/kiln/profile"
)

type metrics struct {
	received  prometheus.Counter
	bytes     prometheus.Counter
	rawBytes  prometheus.Counter
	samples   prometheus.Counter
	dropped   *prometheus.CounterVec
	truncated *prometheus.CounterVec
	discarded *prometheus.CounterVec
	seconds   prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	vec := func(name, help, label string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	}
	return &metrics{
		received: counter("kiln_distributor_received_profiles_total", "Profiles that came in."),
		bytes:    counter("kiln_distributor_received_bytes_total", "Size of profiles as they came in."),
		rawBytes: counter("kiln_distributor_decoded_bytes_total", "Size of profiles once decompressed."),
		samples:  counter("kiln_distributor_samples_total", "Samples of profiles, after normalising."),
		dropped:  vec("kiln_distributor_dropped_samples_total", "Samples that normalising dropped, by reason.", "reason"),
		truncated: vec("kiln_distributor_truncated_total",
			"Stacks and symbols that were cut to their limit.", "what"),
		discarded: vec("kiln_discarded_profiles_total", "Profiles that were not stored, by reason.", "reason"),
		seconds: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "kiln_distributor_push_seconds",
			Help:    "Time from a request until all its profiles are answered.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 15),
		}),
	}
}

func (m *metrics) normalised(r profile.Report, samples int) {
	m.samples.Add(float64(samples))
	for _, c := range []struct {
		vec   *prometheus.CounterVec
		label string
		n     int
	}{
		{m.dropped, "negative", r.NegativeSamples},
		{m.dropped, "zero", r.ZeroSamples},
		{m.truncated, "stack", r.TruncatedStacks},
		{m.truncated, "symbol", r.TruncatedSymbols},
	} {
		if c.n > 0 {
			c.vec.WithLabelValues(c.label).Add(float64(c.n))
		}
	}
}

func (m *metrics) discard(reason string, profiles int) {
	if profiles > 0 {
		m.discarded.WithLabelValues(reason).Add(float64(profiles))
	}
}
