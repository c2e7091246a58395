package querybackend

import (
	"context"
	"errors"

	"connectrpc.com/connect"

	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/flamegraph"
	"github.com/kilndb/kiln/objstore"
)

// coded gives an error the code by which callers know what to do. The texts name objects and are for other nodes; but
// that of a limit, which whoever asked has to read, says nothing of where it was met.
func coded(err error) error {
	code, text := connect.CodeInternal, err.Error()
	already := (*connect.Error)(nil)
	switch {
	case errors.As(err, &already):
		code, text = already.Code(), already.Message()
	case errors.Is(err, context.Canceled):
		code = connect.CodeCanceled
	case errors.Is(err, context.DeadlineExceeded):
		code = connect.CodeDeadlineExceeded
	case errors.Is(err, objstore.ErrNotFound):
		code = connect.CodeNotFound
	case errors.Is(err, block.ErrCorrupt), errors.Is(err, objstore.ErrRange):
		code = connect.CodeDataLoss // an object that is shorter than its entry says is damaged too
	case errors.Is(err, flamegraph.ErrOverflow):
		code, text = connect.CodeResourceExhausted, "the sums of the query do not fit 64 bits: ask for a shorter time range or fewer series"
	case errors.Is(err, errFetch):
		code = connect.CodeUnavailable
	}
	return connect.NewError(code, errors.New(text))
}
