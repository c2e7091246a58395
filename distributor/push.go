package distributor

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"
	pushv1 "github.com/grafana/pyroscope/api/gen/proto/go/push/v1"
	"golang.org/x/sync/errgroup"

	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/tenant"
)

// Push stores the profiles of a request. What its answer means is in the package comment.
func (d *Distributor) Push(ctx context.Context, req *connect.Request[pushv1.PushRequest]) (*connect.Response[pushv1.PushResponse], error) {
	defer d.observe(time.Now())
	t, ok := tenant.FromContext(ctx)
	if !ok {
		return nil, connect.NewError(connect.CodeUnauthenticated, fmt.Errorf("no tenant: set the header %s", tenant.Header))
	}
	r := &request{tenant: t, limits: d.cfg.Limits(t), rules: d.rules(t)}
	if err := d.checkRequest(req.Msg, r); err != nil {
		return nil, answerTo(err)
	}
	uploads, failures := d.readRequest(req.Msg, r)
	for i, err := range d.storeAll(ctx, r, uploads) {
		if err != nil {
			u := &uploads[i]
			d.metrics.discard(reasonOf(err), 1)
			failures = append(failures, failure{series: u.index, profile: u.profile, service: u.series.Get(labels.ServiceName), err: err})
		}
	}
	if err := joinFailures(failures); err != nil {
		return nil, err
	}
	return connect.NewResponse(&pushv1.PushResponse{}), nil
}

// checkRequest refuses a request that is too large as a whole, or comes too soon.
func (d *Distributor) checkRequest(msg *pushv1.PushRequest, r *request) error {
	lim := r.limits
	profiles, size, err := 0, 0, error(nil)
	for i, s := range msg.GetSeries() {
		if n := len(s.GetSamples()); n > lim.MaxProfilesPerSeries && err == nil {
			err = refuse(reasonRequestSize, "series %d has %d profiles, more than the limit of %d", i, n, lim.MaxProfilesPerSeries)
		}
		for _, sample := range s.GetSamples() {
			profiles++
			size += len(sample.GetRawProfile())
		}
	}
	if n := len(msg.GetSeries()); n > lim.MaxSeriesPerRequest {
		err = refuse(reasonRequestSeries, "the request has %d series, more than the limit of %d", n, lim.MaxSeriesPerRequest)
	}
	if size > lim.MaxBody {
		err = refuse(reasonBody, "the request has %d bytes of profiles, more than the limit of %d", size, lim.MaxBody)
	}
	if err == nil && profiles > 0 {
		err = d.admit(r)
	}
	if err != nil {
		d.metrics.discard(reasonOf(err), profiles)
	}
	return err
}

// readRequest returns the profiles of all series whose labels are in order, and the other series as failures.
func (d *Distributor) readRequest(msg *pushv1.PushRequest, r *request) ([]upload, []failure) {
	var uploads []upload
	var failures []failure
	for i, s := range msg.GetSeries() {
		series, err := readSeries(s.GetLabels(), r.rules, r.limits)
		if err != nil {
			d.metrics.discard(reasonOf(err), len(s.GetSamples()))
			failures = append(failures, failure{series: i, profile: -1, service: series.Get(labels.ServiceName), err: err})
			continue
		}
		for j, sample := range s.GetSamples() {
			uploads = append(uploads, upload{series: series, id: sample.GetID(), body: sample.GetRawProfile(), index: i, profile: j})
		}
	}
	return uploads, failures
}

// storeAll stores profiles beside each other and returns for each its error, or nil once it is durable.
func (d *Distributor) storeAll(ctx context.Context, r *request, uploads []upload) []error {
	results := make([]error, len(uploads))
	waits := make([]func(context.Context) error, len(uploads))
	var g errgroup.Group
	g.SetLimit(d.cfg.Concurrency)
	for i := range uploads {
		if len(uploads) == 1 { // what most agents send: no goroutine for it
			waits[i], results[i] = d.append(ctx, r, &uploads[i])
			break
		}
		g.Go(func() error {
			waits[i], results[i] = d.append(ctx, r, &uploads[i])
			return nil
		})
	}
	_ = g.Wait() // each profile has a result of its own
	for i, wait := range waits {
		if results[i] == nil {
			results[i] = wait(ctx)
		}
	}
	return results
}
