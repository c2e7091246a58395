package distributor

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/kilndb/kiln/distributor/body"
	"github.com/kilndb/kiln/distributor/ingest"
	"github.com/kilndb/kiln/distributor/otlp"
	"github.com/kilndb/kiln/profile/pprof"
)

// Whichever door refuses a request, it is counted under the same reason.
func TestReasonsOfRequestsThatAreNoProfiles(t *testing.T) {
	d, err := New(DefaultConfig(), nil, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		err    error
		reason string
		at     []func(error)
	}{
		{body.Errorf(http.StatusRequestEntityTooLarge, "large"), reasonBody, []func(error){store{d}.Refused, discarded(d)}},
		{body.Errorf(http.StatusBadRequest, "no gzip"), reasonMalformed, []func(error){store{d}.Refused, discarded(d)}},
		{body.Errorf(http.StatusBadRequest, "%w", &pprof.LimitError{What: "samples", Limit: 1}), reasonSamples, []func(error){store{d}.Refused, discarded(d)}},
		{&pprof.LimitError{What: "sample types", Limit: 1}, reasonProfileSize, []func(error){store{d}.Refused, discarded(d)}},
		{&refusal{reasonMemory, answerTo(errMemory())}, reasonMemory, []func(error){discarded(d)}},
		{fmt.Errorf("%w: decoded", otlp.ErrTooLarge), reasonBody, []func(error){discarded(d)}},
		{fmt.Errorf("%w: 7", otlp.ErrTooMany), reasonRequestSeries, []func(error){discarded(d)}},
		{fmt.Errorf("%w: half", otlp.ErrMalformed), reasonMalformed, []func(error){discarded(d)}},
		{fmt.Errorf("decode: %w", otlp.ErrPanic), reasonPanic, []func(error){discarded(d)}},
		{body.Errorf(http.StatusBadRequest, "jfr: %w", ingest.ErrPanic), reasonPanic, []func(error){store{d}.Refused}},
		{errors.New("name is missing"), reasonMalformed, []func(error){store{d}.Refused}},
	} {
		for i, count := range c.at {
			counter := d.metrics.discarded.WithLabelValues(c.reason)
			before := testutil.ToFloat64(counter)
			if count(c.err); testutil.ToFloat64(counter) != before+1 {
				t.Errorf("%v is not counted as %s at door %d", c.err, c.reason, i)
			}
		}
	}
}

// discarded is how the door for OpenTelemetry counts.
func discarded(d *Distributor) func(error) {
	return func(err error) { otlpStore{d}.Discard(err, 1) }
}
