package querybackend

import (
	"context"
	"fmt"
	"runtime/debug"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	queryv1 "github.com/kilndb/kiln/api/kiln/query/v1"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/query"
)

// execute returns the report of a node and all below it.
func (w *work) execute(ctx context.Context, n *queryv1.PlanNode, depth int) (*queryv1.Report, error) {
	switch {
	case depth >= maxDepth:
		return nil, invalid("the plan is more than %d levels high", maxDepth)
	case len(n.GetChildren()) > 0 && len(n.GetEntries()) > 0:
		return nil, invalid("a node of the plan has both children and entries")
	case len(n.GetChildren()) > 0:
		return w.inner(ctx, n.Children, depth)
	}
	return w.leaf(ctx, n.GetEntries())
}

// inner merges the reports of children, each as it comes.
func (w *work) inner(ctx context.Context, children []*queryv1.PlanNode, depth int) (*queryv1.Report, error) {
	sum, err := query.NewMerger(w.request.Question)
	if err != nil {
		return nil, err
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, child := range children {
		g.Go(func() error {
			return w.guard(func() error {
				report, err := w.child(ctx, child, depth)
				if err != nil {
					return err
				}
				return sum.Add(report)
			})
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return sum.Report(), nil
}

// child has one child executed, by whoever executes children.
func (w *work) child(ctx context.Context, n *queryv1.PlanNode, depth int) (*queryv1.Report, error) {
	others := w.backend.cfg.Children
	if others == nil {
		return w.execute(ctx, n, depth+1)
	}
	res, err := others.Invoke(ctx, connect.NewRequest(&queryv1.InvokeRequest{Tenant: w.request.Tenant, Question: w.request.Question, Node: n}))
	if err != nil {
		return nil, err
	}
	w.cost.add(res.Msg.Statistics)
	return res.Msg.Report, nil
}

// leaf reads entries, a few at once, and merges their reports, each as it comes. It waits its turn first: what
// leaves hold in memory is bounded by how many there are.
func (w *work) leaf(ctx context.Context, entries []*storagev1.BlockMeta) (*queryv1.Report, error) {
	b := w.backend
	b.metrics.waiting.Inc()
	err := b.slots.Acquire(ctx, 1)
	b.metrics.waiting.Dec()
	if err != nil {
		return nil, fmt.Errorf("wait for a free leaf: %w", err)
	}
	defer b.slots.Release(1)
	sum, err := query.NewMerger(w.request.Question)
	if err != nil {
		return nil, err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, b.cfg.Entries))
	for _, e := range entries {
		g.Go(func() error {
			return w.guard(func() error { return w.entry(ctx, e, sum) })
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return sum.Report(), nil
}

// guard turns a panic into an error: one bad object must not end the process.
func (w *work) guard(do func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			w.backend.log.Error("panic while reading", "panic", p, "stack", string(debug.Stack()))
			err = connect.NewError(connect.CodeInternal, fmt.Errorf("panic while reading: %v", p))
		}
	}()
	return do()
}
