package pprof

import (
	"errors"
	"fmt"
)

// ErrMalformed is returned when the input is not a profile. The message names the field.
var ErrMalformed = errors.New("malformed profile")

// ErrTooLarge is returned when a profile exceeds a limit. The error is a *LimitError.
var ErrTooLarge = errors.New("profile too large")

// LimitError says which limit a profile exceeds. It wraps ErrTooLarge.
type LimitError struct {
	// What is limited, such as "samples".
	What string
	// Limit is the largest number that is allowed.
	Limit int
}

// Error names the limit.
func (e *LimitError) Error() string {
	return fmt.Sprintf("%v: more than %d %s", ErrTooLarge, e.Limit, e.What)
}

// Unwrap returns ErrTooLarge.
func (e *LimitError) Unwrap() error { return ErrTooLarge }

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrMalformed, fmt.Errorf(format, args...))
}
