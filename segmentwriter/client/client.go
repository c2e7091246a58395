// Package client hands profiles to segment-writers, most of them in other processes.
//
// A Client does what a segmentwriter.Writer in the same process does, over the network: it sends the bytes that the
// profile was decoded from. A profile that is no longer what such bytes say it encodes, and sends what pprof has no place for
// beside it. Which writers may take a shard is told to it by a function.
//
// Sharp edge: a profile whose fate is not known is not sent to another writer, it would count twice. The next candidate
// is tried only if the one before says that it took nothing (it is full, or stopping) or could not be reached at all.
//
// The writer of the client's own process, if there is one, is a candidate like the others, but called directly: nothing is
// encoded. It may change a profile that it then refuses; such a one is not given to another.
//
// A writer that fails is left alone for a moment, longer each time, and then tried by one push, so that not every push
// pays for it.
package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	segmentwriterv1 "github.com/kilndb/kiln/api/kiln/segmentwriter/v1"
	"github.com/kilndb/kiln/api/kiln/segmentwriter/v1/segmentwriterv1connect"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/pprof"
	"github.com/kilndb/kiln/segmentwriter"
	"github.com/kilndb/kiln/tenant"
)

// Local is the segment-writer of this process.
type Local struct {
	// Address is what it is called among the candidates.
	Address string
	Writer  *segmentwriter.Writer
}

// Client sends profiles to segment-writers. It is safe for concurrent use.
type Client struct {
	http       connect.HTTPClient
	local      Local
	options    []connect.ClientOption
	candidates func(shard uint32) []string
	log        *slog.Logger
	copies     sync.Pool // of *[]byte

	rests rests

	mu      sync.Mutex // guards writers
	writers map[string]segmentwriterv1connect.SegmentWriterServiceClient
}

const (
	// maxCandidates is how many writers are asked for one profile: when those are full the system is, and one more only carries it about.
	maxCandidates = 3
	// callTimeout is longer than a writer gathers and a flight takes. Who has not answered by then does not.
	callTimeout = 40 * time.Second
)

// New returns a client that sends the profiles of a shard to the first address that candidates returns for it, and to
// the others if that must be. An address is host:port, or a URL. The zero Local is none.
func New(http connect.HTTPClient, local Local, candidates func(shard uint32) []string, log *slog.Logger, options ...connect.ClientOption) *Client {
	c := &Client{
		http: http, local: local, options: options, candidates: candidates, log: log,
		copies:  sync.Pool{New: func() any { return new([]byte) }},
		writers: map[string]segmentwriterv1connect.SegmentWriterServiceClient{},
	}
	if local.Writer != nil { // for profiles of which there are only bytes left, because they were sent elsewhere first
		c.writers[local.Address] = segmentwriter.NewService(local.Writer)
	}
	return c
}

// Append sends a profile on its way. When it returns, p may be reused. wait must be called; it blocks until the profile
// is durable, and ends the call if its context ends. The errors are *connect.Error, as a Writer's.
func (c *Client) Append(ctx context.Context, t tenant.ID, shard uint32, series labels.Labels, id profile.ID, p *profile.Profile) (wait func(context.Context) error, err error) {
	if len(p.Series) == 0 {
		return func(context.Context) error { return nil }, nil
	}
	candidates := c.rests.order(c.candidates(shard), time.Now())
	candidates = candidates[:min(len(candidates), maxCandidates)]
	var refusal error = connect.NewError(connect.CodeUnavailable, fmt.Errorf("there is no segment writer for shard %d", shard))
	if len(candidates) > 0 && c.isLocal(candidates[0]) {
		wait, maySend, err := c.direct(ctx, t, shard, series, id, p)
		if !maySend || len(candidates) == 1 {
			return wait, err
		}
		candidates, refusal = candidates[1:], err
	}
	return c.remote(ctx, t, shard, series, id, p, candidates, refusal), nil
}

func (c *Client) isLocal(address string) bool {
	return c.local.Writer != nil && address == c.local.Address
}

// direct gives a profile to the writer of this process. maySend tells that it took nothing, and that another may be given p.
func (c *Client) direct(ctx context.Context, t tenant.ID, shard uint32, series labels.Labels, id profile.ID, p *profile.Profile) (wait func(context.Context) error, maySend bool, err error) {
	given := time.Now()
	wait, err = c.local.Writer.Append(ctx, t, shard, series, id, p)
	if err == nil {
		c.rests.succeeded(c.local.Address, given)
		return wait, false, nil
	}
	if !c.refused(c.local.Address, err) {
		return nil, false, err
	}
	c.rest(c.local.Address, err)
	// Where counters became differences, only the bytes are what they were.
	return nil, p.Wire > 0 || series.Get(labels.Delta) != "true", err
}

// remote sends a profile to the first candidate that takes it, in the background. If there is none the answer is refusal.
func (c *Client) remote(ctx context.Context, t tenant.ID, shard uint32, series labels.Labels, id profile.ID, p *profile.Profile, candidates []string, refusal error) (wait func(context.Context) error) {
	body := c.copies.Get().(*[]byte)
	request := &segmentwriterv1.AppendRequest{
		Tenant: string(t), Shard: shard, Id: id[:], Time: p.TimeNanos, Labels: make([]*segmentwriterv1.Label, len(series)),
	}
	*body = encode((*body)[:0], p, request)
	request.Profile = *body
	for i, l := range series {
		request.Labels[i] = &segmentwriterv1.Label{Name: l.Name, Value: l.Value}
	}
	ctx, cancel := context.WithCancel(ctx)
	answer := make(chan error, 1)
	go func() {
		defer cancel()
		answer <- c.send(ctx, candidates, request, refusal)
		c.copies.Put(body) // connect has encoded the message into a buffer of its own
	}()
	return func(waiting context.Context) error {
		defer context.AfterFunc(waiting, cancel)()
		return <-answer
	}
}

// encode appends the profile in wire form, and puts into the request what that has no place for.
func encode(dst []byte, p *profile.Profile, request *segmentwriterv1.AppendRequest) []byte {
	if p.Wire > 0 {
		return append(dst, p.Data[:p.Wire]...) // what it says of spans and traces is in its labels
	}
	for _, id := range p.Spans {
		request.Spans = append(request.Spans, id[:]...)
	}
	for _, id := range p.Traces {
		request.Traces = append(request.Traces, id[:]...)
	}
	request.Times = slices.Clone(p.Times)
	last := uint32(0)
	for _, end := range p.TimeEnds {
		request.Seen = append(request.Seen, end-last)
		last = end
	}
	return pprof.Append(dst, p) // after Normalise: its samples are those of the columns
}

// send tries the candidates in order until one may have taken the profile. Without any it returns err.
func (c *Client) send(ctx context.Context, candidates []string, request *segmentwriterv1.AppendRequest, err error) error {
	for _, address := range candidates {
		sent := time.Now()
		failure := c.call(ctx, address, request)
		if failure == nil {
			c.rests.succeeded(address, sent)
			return nil
		}
		definite := c.refused(address, failure)
		// What the writer itself says of the profile or of the bucket is no reason to avoid it, nor that the caller is gone.
		if definite || !c.said(address, failure) && ctx.Err() == nil {
			c.rest(address, failure)
		}
		c.log.Debug("profile not taken by a segment writer", "shard", request.GetShard(), "address", address, "error", failure)
		if err = failure; !c.said(address, failure) {
			// Made on this side: the text names hosts, which are nobody's business but the log's.
			err = connect.NewError(connect.CodeOf(failure), fmt.Errorf("the segment writer of shard %d does not answer", request.GetShard()))
		}
		if !definite || ctx.Err() != nil {
			break
		}
	}
	return err
}

// rest leaves a writer alone for a while.
func (c *Client) rest(address string, failure error) {
	if c.rests.failed(address, time.Now()) {
		c.log.Warn("segment writer is avoided for a while", "address", address, "error", failure)
	}
}

func (c *Client) call(ctx context.Context, address string, request *segmentwriterv1.AppendRequest) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := c.writer(address).Append(ctx, connect.NewRequest(request))
	return err
}

// said tells whether an error is what the writer itself said.
func (c *Client) said(address string, err error) bool {
	return c.isLocal(address) || connect.IsWireError(err)
}

// refused tells whether an error proves that the writer did not take the profile: it says so, or no connection was made that
// could have carried it.
func (c *Client) refused(address string, err error) bool {
	if dial := new(net.OpError); errors.As(err, &dial) && dial.Op == "dial" {
		return true
	}
	e := new(connect.Error)
	return c.said(address, err) && errors.As(err, &e) && e.Meta().Get(segmentwriter.Refused) != ""
}

func (c *Client) writer(address string) segmentwriterv1connect.SegmentWriterServiceClient {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.writers[address]
	if w == nil {
		url := address
		if !strings.Contains(url, "://") {
			url = "http://" + url
		}
		w = segmentwriterv1connect.NewSegmentWriterServiceClient(c.http, url, c.options...)
		c.writers[address] = w
	}
	return w
}
