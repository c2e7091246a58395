package distributor

import (
	"encoding/binary"
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
)

// activeSeries knows which series of a tenant had profiles in the last minutes, by their hashes. The zero value with
// all is empty and ready.
type activeSeries struct {
	all *atomic.Int64 // counts the series of all tenants

	mu sync.Mutex // guards the rest
	// young are the series that were seen since born, old those that were last seen in the generation before. No
	// series is in both.
	young, old map[uint64]struct{}
	born       time.Time
}

// use marks series as seen, unless some of them are new and would pass a limit: then it marks none of the new ones
// and returns how many there are. The order of hashes is of no matter, and each occurs once.
func (s *activeSeries) use(now time.Time, hashes []uint64, limit int) (active int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn(now)
	fresh := 0
	for _, h := range hashes {
		if _, young := s.young[h]; young {
			continue
		}
		if _, old := s.old[h]; old {
			delete(s.old, h)
			s.young[h] = struct{}{}
			continue
		}
		fresh++
	}
	active = len(s.young) + len(s.old)
	if fresh == 0 {
		return active, true
	}
	if active+fresh > limit || s.all.Load()+int64(fresh) > maxRemembered {
		return active, false
	}
	for _, h := range hashes {
		s.young[h] = struct{}{}
	}
	s.all.Add(int64(fresh))
	return active + fresh, true
}

// age forgets series that were not seen of late.
func (s *activeSeries) age(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn(now)
}

// turn begins a generation when it is time. The caller holds mu.
func (s *activeSeries) turn(now time.Time) {
	passed := now.Sub(s.born)
	switch {
	case s.young == nil:
		s.born, s.young = now, map[uint64]struct{}{}
		return
	case passed < generation:
		return
	}
	s.all.Add(-int64(len(s.old)))
	s.old, s.young = s.young, map[uint64]struct{}{}
	s.born = s.born.Add(passed.Truncate(generation)) // on the beat, also where nobody was here to see it begin
	if passed >= 2*generation {                      // nobody was here for all of the one between
		s.all.Add(-int64(len(s.old)))
		s.old = nil
	}
}

// hashSeries appends the hashes of the series that a profile belongs to, one for each set of labels of its samples, as
// they are stored: without the kind and other private labels. The hash is seeded: nobody can send series that look
// like one.
func hashSeries(dst []uint64, seed maphash.Seed, series labels.Labels, p *profile.Profile) []uint64 {
	var h maphash.Hash
	for _, s := range p.Series {
		h.SetSeed(seed)
		hashLabels(&h, series)
		hashLabels(&h, s.Labels)
		dst = append(dst, h.Sum64())
	}
	return dst
}

func hashLabels(h *maphash.Hash, ls labels.Labels) {
	var length [binary.MaxVarintLen64]byte
	write := func(s string) {
		_, _ = h.Write(binary.AppendUvarint(length[:0], uint64(len(s)))) // never fails
		_, _ = h.WriteString(s)
	}
	for _, l := range ls {
		if !strings.HasPrefix(l.Name, "__") || !strings.HasSuffix(l.Name, "__") {
			write(l.Name)
			write(l.Value)
		}
	}
	write("") // no label has an empty name: the end of the set
}
