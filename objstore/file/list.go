package file

import (
	"context"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/kilndb/kiln/objstore"
)

// List walks the folders under prefix. It holds one folder's names per level in memory, and opens no object.
func (b *Bucket) List(ctx context.Context, prefix string, fn func(objstore.Attributes) error) error {
	if err := objstore.CheckPrefix(prefix); err != nil {
		return fmt.Errorf("list: %w", err)
	}
	folder, start := objstore.SplitPrefix(prefix)
	return b.list(ctx, path.Clean(folder), start, fn)
}

// list calls fn for the objects in folder, and below, that have a first element which begins with start.
func (b *Bucket) list(ctx context.Context, folder, start string, fn func(objstore.Attributes) error) error {
	entries, err := b.readDir(ctx, folder)
	if err != nil {
		return fmt.Errorf("list %s: %w", folder, err)
	}
	slices.SortFunc(entries, func(x, y fs.DirEntry) int { return strings.Compare(keyOrder(x), keyOrder(y)) })
	for _, entry := range entries {
		name := path.Join(folder, entry.Name())
		if !strings.HasPrefix(entry.Name(), start) || objstore.CheckKey(name) != nil {
			continue // a temporary file, or one that is none of ours
		}
		if entry.IsDir() {
			if err := b.list(ctx, name, "", fn); err != nil {
				return err
			}
			continue
		}
		info, err := entry.Info()
		if err != nil && !missing(err) {
			return fmt.Errorf("list %s: %w", folder, err)
		}
		if err != nil || !info.Mode().IsRegular() {
			continue // deleted meanwhile, or no object
		}
		if err := fn(attributes(name, info)); err != nil {
			return err
		}
	}
	return nil
}

// readDir returns the entries of a folder, none where there is no such folder.
func (b *Bucket) readDir(ctx context.Context, folder string) ([]fs.DirEntry, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f, err := b.root.Open(folder)
	if err != nil {
		if missing(err) {
			return nil, nil
		}
		return nil, err
	}
	defer f.Close()
	entries, err := f.ReadDir(-1)
	if err != nil && missing(err) {
		return nil, nil // a file of that name
	}
	return entries, err
}

// keyOrder is what the keys of an entry start with: a folder's go on with a slash, which sorts after "-" and ".".
func keyOrder(entry fs.DirEntry) string {
	if entry.IsDir() {
		return entry.Name() + "/"
	}
	return entry.Name()
}
