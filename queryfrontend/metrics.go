package queryfrontend

import (
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	replans  prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	with := promauto.With(reg)
	return &metrics{
		requests: with.NewCounterVec(prometheus.CounterOpts{
			Name: "kiln_query_frontend_requests_total",
			Help: "Calls of the query API by method and by the code of the answer.",
		}, []string{"method", "code"}),
		seconds: with.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "kiln_query_frontend_seconds",
			Help:    "Duration of calls of the query API.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 17),
		}, []string{"method"}),
		replans: with.NewCounter(prometheus.CounterOpts{
			Name: "kiln_query_frontend_replans_total",
			Help: "Queries that met a deleted object and were planned once more.",
		}),
	}
}

func (m *metrics) observe(method string, err error, d time.Duration) {
	code := "ok"
	if err != nil {
		code = connect.CodeOf(err).String()
	}
	m.requests.WithLabelValues(method, code).Inc()
	m.seconds.WithLabelValues(method).Observe(d.Seconds())
}
