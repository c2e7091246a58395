package metastore

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"

	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	"github.com/kilndb/kiln/api/kiln/metastore/v1/metastorev1connect"
	"github.com/kilndb/kiln/metastore/raftnode"
)

const (
	// watchPause is the least time between two messages to one watcher: when a leader is new, all nodes announce themselves at
	// about the same time.
	watchPause = 100 * time.Millisecond
	// maxWatchers is one for every member.
	maxWatchers = maxMembers
)

// Watch calls send with the members and the placement rules, at once and whenever they have changed, until ctx ends, send
// fails, or this member does not lead any more. Send must not change what it is given. While it is busy changes gather, and
// it is given the newest state next.
func (m *Metastore) Watch(ctx context.Context, send func(*metastorev1.WatchResponse) error) error {
	t, err := m.leading(ctx)
	if err != nil {
		return coded(err)
	}
	if err := t.members.watch(); err != nil {
		return err
	}
	defer t.members.unwatch()
	for {
		quiet, n := time.After(watchPause), t.members.latest()
		if err := send(n.WatchResponse); err != nil {
			return err
		}
		if err := watched(ctx, t, n.replaced); err != nil {
			return coded(err)
		}
		if err := watched(ctx, t, quiet); err != nil {
			return coded(err)
		}
	}
}

// watched waits for something to happen within a term.
func watched[T any](ctx context.Context, t *term, happens <-chan T) error {
	select {
	case <-happens:
		return nil
	case <-t.done:
		return fmt.Errorf("%w: the term has ended", raftnode.ErrUnavailable)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// watch counts a watcher, until unwatch.
func (m *members) watch() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.watchers >= maxWatchers {
		return connect.NewError(connect.CodeResourceExhausted, fmt.Errorf("there are %d watchers, the most that are served", m.watchers))
	}
	m.watchers++
	return nil
}

func (m *members) unwatch() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.watchers--
}

func (m *members) latest() *news {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.news
}

// MembershipWatch returns the handler of MembershipWatchService.
func (m *Metastore) MembershipWatch() metastorev1connect.MembershipWatchServiceHandler {
	return membershipWatchService{m}
}

// membershipWatchService serves MembershipWatchService.
type membershipWatchService struct{ m *Metastore }

// Watch streams the members and the placement rules.
func (s membershipWatchService) Watch(ctx context.Context, _ *connect.Request[metastorev1.WatchRequest], out *connect.ServerStream[metastorev1.WatchResponse]) error {
	return s.m.Watch(ctx, out.Send)
}
