package export

import (
	"context"
	"errors"
	"fmt"
	"os"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/block/inspect"
)

// ErrNothing is returned when an object has no dataset of the tenant and service.
var ErrNothing = errors.New("no such dataset in the object")

// Selection says which datasets to write; "" is any.
type Selection struct {
	Tenant, Service string
}

func (s Selection) matches(d *block.Dataset) bool {
	return (s.Tenant == "" || s.Tenant == d.Tenant) && (s.Service == "" || s.Service == d.Service)
}

// File is a file that has been written.
type File struct {
	Path string `json:"path"`
	Rows int64  `json:"rows"`
	Size int64  `json:"size"`
}

// anyFile is a file of any kind of row.
type anyFile interface {
	failed() error
	finish() error
	publish() (File, error)
	discard() error
}

// files are the tables.
type files struct {
	profiles  *file[Profile]
	samples   *file[Sample]
	series    *file[Series]
	functions *file[Function]
	locations *file[Location]
	mappings  *file[Mapping]
	all       []anyFile
}

// Object writes the selected datasets of an object into dir, which it makes if need be, and returns the files. Names
// and series that no selected dataset uses are left out. After an error there are no new files.
func Object(ctx context.Context, src block.Source, dir string, s Selection) (written []File, err error) {
	meta, err := block.ReadMeta(ctx, src)
	if err != nil {
		return nil, err
	}
	r, err := block.Open(src, meta)
	if err != nil {
		return nil, err
	}
	selected := map[uint32]bool{}
	for i, d := range r.Datasets() {
		if s.matches(d) {
			selected[meta.Datasets[i].GetGroup()] = true
		}
	}
	if len(selected) == 0 {
		return nil, fmt.Errorf("%w: object %s, tenant %q, service %q", ErrNothing, meta.GetId(), s.Tenant, s.Service)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	out, err := createAll(dir)
	defer func() { err = errors.Join(err, out.discard()) }()
	if err != nil {
		return nil, err
	}
	if err := out.groups(ctx, src, meta, s, selected); err != nil {
		return nil, err
	}
	return out.publish()
}

// groups writes one group after the other, forgetting each.
func (out *files) groups(ctx context.Context, src block.Source, meta *storagev1.BlockMeta, s Selection, selected map[uint32]bool) error {
	for i := range meta.GetGroups() {
		if !selected[uint32(i)] {
			continue
		}
		r, err := block.Open(src, inspect.Alone(meta, i))
		if err != nil {
			return err
		}
		g := &group{out: out}
		if err := g.write(ctx, r, s); err != nil {
			return err
		}
	}
	return nil
}

func createAll(dir string) (*files, error) {
	out := &files{}
	err := errors.Join(
		begin(out, &out.profiles, dir, "profiles.parquet"),
		begin(out, &out.samples, dir, "samples.parquet"),
		begin(out, &out.series, dir, "series.parquet"),
		begin(out, &out.functions, dir, "functions.parquet"),
		begin(out, &out.locations, dir, "locations.parquet"),
		begin(out, &out.mappings, dir, "mappings.parquet"),
	)
	return out, err
}

func begin[T any](out *files, f **file[T], dir, name string) (err error) {
	if *f, err = create[T](dir, name); err == nil {
		out.all = append(out.all, *f)
	}
	return err
}

// failed returns the first error of any file.
func (out *files) failed() error {
	for _, f := range out.all {
		if err := f.failed(); err != nil {
			return err
		}
	}
	return nil
}

// publish completes all files, and then gives them their names.
func (out *files) publish() (written []File, err error) {
	for _, f := range out.all {
		if err := f.finish(); err != nil {
			return nil, err
		}
	}
	for _, f := range out.all {
		w, err := f.publish()
		if err != nil {
			return nil, err
		}
		written = append(written, w)
	}
	return written, nil
}

// discard removes the files that have not been published.
func (out *files) discard() (err error) {
	for _, f := range out.all {
		err = errors.Join(err, f.discard())
	}
	return err
}
