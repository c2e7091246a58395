package metastore

import (
	"context"
	"errors"

	"connectrpc.com/connect"

	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	"github.com/kilndb/kiln/metastore/compaction"
	"github.com/kilndb/kiln/metastore/index"
	"github.com/kilndb/kiln/metastore/raftnode"
)

// coded returns err as the package comment says that clients see it.
func coded(err error) error {
	var elsewhere *raftnode.NotLeaderError
	switch {
	case errors.As(err, &elsewhere):
		e := connect.NewError(connect.CodeFailedPrecondition, err)
		if detail, err := connect.NewErrorDetail(&metastorev1.NotLeader{Leader: elsewhere.Leader}); err == nil {
			e.AddDetail(detail)
		}
		return e
	case errors.Is(err, context.DeadlineExceeded):
		return connect.NewError(connect.CodeDeadlineExceeded, err)
	case errors.Is(err, context.Canceled):
		return connect.NewError(connect.CodeCanceled, err)
	case errors.Is(err, raftnode.ErrUnknownMember):
		return connect.NewError(connect.CodeNotFound, err)
	case errors.Is(err, raftnode.ErrUnsafe):
		return connect.NewError(connect.CodeFailedPrecondition, err)
	case errors.Is(err, raftnode.ErrUnknown):
		return connect.NewError(connect.CodeAborted, err)
	case errors.Is(err, raftnode.ErrUnavailable): // whatever the reason: another member may serve
		return connect.NewError(connect.CodeUnavailable, err)
	case errors.Is(err, raftnode.ErrRemoved), errors.Is(err, raftnode.ErrCluster):
		return connect.NewError(connect.CodeFailedPrecondition, err)
	case errors.Is(err, index.ErrDropped):
		return connect.NewError(connect.CodeOutOfRange, err)
	case errors.Is(err, index.ErrExcluded):
		return connect.NewError(connect.CodeResourceExhausted, err)
	case refusal(err):
		return connect.NewError(connect.CodeInvalidArgument, err)
	case errors.Is(err, compaction.ErrUnknownJob), errors.Is(err, compaction.ErrToken), errors.Is(err, compaction.ErrSources),
		errors.Is(err, compaction.ErrSourceGone), errors.Is(err, compaction.ErrOutputs),
		errors.Is(err, compaction.ErrDrop), errors.Is(err, errVersion):
		return connect.NewError(connect.CodeFailedPrecondition, err)
	}
	return connect.NewError(connect.CodeInternal, err)
}

func invalid(problem string) error {
	return connect.NewError(connect.CodeInvalidArgument, errors.New(problem))
}
