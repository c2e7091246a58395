// Package retried is a bucket that tries again where another one failed and may not the next time.
//
// Gets, ranges, attributes, lists, deletes and puts are tried again: each of them can be repeated without harm, a put
// because it stores the same bytes under the same key. PutIfAbsent is not: where its first try was stored and the
// answer lost, a second would find that and report ErrExists to the one who wrote it. Only its caller can tell.
//
// Final at the first try are the answers that another try would not change (not found, exists, bad key, bad range,
// unsupported, cancelled), and all once the caller's context has ended. A deadline that passes below while the caller's
// has not, such as that of a connection, is worth another try.
package retried

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/kilndb/kiln/objstore"
)

var _ objstore.Bucket = (*Bucket)(nil)

// Config bounds the retries.
type Config struct {
	Attempts int           // tries in all; one means no retry
	MinPause time.Duration // before the second try; each further pause is up to twice as long
	MaxPause time.Duration
}

// DefaultConfig returns four tries, which give a store about a second to recover.
func DefaultConfig() Config {
	return Config{Attempts: 4, MinPause: 100 * time.Millisecond, MaxPause: 2 * time.Second}
}

// Validate reports what cannot be meant.
func (c Config) Validate() error {
	if c.Attempts < 1 || c.MinPause < 0 || c.MaxPause < c.MinPause {
		return fmt.Errorf("retries: want attempts >= 1 and 0 <= min pause <= max pause, got %d, %s and %s", c.Attempts, c.MinPause, c.MaxPause)
	}
	return nil
}

// Bucket is an object store with retries. Use New.
type Bucket struct {
	below objstore.Bucket
	cfg   Config
}

// New returns a bucket that does what below does, as often as cfg, which is valid, allows.
func New(below objstore.Bucket, cfg Config) *Bucket {
	return &Bucket{below: below, cfg: cfg}
}

// Get implements objstore.Getter.
func (b *Bucket) Get(ctx context.Context, key string) (data []byte, err error) {
	err = b.try(ctx, func() (err error) {
		data, err = b.below.Get(ctx, key)
		return err
	})
	return data, err
}

// GetRange implements objstore.Getter.
func (b *Bucket) GetRange(ctx context.Context, key string, off, n int64) (data []byte, err error) {
	err = b.try(ctx, func() (err error) {
		data, err = b.below.GetRange(ctx, key, off, n)
		return err
	})
	return data, err
}

// Attributes implements objstore.Getter.
func (b *Bucket) Attributes(ctx context.Context, key string) (attributes objstore.Attributes, err error) {
	err = b.try(ctx, func() (err error) {
		attributes, err = b.below.Attributes(ctx, key)
		return err
	})
	return attributes, err
}

// Put implements objstore.Putter.
func (b *Bucket) Put(ctx context.Context, key string, data []byte) error {
	return b.try(ctx, func() error { return b.below.Put(ctx, key, data) })
}

// PutFrom implements objstore.Putter.
func (b *Bucket) PutFrom(ctx context.Context, key string, src io.ReaderAt, size int64) error {
	return b.try(ctx, func() error { return b.below.PutFrom(ctx, key, src, size) })
}

// PutIfAbsent implements objstore.Putter. It is tried once.
func (b *Bucket) PutIfAbsent(ctx context.Context, key string, data []byte) error {
	return b.below.PutIfAbsent(ctx, key, data)
}

// List implements objstore.Lister. A listing that breaks off starts again and passes over what fn has seen.
func (b *Bucket) List(ctx context.Context, prefix string, fn func(objstore.Attributes) error) error {
	var last string // no key is empty
	var refused error
	err := b.try(ctx, func() error {
		err := b.below.List(ctx, prefix, func(a objstore.Attributes) error {
			if a.Key <= last {
				return nil
			}
			last = a.Key
			refused = fn(a)
			return refused
		})
		if refused != nil {
			return nil // fn's error is the caller's and no failure of the bucket
		}
		return err
	})
	if refused != nil {
		return refused
	}
	return err
}

// Delete implements objstore.Deleter.
func (b *Bucket) Delete(ctx context.Context, key string) error {
	return b.try(ctx, func() error { return b.below.Delete(ctx, key) })
}

// Close closes the bucket below.
func (b *Bucket) Close() error { return b.below.Close() }

// try calls do until it succeeds, fails for good, the attempts are used up or the context ends.
func (b *Bucket) try(ctx context.Context, do func() error) error {
	pause := b.cfg.MinPause
	for attempt := 1; ; attempt++ {
		err := do()
		if err == nil || ctx.Err() != nil || final(err) {
			return err
		}
		if attempt >= b.cfg.Attempts {
			return fmt.Errorf("after %d attempts: %w", attempt, err)
		}
		if ended := wait(ctx, jitter(pause)); ended != nil {
			return fmt.Errorf("after %d attempts: %w; the last: %w", attempt, ended, err)
		}
		pause = min(2*pause, b.cfg.MaxPause)
	}
}

func final(err error) bool {
	for _, sentinel := range []error{
		objstore.ErrNotFound, objstore.ErrExists, objstore.ErrKey, objstore.ErrRange, errors.ErrUnsupported, context.Canceled,
	} {
		if errors.Is(err, sentinel) {
			return true
		}
	}
	return false
}

// jitter returns between half and all of the pause, so that those who failed together do not come back together.
func jitter(pause time.Duration) time.Duration {
	return pause/2 + rand.N(pause/2+1)
}

func wait(ctx context.Context, pause time.Duration) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}
