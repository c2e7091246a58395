package metered

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/kilndb/kiln/objstore"
)

// durations returns the borders of the histogram. They span what a bucket takes: half a millisecond for a local range read, a minute for a large upload.
func durations() []float64 {
	return []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}
}

type metrics struct {
	operations    *prometheus.CounterVec
	seconds       *prometheus.HistogramVec
	read, written prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	auto := promauto.With(reg)
	bytes := auto.NewCounterVec(prometheus.CounterOpts{
		Name: "kiln_bucket_bytes_total",
		Help: "Bytes of objects read from and written to the bucket by operations that succeeded.",
	}, []string{"direction"})
	return &metrics{
		operations: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "kiln_bucket_operations_total",
			Help: "Operations on the bucket by result: ok, not_found, exists, cancelled or error.",
		}, []string{"operation", "result"}),
		seconds: auto.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "kiln_bucket_operation_seconds",
			Help:    "Duration of operations on the bucket, whatever their result.",
			Buckets: durations(),
		}, []string{"operation"}),
		read:    bytes.WithLabelValues("read"),
		written: bytes.WithLabelValues("written"),
	}
}

// observe counts an operation that has just ended. It is deferred, hence the pointer.
func (m *metrics) observe(operation string, start time.Time, err *error) {
	m.operations.WithLabelValues(operation, result(*err)).Inc()
	m.seconds.WithLabelValues(operation).Observe(time.Since(start).Seconds())
}

// wrote counts n bytes unless err says that they may not have been written, and returns err.
func (m *metrics) wrote(n int64, err error) error {
	if err == nil {
		m.written.Add(float64(n))
	}
	return err
}

func result(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, objstore.ErrNotFound):
		return "not_found"
	case errors.Is(err, objstore.ErrExists):
		return "exists"
	case errors.Is(err, context.Canceled):
		return "cancelled"
	}
	return "error"
}
