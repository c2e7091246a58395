package cloud

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/smithy-go"
	"gocloud.dev/gcerrors"

	"github.com/kilndb/kiln/objstore"
)

// translate gives an error of gocloud or of the SDK the sentinel that our callers know, and keeps its text.
func translate(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	sentinel := classify(err)
	if ended := ctx.Err(); ended != nil {
		sentinel = ended
	}
	if sentinel == nil || errors.Is(err, sentinel) {
		return err
	}
	return fmt.Errorf("%w: %w", sentinel, err)
}

func classify(err error) error {
	var api smithy.APIError
	if errors.As(err, &api) {
		switch api.ErrorCode() {
		case "InvalidRange":
			return objstore.ErrRange
		case "NoSuchBucket":
			return nil // gocloud calls it NotFound, as if it were the object
		case "NoSuchKey", "NotFound":
			return objstore.ErrNotFound
		}
	}
	switch gcerrors.Code(err) {
	case gcerrors.NotFound:
		return objstore.ErrNotFound
	case gcerrors.FailedPrecondition:
		return objstore.ErrExists
	}
	return nil
}
