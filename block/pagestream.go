package block

import (
	"context"
	"fmt"
	"hash/crc32"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block/samples"
)

const (
	// directoryRead is what is read of the end of a section that is not read whole: the directory of half a gigabyte of
	// pages takes less.
	directoryRead = 64 << 10
	// A range of pages is one read. Below the least a remote store is all latency; above the most nothing is gained.
	leastRange = 64 << 10
	mostRange  = 4 << 20
)

// pageSource gives the stored bytes of a page of a section.
type pageSource interface {
	page(p int) ([]byte, error)
	// done says that those of page p are not needed any more, for now.
	done(p int)
}

// wholeSection is a pageSource in memory.
type wholeSection struct{ *samples.Section }

func (s wholeSection) page(p int) ([]byte, error) { return s.StoredPage(p), nil }

func (wholeSection) done(int) {}

// pageStream reads the pages of a SAMPLES section in ranges of a few, and the range after the one at hand while that
// is in use. Any page may be asked for at any time; who goes forward reads everything once. A section that fits into one
// range is read whole, and kept until close.
//
// The CRC is that of the whole section, which is known when all of it has gone by: each page's own is remembered,
// and verify joins them. A page that is read again must be what it was.
type pageStream struct {
	directory *samples.Directory
	// read reads a part of the section, which the ranges keep below room.
	read   func(from, to uint64) ([]byte, error)
	room   uint64
	memory *ledger
	held   int64

	// The pages at hand are [first, end).
	first, end int
	window     []byte
	ahead      chan pageRange // the next range, if it is being read
	aheadSize  uint64

	crcs     []uint32 // of the pages
	seen     []bool   // whose CRC is known
	rest     uint32   // CRC of what comes after the pages
	restSize uint64
	want     uint32
	verified bool
}

// pageRange is what became of reading the pages [first, end).
type pageRange struct {
	first, end int
	bytes      []byte
	err        error
}

// openPages opens a SAMPLES section to read ranges of room bytes, as long as ctx and the ledger let it. Close must be
// called.
func (g *group) openPages(ctx context.Context, section uint32, columns int, extras []samples.Extra, room uint64, memory *ledger) (s *pageStream, err error) {
	meta := g.meta.Sections[section]
	defer g.guard(meta, &err)
	s = &pageStream{room: room, memory: memory, want: meta.GetCrc()}
	s.read = func(from, to uint64) ([]byte, error) {
		b, err := g.r.src.ReadRange(ctx, int64(meta.GetOffset()+from), int64(to-from))
		if err == nil && uint64(len(b)) != to-from {
			err = fmt.Errorf("%w: read %d bytes of %d", ErrCorrupt, len(b), to-from)
		}
		return b, err
	}
	if meta.GetLength() <= room {
		err = s.openWhole(ctx, g, meta, columns, extras)
	} else {
		err = s.openDirectory(meta.GetLength(), columns, extras)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *pageStream) openWhole(ctx context.Context, g *group, meta *storagev1.Section, columns int, extras []samples.Extra) error {
	if err := s.memory.set(&s.held, int64(meta.GetLength())); err != nil {
		return err
	}
	b, err := g.fetch(ctx, meta)
	if err != nil {
		return err
	}
	section, err := samples.Parse(b, columns, extras...)
	if err != nil {
		return err
	}
	s.directory, s.window, s.end, s.verified = section.Directory, b, section.Pages(), true
	return nil
}

func (s *pageStream) openDirectory(length uint64, columns int, extras []samples.Extra) error {
	tail, err := s.read(length-min(length, directoryRead), length)
	if err != nil {
		return err
	}
	n, err := samples.DirectoryLength(tail, length)
	if err != nil {
		return err
	}
	if n > uint64(len(tail)) {
		if err := s.memory.set(&s.held, 4*int64(n)); err != nil {
			return err
		}
		if tail, err = s.read(length-n, length); err != nil {
			return err
		}
	}
	tail = tail[uint64(len(tail))-n:]
	if s.directory, err = samples.ParseDirectory(tail, length-n, columns, extras...); err != nil {
		return err
	}
	s.rest, s.restSize = crc32.Checksum(tail, castagnoli), n
	s.crcs, s.seen = make([]uint32, s.directory.Pages()), make([]bool, s.directory.Pages())
	return s.account()
}

// account tells the ledger what is held: the numbers of the directory are as many bytes as columns of pages times 24.
func (s *pageStream) account() error {
	n := 24 * int64(s.directory.Pages()) * int64(s.directory.Columns())
	return s.memory.set(&s.held, n+int64(len(s.window))+int64(s.aheadSize))
}

// page returns the stored bytes of page p, which live as long as their holder likes.
func (s *pageStream) page(p int) ([]byte, error) {
	if p < s.first || p >= s.end {
		if err := s.turn(p); err != nil {
			return nil, err
		}
	}
	base, _ := s.directory.Range(s.first)
	from, to := s.directory.Range(p)
	return s.window[from-base : to-base], nil
}

// done drops the pages at hand if p is the last of them.
func (s *pageStream) done(p int) {
	if s.seen != nil && p == s.end-1 {
		s.window, s.first, s.end = nil, 0, 0
		_ = s.account() // less than before
	}
}

// turn makes a range of pages that begins with p, or has been read ahead and has p, the one at hand.
func (s *pageStream) turn(p int) error {
	r := s.await()
	s.window, s.first, s.end = nil, 0, 0
	if p < r.first || p >= r.end {
		r = pageRange{first: p, end: s.rangeFrom(p)}
		s.aheadSize = s.size(r)
		if err := s.account(); err != nil {
			return err
		}
		r.bytes, r.err = s.readPages(r.first, r.end)
		s.aheadSize = 0
	}
	if r.err != nil {
		return r.err
	}
	if err := s.note(r); err != nil {
		return err
	}
	s.window, s.first, s.end = r.bytes, r.first, r.end
	s.readAhead()
	return s.account()
}

// rangeFrom returns the end of the range that begins with page p: at least that page.
func (s *pageStream) rangeFrom(p int) int {
	from, _ := s.directory.Range(p)
	end := p + 1
	for ; end < s.directory.Pages(); end++ {
		if _, to := s.directory.Range(end); to-from > s.room {
			break
		}
	}
	return end
}

// size is how many bytes the pages of a range take.
func (s *pageStream) size(r pageRange) uint64 {
	from, _ := s.directory.Range(r.first)
	_, to := s.directory.Range(r.end - 1)
	return to - from
}

func (s *pageStream) readPages(first, end int) ([]byte, error) {
	from, _ := s.directory.Range(first)
	_, to := s.directory.Range(end - 1)
	return s.read(from, to)
}

// readAhead begins to read the range after the one at hand, if that takes no more than its share of the room, as a page
// may, and nothing that may be needed.
func (s *pageStream) readAhead() {
	if s.end == s.directory.Pages() {
		return
	}
	r := pageRange{first: s.end, end: s.rangeFrom(s.end)}
	size := s.size(r)
	if size > s.room || int64(size) > s.memory.spare() {
		return
	}
	s.aheadSize = size
	ahead := make(chan pageRange, 1)
	s.ahead = ahead
	go func() {
		r.bytes, r.err = s.readPages(r.first, r.end)
		ahead <- r
	}()
}

// await returns the range that was read ahead, an empty one if there is none.
func (s *pageStream) await() (r pageRange) {
	if s.ahead != nil {
		r = <-s.ahead
		s.ahead, s.aheadSize = nil, 0
	}
	return r
}

// note remembers the CRCs of pages that have been read.
func (s *pageStream) note(r pageRange) error {
	base, _ := s.directory.Range(r.first)
	for p := r.first; p < r.end; p++ {
		from, to := s.directory.Range(p)
		crc := crc32.Checksum(r.bytes[from-base:to-base], castagnoli)
		if s.seen[p] && s.crcs[p] != crc {
			return fmt.Errorf("%w: page %d has CRC %08x, and had %08x when it was read before", ErrCorrupt, p, crc, s.crcs[p])
		}
		s.crcs[p], s.seen[p] = crc, true
	}
	return nil
}

// verify checks the CRC of the section, for which it reads the pages that nobody has asked for.
func (s *pageStream) verify() error {
	if s.verified {
		return nil
	}
	crc := uint32(0)
	for p := range s.seen {
		if !s.seen[p] {
			if _, err := s.page(p); err != nil {
				return err
			}
		}
		from, to := s.directory.Range(p)
		crc = joinCRC(crc, s.crcs[p], to-from)
	}
	if crc = joinCRC(crc, s.rest, s.restSize); crc != s.want {
		return fmt.Errorf("%w: CRC %08x, want %08x", ErrCorrupt, crc, s.want)
	}
	s.verified = true
	return nil
}

// pause drops the pages at hand, unless they are all there are; they are read again if they are asked for.
func (s *pageStream) pause() {
	if s.seen == nil {
		return
	}
	s.await()
	s.window, s.first, s.end = nil, 0, 0
	_ = s.account() // less than before
}

// close drops everything, and waits for what is being read.
func (s *pageStream) close() {
	s.await()
	s.window, s.directory = nil, nil
	_ = s.memory.set(&s.held, 0)
}
