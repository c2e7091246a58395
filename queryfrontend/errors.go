package queryfrontend

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"
)

// translate turns an error of the index or of a backend into one of the few that callers see. The texts of those
// rooms name objects and addresses: they are logged, and only a limit that was exceeded is passed on.
func (f *Frontend) translate(ctx context.Context, doing string, err error) error {
	if ctx.Err() != nil { // whatever came back: nobody waited for it
		err = ctx.Err()
	}
	code, text := connect.CodeOf(err), ""
	switch {
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return connect.NewError(connect.CodeCanceled, errors.New("the caller left"))
	case errors.Is(err, context.DeadlineExceeded), code == connect.CodeDeadlineExceeded:
		return connect.NewError(connect.CodeDeadlineExceeded, errors.New("the query took longer than its deadline: ask for a shorter time range or fewer series"))
	case code == connect.CodeResourceExhausted:
		if remote := (*connect.Error)(nil); errors.As(err, &remote) {
			text = remote.Message()
		}
		return connect.NewError(connect.CodeResourceExhausted, errors.New(text))
	case code == connect.CodeUnavailable, code == connect.CodeAborted, code == connect.CodeFailedPrecondition, code == connect.CodeCanceled:
		code, text = connect.CodeUnavailable, "not available at the moment: try again"
	case code == connect.CodeNotFound:
		code, text = connect.CodeDataLoss, "an object that the index names is missing"
	case code == connect.CodeDataLoss:
		text = "an object cannot be read: its bytes are damaged"
	default:
		code, text = connect.CodeInternal, "internal error"
	}
	f.log.Error("query failed", "doing", doing, "err", err)
	public := connect.NewError(code, fmt.Errorf("%s: %s", doing, text))
	if code == connect.CodeUnavailable {
		public.Meta().Set("Retry-After", "1")
	}
	return public
}
