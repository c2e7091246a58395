package segmentwritertest

import (
	"context"
	"slices"
	"strings"
	"sync"

	"connectrpc.com/connect"

	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
)

// Call is what becomes of one proposal to an Index.
type Call struct {
	// Commit is whether the segments are registered, whatever the answer.
	Commit bool
	// Err is the answer.
	Err error
	// Dropped are the datasets that the answer says were not taken.
	Dropped []*metastorev1.DroppedDataset
	// Hold, if not nil, is received from before the call goes on.
	Hold <-chan struct{}
}

// Index is an index in memory that takes each id once, and fails on command.
type Index struct {
	mu      sync.Mutex // guards what follows
	next    []Call
	calls   int
	entries map[string]*storagev1.BlockMeta
}

// Next sets what becomes of the next calls. Those beyond work.
func (x *Index) Next(calls ...Call) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.next = append(x.next, calls...)
}

// AddSegments registers segments, or does what the next call says.
func (x *Index) AddSegments(ctx context.Context, req *connect.Request[metastorev1.AddSegmentsRequest]) (*connect.Response[metastorev1.AddSegmentsResponse], error) {
	call := x.begin()
	if call.Hold != nil {
		select {
		case <-call.Hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if call.Commit {
		x.commit(req.Msg.GetSegments())
	}
	if call.Err != nil {
		return nil, call.Err
	}
	return connect.NewResponse(&metastorev1.AddSegmentsResponse{Dropped: call.Dropped}), nil
}

func (x *Index) begin() Call {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.calls++
	call := Call{Commit: true}
	if len(x.next) > 0 {
		call, x.next = x.next[0], x.next[1:]
	}
	return call
}

func (x *Index) commit(segments []*storagev1.BlockMeta) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.entries == nil {
		x.entries = map[string]*storagev1.BlockMeta{}
	}
	for _, m := range segments {
		x.entries[m.GetId()] = m
	}
}

// Calls returns how many calls began.
func (x *Index) Calls() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.calls
}

// Entries returns what is registered, ordered by id.
func (x *Index) Entries() []*storagev1.BlockMeta {
	x.mu.Lock()
	defer x.mu.Unlock()
	var all []*storagev1.BlockMeta
	for _, m := range x.entries {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b *storagev1.BlockMeta) int { return strings.Compare(a.GetId(), b.GetId()) })
	return all
}
