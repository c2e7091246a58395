package profile

import (
	"fmt"

	"github.com/google/uuid"
)

// ID tells profiles of the same series and time apart. It is a UUID.
type ID [16]byte

// NewID returns a random id (UUID version 4).
func NewID() ID { return ID(uuid.New()) }

// ParseID reads an id in any of the usual text forms of a UUID.
func ParseID(s string) (ID, error) {
	u, err := uuid.Parse(s)
	if err != nil {
		return ID{}, fmt.Errorf("parse profile id %q: %w", s, err)
	}
	return ID(u), nil
}

// String returns the id in the form 01234567-89ab-cdef-0123-456789abcdef.
func (id ID) String() string { return uuid.UUID(id).String() }
