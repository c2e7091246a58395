package distributor

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Why profiles are discarded: the values of a metric's label. The names are those that dashboards of other systems
// with this API know.
const (
	reasonBody           = "body_size_limit_exceeded"
	reasonRequestSeries  = "request_series_limit"
	reasonRequestSize    = "request_profiles_limit"
	reasonRate           = "rate_limited"
	reasonSeries         = "series_limit"
	reasonMemory         = "out_of_memory"
	reasonOverload       = "overloaded"
	reasonMissingLabels  = "missing_labels"
	reasonLabelCount     = "max_label_names_per_series"
	reasonLabelName      = "label_name_too_long"
	reasonLabelValue     = "label_value_too_long"
	reasonInvalidLabels  = "invalid_labels"
	reasonDuplicateLabel = "duplicate_label_names"
	reasonProfileID      = "invalid_profile_id"
	reasonMalformed      = "malformed_profile"
	reasonProfileSize    = "profile_size_limit"
	reasonSamples        = "samples_limit"
	reasonSampleLabels   = "sample_labels_limit"
	reasonWindow         = "not_in_ingestion_window"
	reasonRelabel        = "dropped_by_relabel_rules"
	reasonWriter         = "segment_writer" // it refused or failed
	reasonPanic          = "panic"
)

// refusal is an error of the door itself, with the reason that is counted. Its cause is what was sent, except for
// reasonPanic.
type refusal struct {
	reason string
	err    error
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

func refuse(reason, format string, args ...any) error {
	return &refusal{reason, fmt.Errorf(format, args...)}
}

// later is the cause of a refusal that passes by itself.
type later struct {
	err   error
	after time.Duration
}

func (l *later) Error() string { return l.err.Error() }

// refuseUntil refuses what may be sent again after some time.
func refuseUntil(after time.Duration, reason, format string, args ...any) error {
	return &refusal{reason, &later{fmt.Errorf(format, args...), after}}
}

// reasonOf returns why a profile with this error is discarded.
func reasonOf(err error) string {
	if r := new(refusal); errors.As(err, &r) {
		return r.reason
	}
	return reasonWriter
}

// codeOf returns the code of an error of one profile.
func codeOf(err error) connect.Code {
	if r := new(refusal); errors.As(err, &r) {
		switch {
		case r.reason == reasonPanic:
			return connect.CodeInternal
		case errors.As(r.err, new(*later)):
			return connect.CodeResourceExhausted
		}
		return connect.CodeInvalidArgument
	}
	if e := new(connect.Error); errors.As(err, &e) {
		return e.Code()
	}
	switch {
	case errors.Is(err, context.Canceled):
		return connect.CodeCanceled
	case errors.Is(err, context.DeadlineExceeded):
		return connect.CodeDeadlineExceeded
	}
	return connect.CodeInternal
}

// severity orders codes from those that a repetition cannot change to those where it is the only thing to do.
var severity = []connect.Code{
	connect.CodeInvalidArgument, connect.CodeCanceled, connect.CodeResourceExhausted, connect.CodeInternal,
	connect.CodeDeadlineExceeded, connect.CodeAborted, connect.CodeUnavailable,
}

// retryAfter returns when what failed with this error may be sent again; 0: never, or nobody knows.
func retryAfter(err error) time.Duration {
	switch l := new(later); {
	case errors.As(err, &l):
		return l.after
	case slices.Contains([]connect.Code{connect.CodeResourceExhausted, connect.CodeUnavailable}, codeOf(err)):
		return time.Second // about as long as an election or a flush takes
	}
	return 0
}

// answerTo returns what a call is told whose only profile failed with err.
func answerTo(err error) *connect.Error { return answer(codeOf(err), message(err), retryAfter(err)) }

// answer returns the error of a call, which says when to come back if that is worth it: HTTP clients look for the header,
// gRPC clients for the detail.
func answer(code connect.Code, text string, after time.Duration) *connect.Error {
	err := connect.NewError(code, errors.New(text))
	if after > 0 {
		err.Meta().Set("Retry-After", strconv.FormatInt(int64(math.Ceil(after.Seconds())), 10))
		if detail, e := connect.NewErrorDetail(&errdetails.RetryInfo{RetryDelay: durationpb.New(after)}); e == nil {
			err.AddDetail(detail)
		}
	}
	return err
}

// failure is a profile of a push that is not stored, or a whole series.
type failure struct {
	series  int
	profile int // -1: all of the series
	service string
	err     error
	what    string // says which it is, instead of the fields above; or empty
}

func (f failure) String() string {
	if f.what != "" {
		return f.what + ": " + message(f.err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "series %d", f.series)
	if f.service != "" {
		fmt.Fprintf(&b, " (service_name=%.80q)", f.service)
	}
	if f.profile >= 0 {
		fmt.Fprintf(&b, " profile %d", f.profile)
	}
	return b.String() + ": " + message(f.err)
}

// message returns the text of an error without the code, which Connect puts in front.
func message(err error) string {
	if e := new(connect.Error); errors.As(err, &e) {
		return e.Message()
	}
	return err.Error()
}

// maxFailures bounds how many failures a message lists, so that it stays readable and fits a header.
const maxFailures = 32

// joinFailures returns the error of a push of which these profiles are not stored, nil if there are none.
func joinFailures(failures []failure) error {
	if len(failures) == 0 {
		return nil
	}
	slices.SortFunc(failures, func(a, b failure) int {
		if a.series != b.series {
			return a.series - b.series
		}
		return a.profile - b.profile
	})
	worst, after := connect.CodeInvalidArgument, time.Duration(0)
	var lines []string
	for i, f := range failures {
		if code := codeOf(f.err); slices.Index(severity, code) > slices.Index(severity, worst) {
			worst = code
		}
		after = max(after, retryAfter(f.err))
		if i < maxFailures {
			lines = append(lines, f.String())
		}
	}
	text := strings.Join(lines, "; ")
	if more := len(failures) - maxFailures; more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return answer(worst, text, after)
}
