package block

import (
	"errors"
	"fmt"
)

// ErrBudget is returned when a merge would have to hold more than its budget allows.
var ErrBudget = errors.New("merge needs more memory than its budget")

// DefaultBudget is the budget of a Merge: enough for a hundred large blocks of one service.
const DefaultBudget = 256 << 20

// ledger counts what a merge holds, against two fifths of its budget: with Go's default setting the heap grows to twice
// of what is in use before it is collected, ranges of pages that come and go meanwhile seem to be in use, and codecs and
// buffers of the writer are not counted.
type ledger struct {
	budget, limit, held int64
}

func newLedger(budget int64) *ledger { return &ledger{budget: budget, limit: budget / 5 * 2} }

// set says that what *slot says was held is n bytes now. The slot is set also if that is too much.
func (l *ledger) set(slot *int64, n int64) error {
	more := n > *slot
	l.held += n - *slot
	*slot = n
	if more && l.held > l.limit {
		return fmt.Errorf("%w: %d bytes would be held, a budget of %d allows %d", ErrBudget, l.held, l.budget, l.limit)
	}
	return nil
}

// fits tells whether n bytes more may be held.
func (l *ledger) fits(n int64) bool { return n <= l.free() }

// free is what may be held besides.
func (l *ledger) free() int64 { return max(l.limit-l.held, 0) }

// spare is what may be held besides by who can do without.
func (l *ledger) spare() int64 { return max(l.limit-l.limit/8-l.held, 0) }
