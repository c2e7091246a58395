package fsck

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/block/inspect"
	"github.com/kilndb/kiln/objstore"
)

// workers is how many objects are looked at at a time.
const workers = 16

// Index is what the bucket is compared with.
type Index interface {
	// Walk calls entry for every entry and tombstone for every object that is to be deleted. Both are called one at a
	// time, and own what they are given.
	Walk(ctx context.Context, entry func(*storagev1.BlockMeta) error, tombstone func(key string) error) error
}

// Bucket is what is compared.
type Bucket interface {
	objstore.Getter
	objstore.Lister
}

// Options say how.
type Options struct {
	// Deep reads every object whole and checks all that is in it.
	Deep bool
	// OrphanAge is how old, by the store's clock, an object must be to be an orphan; Now is the moment to count from.
	OrphanAge time.Duration
	Now       time.Time
}

// Problem is something that is wrong with an object of the index.
type Problem struct {
	Key  string `json:"key"`
	Text string `json:"problem"`
}

// Orphan is an object that nobody names.
type Orphan struct {
	Key      string    `json:"key"`
	Size     int64     `json:"size"`
	Modified time.Time `json:"modified"`
}

// Report is what was found.
type Report struct {
	Entries    int   `json:"entries"`
	Tombstones int   `json:"tombstones"`
	Objects    int   `json:"objects"`
	Bytes      int64 `json:"bytes"`
	// Young are objects that nobody names, and that may be about to be registered.
	Young    int       `json:"young"`
	Problems []Problem `json:"problems"`
	Orphans  []Orphan  `json:"orphans"`
}

// checking is one run.
type checking struct {
	index   Index
	bucket  Bucket
	options Options

	listed map[string]objstore.Attributes
	named  map[string]bool // keys of entries and tombstones

	mu      sync.Mutex
	report  Report
	missing map[string]bool // keys of entries without an object
}

// Check compares. An error means that it could not be done.
func Check(ctx context.Context, index Index, bucket Bucket, options Options) (Report, error) {
	c := &checking{
		index: index, bucket: bucket, options: options,
		listed: map[string]objstore.Attributes{}, named: map[string]bool{}, missing: map[string]bool{},
	}
	// The objects first: one that is listed and registered by now is named when the index is read.
	if err := c.list(ctx); err != nil {
		return c.report, err
	}
	if err := c.entries(ctx); err != nil {
		return c.report, err
	}
	if err := c.stillMissing(ctx); err != nil {
		return c.report, err
	}
	c.orphans()
	slices.SortFunc(c.report.Problems, func(a, b Problem) int { return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Text, b.Text)) })
	return c.report, nil
}

func (c *checking) list(ctx context.Context) error {
	for _, prefix := range []string{"segments/", "blocks/"} {
		if err := c.bucket.List(ctx, prefix, func(a objstore.Attributes) error {
			c.listed[a.Key] = a
			c.report.Objects++
			c.report.Bytes += a.Size
			return nil
		}); err != nil {
			return fmt.Errorf("list objects: %w", err)
		}
	}
	return nil
}

// entries checks every entry's object.
func (c *checking) entries(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	queue := make(chan *storagev1.BlockMeta)
	for range workers {
		running.Go(func() {
			for m := range queue {
				if err := c.object(ctx, m); err != nil {
					cancel(err)
				}
			}
		})
	}
	err := c.index.Walk(ctx, func(m *storagev1.BlockMeta) error {
		c.named[block.Key(m)] = true
		c.report.Entries++
		select {
		case queue <- m:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}, func(key string) error {
		c.named[key] = true
		c.report.Tombstones++
		return nil
	})
	close(queue)
	running.Wait()
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return err
}

// object checks one object against its entry.
func (c *checking) object(ctx context.Context, m *storagev1.BlockMeta) error {
	key := block.Key(m)
	a, err := c.bucket.Attributes(ctx, key)
	switch {
	case errors.Is(err, objstore.ErrNotFound):
		c.mu.Lock()
		defer c.mu.Unlock()
		c.missing[key] = true
		return nil
	case err != nil:
		return err
	case uint64(a.Size) != m.GetSize():
		c.problem(key, "it has %d bytes, the index says %d", a.Size, m.GetSize())
		return nil
	}
	object := objstore.Object(c.bucket, key, a.Size)
	footer, err := block.ReadMeta(ctx, object)
	switch {
	case errors.Is(err, block.ErrCorrupt), errors.Is(err, block.ErrVersion):
		c.problem(key, "%v", err)
		return nil
	case errors.Is(err, objstore.ErrNotFound): // deleted since: it had been replaced
		return nil
	case err != nil:
		return err
	}
	if !describes(m, footer) {
		c.problem(key, "its footer is not what the index has")
	}
	if !c.options.Deep {
		return nil
	}
	problems, err := inspect.Verify(ctx, object)
	if err != nil && !errors.Is(err, objstore.ErrNotFound) {
		return err
	}
	for _, p := range problems {
		c.problem(key, "%s", p)
	}
	return nil
}

// describes says whether an entry is the footer, but for datasets that the index does not show any more, and selectors of
// series that it hides.
func describes(entry, footer *storagev1.BlockMeta) bool {
	entry = proto.CloneOf(entry)
	for _, d := range entry.GetDatasets() {
		d.Excluded = nil
	}
	if n := len(footer.GetStrings()); len(entry.GetStrings()) > n {
		entry.Strings = entry.Strings[:n] // those behind are selectors
	}
	rest := footer.GetDatasets()
	for _, d := range entry.GetDatasets() {
		i := slices.IndexFunc(rest, func(f *storagev1.Dataset) bool { return proto.Equal(d, f) })
		if i < 0 {
			return false
		}
		rest = rest[i+1:]
	}
	footer = proto.CloneOf(footer)
	entry.Datasets, footer.Datasets = nil, nil
	return proto.Equal(entry, footer)
}

func (c *checking) problem(key, format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.report.Problems = append(c.report.Problems, Problem{key, fmt.Sprintf(format, args...)})
}

// stillMissing reads the index again where objects are missing: entries that are gone by now had been replaced.
func (c *checking) stillMissing(ctx context.Context) error {
	if len(c.missing) == 0 {
		return nil
	}
	return c.index.Walk(ctx, func(m *storagev1.BlockMeta) error {
		if key := block.Key(m); c.missing[key] {
			c.problem(key, "it is missing from the bucket")
		}
		return nil
	}, func(string) error { return nil })
}

// orphans finds what nobody names.
func (c *checking) orphans() {
	for key, a := range c.listed {
		switch {
		case c.named[key]:
		case c.options.Now.Sub(a.ModTime) < c.options.OrphanAge:
			c.report.Young++
		default:
			c.report.Orphans = append(c.report.Orphans, Orphan{key, a.Size, a.ModTime})
		}
	}
	slices.SortFunc(c.report.Orphans, func(a, b Orphan) int { return strings.Compare(a.Key, b.Key) })
}
