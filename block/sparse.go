package block

// sparse is a map from small numbers to small numbers that is emptied in no time, for many passes that each
// touch a few entries.
type sparse struct {
	entries []sparseEntry
	now     uint32
}

// sparseEntry is valid if it was set in the pass that is now.
type sparseEntry struct{ value, when uint32 }

// reset empties the map and makes room for n keys.
func (s *sparse) reset(n int) {
	if len(s.entries) < n {
		s.entries, s.now = make([]sparseEntry, n), 0
	}
	s.now++
	if s.now == 0 { // after 4 billion passes
		clear(s.entries)
		s.now = 1
	}
}

func (s *sparse) get(k uint32) (v uint32, ok bool) {
	e := s.entries[k]
	return e.value, e.when == s.now
}

func (s *sparse) set(k, v uint32) { s.entries[k] = sparseEntry{v, s.now} }
