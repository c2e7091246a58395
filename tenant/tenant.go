package tenant

import (
	"context"
	"errors"
	"fmt"
)

// ErrInvalid is returned when a text is not a tenant id.
var ErrInvalid = errors.New("invalid tenant id")

// Header is the HTTP header that carries the id of the tenant.
const Header = "X-Scope-OrgID"

// ID names a tenant. It is safe as a part of an object key: see Parse.
type ID string

// Anonymous is the tenant of everyone while there is only one.
const Anonymous ID = "anonymous"

// maxID is the longest id that other systems with this header accept.
const maxID = 150

// Parse returns s as an id: 1 to 150 of A-Z a-z 0-9 _ . - and neither "." nor "..", which a path would
// take for something else. The errors wrap ErrInvalid.
func Parse(s string) (ID, error) {
	switch {
	case s == "":
		return "", fmt.Errorf("%w: it is empty", ErrInvalid)
	case len(s) > maxID:
		return "", fmt.Errorf("%w: %d bytes exceed the limit of %d", ErrInvalid, len(s), maxID)
	case s == "." || s == "..":
		return "", fmt.Errorf("%w: %q", ErrInvalid, s)
	}
	for i := range len(s) {
		if !valid(s[i]) {
			return "", fmt.Errorf("%w %q: byte %d may not be %q (allowed are A-Z a-z 0-9 _ . -)", ErrInvalid, s, i, s[i])
		}
	}
	return ID(s), nil
}

func valid(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '.' || c == '-'
}

type contextKey struct{}

// NewContext returns a context that carries id.
func NewContext(ctx context.Context, id ID) context.Context {
	return context.WithValue(ctx, contextKey{}, id)
}

// FromContext returns the id that ctx carries, if any.
func FromContext(ctx context.Context) (ID, bool) {
	id, ok := ctx.Value(contextKey{}).(ID)
	return id, ok
}
