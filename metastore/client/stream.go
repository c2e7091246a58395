package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"connectrpc.com/connect"

	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
)

// Watch calls told with the members and the placement rules, at once and whenever they have changed, by the leader of the
// time. It goes on until ctx ends, told fails, or the metastore refuses for good: an older one does not know this call.
func (c *Client) Watch(ctx context.Context, told func(*metastorev1.WatchResponse) error) error {
	pause := firstPause
	for {
		heard := false
		address, err := c.watch(ctx, func(news *metastorev1.WatchResponse) error {
			heard = true
			return told(news)
		})
		at, repeat := c.elsewhere(address, err)
		if !repeat || ctx.Err() != nil {
			return err
		}
		if heard {
			pause = firstPause
		}
		if at != "" && at != address && pause == firstPause {
			pause *= 2 // sent on once: go there at once
			continue
		}
		if !sleep(ctx, pause/2+rand.N(pause)) {
			return err
		}
		pause = min(2*pause, lastPause)
	}
}

// watch is Watch at one address, which it returns.
func (c *Client) watch(ctx context.Context, told func(*metastorev1.WatchResponse) error) (address string, err error) {
	if address, err = c.pick(ctx); err != nil {
		return "", err
	}
	r := c.remote(address)
	if r.local != nil {
		return address, r.local.Watch(ctx, func(news *metastorev1.WatchResponse) error {
			c.found(address)
			return told(news)
		})
	}
	streaming, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := r.watch.Watch(streaming, connect.NewRequest(&metastorev1.WatchRequest{}))
	if err != nil {
		return address, err
	}
	defer func() {
		cancel() // there may be no end to what comes
		_ = stream.Close()
	}()
	for stream.Receive() {
		c.found(address)
		if err := told(stream.Msg()); err != nil {
			return address, err
		}
	}
	return address, broken(ctx, stream.Err())
}

// find gathers the pages of one answer. If there is no end to it, what has come is of no use: the rest of another view would not fit.
func (r *remote) find(ctx context.Context, req *connect.Request[metastorev1.FindRequest]) (*connect.Response[metastorev1.FindResponse], error) {
	if r.local != nil {
		return r.local.Find(ctx, req)
	}
	streaming, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := r.pages.FindPages(streaming, connect.NewRequest(&metastorev1.FindPagesRequest{Find: req.Msg}))
	if err != nil {
		return nil, err
	}
	defer func() {
		cancel() // what is still to come is of no use
		_ = stream.Close()
	}()
	answer, pages := &metastorev1.FindResponse{}, 0
	for ; stream.Receive(); pages++ {
		page := stream.Msg().GetPage()
		if pages > 0 && page.GetIndex() != answer.GetIndex() {
			return nil, connect.NewError(connect.CodeInternal, fmt.Errorf("pages of one answer are of the views %d and %d", answer.GetIndex(), page.GetIndex()))
		}
		answer.Index, answer.Entries = page.GetIndex(), append(answer.Entries, page.GetEntries()...)
	}
	switch err := stream.Err(); {
	case connect.CodeOf(err) == connect.CodeUnimplemented: // by an older metastore
		return r.index.Find(ctx, connect.NewRequest(req.Msg))
	case err != nil || pages == 0:
		return nil, broken(ctx, err)
	}
	return connect.NewResponse(answer), nil
}

// broken returns the error of a stream whose end was not meant: the connection broke, or whoever served it went away.
func broken(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return connect.NewError(connect.CodeUnavailable, errors.New("the stream has ended"))
	case ctx.Err() != nil, connect.CodeOf(err) == connect.CodeUnimplemented,
		connect.IsWireError(err) && connect.CodeOf(err) != connect.CodeCanceled:
		return err
	}
	return connect.NewError(connect.CodeUnavailable, fmt.Errorf("the stream broke: %w", err))
}
