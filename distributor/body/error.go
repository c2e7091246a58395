package body

import (
	"errors"
	"fmt"
)

// Why bodies could not be read to their end. They say nothing of addresses, as the errors of connections do.
var (
	// ErrLate is returned when a body did not arrive in time.
	ErrLate = errors.New("it did not arrive in time")
	// errCut is returned when the connection ended before the body.
	errCut = errors.New("it ended early")
)

// Error is an error with the HTTP status that tells it.
type Error struct {
	Status int
	err    error
}

// Errorf returns an Error.
func Errorf(status int, format string, args ...any) error {
	return &Error{status, fmt.Errorf(format, args...)}
}

func (e *Error) Error() string { return e.err.Error() }

// Unwrap returns what is wrong without the status.
func (e *Error) Unwrap() error { return e.err }
