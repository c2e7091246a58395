package delta

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Why series are forgotten: the values of a metric's label.
const (
	evictTenant = "tenant_memory"
	evictMemory = "memory"
	evictIdle   = "idle"
)

type metrics struct {
	profiles *prometheus.CounterVec
	evicted  *prometheus.CounterVec
	bytes    prometheus.Gauge
	series   prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	m := &metrics{
		profiles: f.NewCounterVec(prometheus.CounterOpts{
			Name: "kiln_segment_writer_delta_profiles_total",
			Help: "Cumulative profiles of one series by what they counted for: baseline and stale ones count zero.",
		}, []string{"outcome"}),
		evicted: f.NewCounterVec(prometheus.CounterOpts{
			Name: "kiln_segment_writer_delta_evicted_series_total",
			Help: "Series whose last values were forgotten, so that their next profile is a baseline, by reason.",
		}, []string{"reason"}),
		bytes: f.NewGauge(prometheus.GaugeOpts{
			Name: "kiln_segment_writer_delta_bytes",
			Help: "Memory of the last values of series with cumulative profiles.",
		}),
		series: f.NewGauge(prometheus.GaugeOpts{
			Name: "kiln_segment_writer_delta_series",
			Help: "Series whose last values are remembered.",
		}),
	}
	for _, o := range []outcome{baseline, stale, restart, difference, late, copied} {
		m.profiles.WithLabelValues(o.String())
	}
	for _, reason := range []string{evictTenant, evictMemory, evictIdle} {
		m.evicted.WithLabelValues(reason)
	}
	return m
}
