package column

import (
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"

	"github.com/kilndb/kiln/internal/spare"
)

// ErrCorrupt is returned when stored bytes are not what was written.
var ErrCorrupt = errors.New("corrupt object")

// Level says how hard to compress.
type Level int

const (
	// Fastest is for objects that will soon be merged.
	Fastest Level = iota
	// Default is for objects that stay: 2 to 6 % smaller for half as much CPU again.
	Default
)

const (
	// MaxRaw is the most that one column may inflate to.
	MaxRaw = 1 << 30
	// freeRaw and maxRatio bound what stored bytes may inflate to: above freeRaw no column may be smaller than
	// its inflated length by more than maxRatio. Real columns reach 20; only constant ones would reach more,
	// and a constant column of millions is kept as it is.
	freeRaw  = 4 << 20
	maxRatio = 256
	// window is how far back a frame looks: few columns are longer, and an idle encoder holds as much.
	window = 1 << 20
	// compressible is the shortest column worth a frame, whose header alone takes 6 bytes.
	compressible = 24
	// keptCodecs is how many codecs of a sort are there from the start and for good. Few columns are compressed at the same time, and
	// what a codec has not used yet takes no memory.
	keptCodecs = 2
)

// The pools hold idle codecs and nothing else. A codec of klauspost/compress serves one caller at a time
// when its concurrency is 1, and costs more to make than a small section costs to encode.
var (
	encoders = [2]stock[*zstd.Encoder]{newStock(newEncoder(zstd.SpeedFastest)), newStock(newEncoder(zstd.SpeedDefault))}
	decoders = newStock(newDecoder)
)

// stock is codecs of one sort. Those that stay are made at the start and no others: codecs have channels inside, and one that
// a test of package synctest has made is of no use to the others.
type stock[T any] struct{ *spare.Pool[codec[T]] }

type codec[T any] struct {
	it    T
	stays bool
}

func newStock[T any](make func() T) stock[T] {
	s := stock[T]{&spare.Pool[codec[T]]{New: func() codec[T] { return codec[T]{it: make()} }, Keep: keptCodecs}}
	for range keptCodecs {
		s.put(codec[T]{make(), true})
	}
	return s
}

func (s stock[T]) put(c codec[T]) {
	if c.stays {
		s.Put(c, 1)
	} else {
		s.Put(c, keptCodecs+1)
	}
}

func newEncoder(level zstd.EncoderLevel) func() *zstd.Encoder {
	return func() *zstd.Encoder {
		// No CRC: every section has one. Concurrency 1: no goroutines.
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1),
			zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(window))
		if err != nil {
			panic(err) // constant options: cannot fail
		}
		e.EncodeAll(nil, nil) // makes the rest
		return e
	}
}

func newDecoder() *zstd.Decoder {
	// The capacity of the destination is the limit: a frame that says less than it holds is refused.
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecodeAllCapLimit(true),
		zstd.WithDecoderMaxMemory(MaxRaw), zstd.WithDecoderLowmem(true))
	if err != nil {
		panic(err) // constant options: cannot fail
	}
	return d
}

// Compress appends raw to dst, as a zstd frame if that is shorter.
func Compress(dst, raw []byte, level Level) []byte {
	start := len(dst)
	if len(raw) >= compressible {
		e := encoders[level].Get()
		dst = e.it.EncodeAll(raw, dst)
		encoders[level].put(e)
		if n := len(dst) - start; n < len(raw) && CheckLengths(uint64(len(raw)), uint64(n)) == nil {
			return dst
		}
	}
	return append(dst[:start], raw...)
}

// CheckLengths tells whether stored bytes can hold raw bytes. Whoever reads a directory calls it before
// trusting the lengths in there.
func CheckLengths(raw, stored uint64) error {
	if raw > MaxRaw || stored > raw || raw > freeRaw && raw/maxRatio > stored {
		return fmt.Errorf("%w: a column of %d bytes cannot be stored in %d", ErrCorrupt, raw, stored)
	}
	return nil
}

// Inflate returns the raw bytes of a stored column, which must pass CheckLengths. The result lies in dst, if
// that is large enough, or in stored, if that is not compressed: it must not be changed.
func Inflate(dst, stored []byte, raw int) ([]byte, error) {
	if len(stored) == raw {
		return stored, nil
	}
	if err := CheckLengths(uint64(raw), uint64(len(stored))); err != nil {
		return nil, err
	}
	if cap(dst) < raw {
		dst = make([]byte, 0, raw)
	}
	d := decoders.Get()
	out, err := d.it.DecodeAll(stored, dst[:0:raw])
	decoders.put(d)
	if err != nil {
		return nil, fmt.Errorf("%w: inflate a column: %w", ErrCorrupt, err)
	}
	if len(out) != raw {
		return nil, fmt.Errorf("%w: a column inflates to %d bytes, not %d", ErrCorrupt, len(out), raw)
	}
	return out, nil
}
