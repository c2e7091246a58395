package queryfrontend

import (
	"context"

	"connectrpc.com/connect"

	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	queryv1 "github.com/kilndb/kiln/api/kiln/query/v1"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/query"
)

// planFan is how many parts an inner node of a plan merges: enough that plans stay two or three levels high.
const planFan = 16

// ask returns the report that answers q, nil if nothing matches. An object that a compaction replaced meanwhile
// makes it find and plan once more; one that is missing from the new plan too is lost.
func (f *Frontend) ask(ctx context.Context, c *call, q *question) (*queryv1.Report, error) {
	report, _, err := f.askOf(ctx, c, q)
	return report, err
}

// askOf is ask, and returns also what was found, of which the report says what the question is about.
func (f *Frontend) askOf(ctx context.Context, c *call, q *question) (report *queryv1.Report, found []*storagev1.BlockMeta, err error) {
	for again := false; ; again = true {
		if found, err = f.find(ctx, c, q.timeRange, q.message.Selector); err != nil {
			return nil, nil, err
		}
		entries, err := narrow(found, c.tenant, q)
		if err != nil {
			return nil, nil, err
		}
		node := query.Plan(entries, f.cfg.LeafBytes, planFan)
		if node == nil {
			return nil, found, nil
		}
		res, err := f.backend.Invoke(ctx, connect.NewRequest(&queryv1.InvokeRequest{Tenant: string(c.tenant), Question: q.message, Node: node}))
		if err == nil {
			c.count(res.Msg.Statistics)
			return res.Msg.Report, found, nil
		}
		if again || connect.CodeOf(err) != connect.CodeNotFound {
			return nil, nil, f.translate(ctx, "reading profiles", err)
		}
		f.metrics.replans.Inc()
		f.log.Warn("object gone: planning once more", "err", err)
	}
}

// find returns the entries whose datasets may hold something, from a view that has everything acknowledged before
// the call. They are the index's own: they must not be changed.
func (f *Frontend) find(ctx context.Context, c *call, r timeRange, selector string) ([]*storagev1.BlockMeta, error) {
	res, err := f.index.Find(ctx, connect.NewRequest(&metastorev1.FindRequest{
		Tenants: []string{string(c.tenant)}, Start: r.start, End: r.end, Selector: selector,
	}))
	if err != nil {
		return nil, f.translate(ctx, "finding objects", err)
	}
	return res.Msg.Entries, nil
}
