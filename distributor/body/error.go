package body

import "fmt"

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
