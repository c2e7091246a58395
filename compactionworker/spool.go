package compactionworker

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// ErrOutputTooLarge is returned when a job's output exceeds Config.MaxOutput.
var ErrOutputTooLarge = errors.New("output too large")

// spool holds an object until it is whole: in memory, and from a size on in a temporary file. It is written first and
// then read, by ReadAt.
type spool struct {
	memory []byte
	file   *os.File // takes everything once it exists
	size   int64
	cfg    Config
}

var (
	_ io.Writer   = (*spool)(nil)
	_ io.ReaderAt = (*spool)(nil)
)

func newSpool(cfg Config) *spool { return &spool{cfg: cfg} }

// Write appends p.
func (s *spool) Write(p []byte) (int, error) {
	if s.size+int64(len(p)) > s.cfg.MaxOutput {
		return 0, fmt.Errorf("%w: more than %d bytes", ErrOutputTooLarge, s.cfg.MaxOutput)
	}
	if s.file == nil && s.size+int64(len(p)) > s.cfg.MemoryBuffer {
		if err := s.spill(); err != nil {
			return 0, fmt.Errorf("temporary file: %w", err)
		}
	}
	n := len(p)
	if s.file == nil {
		s.memory = append(s.memory, p...)
	} else {
		var err error
		if n, err = s.file.Write(p); err != nil {
			return n, fmt.Errorf("temporary file: %w", err)
		}
	}
	s.size += int64(n)
	return n, nil
}

// spill moves what is in memory to a file. The file has no name from the start, so that it goes away with the process.
func (s *spool) spill() error {
	f, err := os.CreateTemp(s.cfg.TempDir, "kiln-compaction-*")
	if err != nil {
		return err
	}
	if err := os.Remove(f.Name()); err != nil {
		return errors.Join(err, f.Close())
	}
	if _, err := f.Write(s.memory); err != nil {
		return errors.Join(err, f.Close())
	}
	s.file, s.memory = f, nil
	return nil
}

// ReadAt reads what was written.
func (s *spool) ReadAt(p []byte, off int64) (int, error) {
	if s.file != nil {
		return s.file.ReadAt(p, off)
	}
	if off < 0 || off > int64(len(s.memory)) {
		return 0, fmt.Errorf("read at %d of %d bytes", off, len(s.memory))
	}
	n := copy(p, s.memory[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Size returns the number of bytes that were written.
func (s *spool) Size() int64 { return s.size }

// Close gives back what the spool holds.
func (s *spool) Close() error {
	s.memory = nil
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}
