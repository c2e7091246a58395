package export

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/parquet-go/parquet-go"
)

const (
	// A row group ends after so many rows or so many bytes of text in them: parquet-go keeps it in memory until then.
	groupRows  = 128 << 10
	groupBytes = 32 << 20
	// batchRows are handed to parquet-go at once.
	batchRows = 256
)

// file is one Parquet file on its way. Its first error stays.
type file[T any] struct {
	path  string
	out   *os.File
	buf   *bufio.Writer
	w     *parquet.GenericWriter[T]
	batch []T
	rows  int64
	// last is how many numbers of rows have been given away, where they are not those of the rows.
	last int64
	// of the row group at hand
	groupRows, groupBytes int
	err                   error
}

// create begins a file that gets its name when it is complete.
func create[T any](dir, name string) (*file[T], error) {
	out, err := os.CreateTemp(dir, "."+name+".*")
	if err != nil {
		return nil, err
	}
	buf := bufio.NewWriterSize(out, 256<<10)
	return &file[T]{
		path: filepath.Join(dir, name), out: out, buf: buf, batch: make([]T, 0, batchRows),
		w: parquet.NewGenericWriter[T](buf, parquet.Compression(&parquet.Zstd), parquet.CreatedBy("kiln", "1", "")),
	}, nil
}

// add writes a row, which has about that many bytes of text. It keeps the row's memory for a while.
func (f *file[T]) add(row T, text int) {
	f.batch = append(f.batch, row)
	f.rows++
	f.groupRows++
	f.groupBytes += text
	if len(f.batch) == batchRows {
		f.flush()
	}
	if f.groupRows >= groupRows || f.groupBytes >= groupBytes {
		f.flush()
		f.keep(f.w.Flush)
		f.groupRows, f.groupBytes = 0, 0
	}
}

func (f *file[T]) flush() {
	f.keep(func() error {
		_, err := f.w.Write(f.batch)
		return err
	})
	clear(f.batch)
	f.batch = f.batch[:0]
}

func (f *file[T]) keep(step func() error) {
	if f.err == nil {
		f.err = step()
	}
}

// failed returns the first error.
func (f *file[T]) failed() error {
	if f.err != nil {
		return fmt.Errorf("write %s: %w", f.path, f.err)
	}
	return nil
}

// finish writes what is left and closes the file, which has no name yet.
func (f *file[T]) finish() error {
	f.flush()
	f.keep(f.w.Close)
	f.keep(f.buf.Flush)
	f.keep(func() error { return f.out.Chmod(0o644) })
	f.err = errors.Join(f.err, f.out.Close())
	return f.failed()
}

// publish gives the file its name.
func (f *file[T]) publish() (File, error) {
	info, err := os.Stat(f.out.Name())
	if err != nil {
		return File{}, err
	}
	if err := os.Rename(f.out.Name(), f.path); err != nil {
		return File{}, err
	}
	return File{Path: f.path, Rows: f.rows, Size: info.Size()}, nil
}

// discard removes the file unless it has been published.
func (f *file[T]) discard() error {
	_ = f.out.Close() // it may be closed already
	if err := os.Remove(f.out.Name()); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
