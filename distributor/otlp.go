package distributor

import (
	"context"
	"errors"
	"time"

	"github.com/kilndb/kiln/distributor/otlp"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/tenant"
)

// OTLP returns the handler of OpenTelemetry's protocol, over HTTP and gRPC. The tenant comes with the context of the
// request.
func (d *Distributor) OTLP() *otlp.Handler { return d.otlp }

// otlpStore is the distributor as the OTLP handler sees it.
type otlpStore struct{ d *Distributor }

// Store makes the profiles of one request durable.
func (s otlpStore) Store(ctx context.Context, t tenant.ID, size int, in []otlp.Upload) []error {
	d := s.d
	defer d.observe(time.Now())
	d.metrics.bytes.Add(float64(size))
	r := &request{tenant: t, limits: d.cfg.Limits(t), rules: d.rules(t)}
	results := make([]error, len(in))
	uploads := make([]upload, 0, len(in)) // those whose labels are in order
	places := make([]int, 0, len(in))     // and where they stand in the request
	for i, u := range in {
		series := u.Labels
		if !r.rules.Touch(series) { // else they are checked as the rules leave them
			series = stored(series)
			if results[i] = checkSeries(series, r.limits); results[i] != nil {
				continue
			}
		}
		uploads = append(uploads, upload{series: series, id: u.ID.String(), fill: u.Fill})
		places = append(places, i)
	}
	for i, err := range d.storeAll(ctx, r, uploads) {
		results[places[i]] = err
	}
	for i, err := range results {
		if err != nil {
			d.metrics.discard(reasonOf(err), 1)
			results[i] = answerTo(err)
		}
	}
	return results
}

// Check refuses labels that no series may have.
func (s otlpStore) Check(series labels.Labels, lim tenant.Limits) error {
	if err := checkCount(series, lim); err != nil {
		return err
	}
	return checkLabels(series, lim)
}

// Turn waits for a reader.
func (s otlpStore) Turn(ctx context.Context, t tenant.ID) (done func(), err error) {
	return s.d.reader(ctx, t)
}

// Hold counts memory of a request.
func (s otlpStore) Hold(t tenant.ID, bytes int) (release func(), err error) {
	h := &hold{memory: s.d.memory, tenant: t}
	if !h.grow(int64(bytes)) {
		return nil, &refusal{reasonMemory, answerTo(errMemory())}
	}
	return h.release, nil
}

// Discard counts profiles that were refused before they were handed over.
func (s otlpStore) Discard(err error, profiles int) {
	reason := reasonOf(refuseDecode(err))
	switch {
	case errors.Is(err, otlp.ErrTooLarge):
		reason = reasonBody
	case errors.Is(err, otlp.ErrTooMany):
		reason = reasonRequestSeries
	case errors.Is(err, otlp.ErrPanic):
		reason = reasonPanic
	}
	s.d.metrics.discard(reason, profiles)
}
