package querybackend

import (
	"fmt"
	"sync/atomic"

	"connectrpc.com/connect"

	queryv1 "github.com/kilndb/kiln/api/kiln/query/v1"
)

// budget is what one request may still decode.
type budget struct {
	limit int64
	used  atomic.Int64
}

func newBudget(limit int64) *budget { return &budget{limit: limit} }

// take counts n bytes of memory that are about to be filled, or have just been.
func (b *budget) take(n int64) error {
	if used := b.used.Add(n); used > b.limit {
		return connect.NewError(connect.CodeResourceExhausted, fmt.Errorf(
			"the query would decode more than %d bytes, the limit of one request (query-backend, MaxDecodedBytes): ask for a shorter time range or fewer series", b.limit))
	}
	return nil
}

// cost is what a request has cost so far.
type cost struct {
	entries, datasets, profiles, samples, rollups, fetched, decoded, backends atomic.Uint64
}

// add counts what another backend spent.
func (c *cost) add(s *queryv1.Statistics) {
	c.entries.Add(s.GetEntries())
	c.datasets.Add(s.GetDatasets())
	c.profiles.Add(s.GetProfiles())
	c.samples.Add(s.GetSamples())
	c.rollups.Add(s.GetRollups())
	c.fetched.Add(s.GetBytesFetched())
	c.decoded.Add(s.GetBytesDecoded())
	c.backends.Add(s.GetBackends())
}

func (c *cost) message() *queryv1.Statistics {
	return &queryv1.Statistics{
		Entries: c.entries.Load(), Datasets: c.datasets.Load(), Profiles: c.profiles.Load(), Samples: c.samples.Load(),
		Rollups: c.rollups.Load(), BytesFetched: c.fetched.Load(), BytesDecoded: c.decoded.Load(), Backends: c.backends.Load(),
	}
}
