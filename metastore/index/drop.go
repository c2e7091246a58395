package index

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"go.etcd.io/bbolt"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
)

// floor says that the datasets of a service, or of all services of a tenant, whose newest profile is older were
// dropped. It only ever rises.
type floor struct {
	tenant  string
	service string
	all     bool  // every service; service is empty
	before  int64 // Unix nanoseconds
}

func (f floor) compare(o floor) int {
	return cmp.Or(cmp.Compare(f.tenant, o.tenant), compareBool(f.all, o.all), cmp.Compare(f.service, o.service))
}
func (f floor) bounds() (int64, int64) { return f.before, f.before }

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// key returns where the floor is stored. No tenant has a zero byte in its name.
func (f floor) key() []byte {
	key := append([]byte(f.tenant), 0)
	if f.all {
		return append(key, 0)
	}
	return append(append(key, 1), f.service...)
}

func parseFloor(k, v []byte) (f floor, err error) {
	end := bytes.IndexByte(k, 0)
	if end < 0 || len(k) < end+2 || k[end+1] > 1 || len(v) != 8 {
		return f, fmt.Errorf("floor %x: %x is damaged", k, v)
	}
	return floor{
		tenant: string(k[:end]), service: string(k[end+2:]), all: k[end+1] == 0, before: int64(binary.BigEndian.Uint64(v)),
	}, nil
}

func (x *Index) loadFloors(tx *bbolt.Tx) error {
	return tx.Bucket(floorsBucket).ForEach(func(k, v []byte) error {
		f, err := parseFloor(k, v)
		x.next.floors = x.next.floors.put(x.next.edit, f)
		return err
	})
}

// floor returns the time below which datasets of a service are dropped.
func (v *View) floor(tenant, service string) int64 {
	before := int64(math.MinInt64)
	for _, key := range []floor{{tenant: tenant, all: true}, {tenant: tenant, service: service}} {
		if f, ok := v.floors.get(key); ok {
			before = max(before, f.before)
		}
	}
	return before
}

// Below returns the datasets of m, as indexes, that were dropped or would have been had they been there: data as old as
// all of theirs was deleted. It answers for the transaction that is running.
func (x *Index) Below(m *storagev1.BlockMeta) (datasets []int) {
	if x.next.floors.empty() {
		return nil
	}
	for i, d := range m.GetDatasets() {
		if d.GetMaxTime() < x.next.floor(m.GetStrings()[d.GetTenant()], m.GetStrings()[d.GetService()]) {
			datasets = append(datasets, i)
		}
	}
	return datasets
}

// without returns an entry without some of its datasets.
func without(m *storagev1.BlockMeta, datasets []int) *storagev1.BlockMeta {
	kept := make([]*storagev1.Dataset, 0, len(m.GetDatasets())-len(datasets))
	for i, d := range m.GetDatasets() {
		if !slices.Contains(datasets, i) {
			kept = append(kept, d)
		}
	}
	return withDatasets(m, kept)
}

// Drop takes what d names off the index, and raises the floor so that it does not come back. It calls changed, in the
// order of the ids, for every entry that had some of it: with the entry as it was, and as it is from now on, which is
// nil where nothing is left of it and it is gone. A drop with a selector, which CheckDrop has let pass, hides series of
// what is there now and raises no floor.
func (x *Index) Drop(tx *bbolt.Tx, d *storagev1.Drop, changed func(before, after *storagev1.BlockMeta) error) error {
	if d.GetSelector() != "" {
		return x.exclude(tx, d, changed)
	}
	f := floor{tenant: d.GetTenant(), service: d.GetService(), all: d.Service == nil, before: d.GetBefore()}
	if known, ok := x.next.floors.get(f); !ok || known.before < f.before {
		next := *x.next
		next.floors = next.floors.put(next.edit, f)
		x.next = &next
		if err := tx.Bucket(floorsBucket).Put(f.key(), binary.BigEndian.AppendUint64(nil, uint64(f.before))); err != nil {
			return fmt.Errorf("put floor: %w", err)
		}
	}
	return eachEntry(x.next.dropped(d), func(e *entry, datasets []int) error {
		after, err := x.reduce(tx, e, datasets)
		if err != nil {
			return err
		}
		return changed(e.meta(), after)
	})
}

// dropped returns the datasets that d names.
func (v *View) dropped(d *storagev1.Drop) (hits []span) {
	t, ok := v.tenants.get(tenantNode{name: d.GetTenant()})
	if !ok {
		return nil
	}
	end := d.GetBefore()
	if d.GetStored() {
		end = math.MaxInt64
	}
	collect := func(s span) {
		if d.GetStored() || s.to < end {
			hits = append(hits, s)
		}
	}
	visit := func(s serviceNode) { s.spans.overlap(math.MinInt64, end, collect) }
	if d.Service == nil {
		t.services.overlap(math.MinInt64, end, visit)
	} else if s, ok := t.services.get(serviceNode{name: d.GetService()}); ok {
		visit(s)
	}
	return hits
}

// reduce takes datasets off an entry, and the entry off the index when it has no others.
func (x *Index) reduce(tx *bbolt.Tx, e *entry, datasets []int) (after *storagev1.BlockMeta, err error) {
	if len(datasets) == len(e.meta().GetDatasets()) {
		return nil, x.Remove(tx, e.meta())
	}
	after = without(e.meta(), datasets)
	return after, x.replace(tx, e, after)
}

// replace puts another message in the place of an entry's.
func (x *Index) replace(tx *bbolt.Tx, e *entry, after *storagev1.BlockMeta) error {
	encoded, err := encode(after)
	if err != nil {
		return err
	}
	x.next = x.next.without(e, e.meta())
	return x.store(tx, e.id, after, encoded)
}

// Expired calls fn for every service that has a dataset whose newest profile is older than before says for it. A service
// of which nothing expires has before 0.
func (v *View) Expired(before func(tenant, service string) int64, fn func(tenant, service string, before int64)) {
	for t := range v.tenants.all {
		for s := range t.services.all {
			end := before(t.name, s.name)
			if end == 0 || s.spans.from >= end {
				continue
			}
			old := false
			s.spans.overlap(math.MinInt64, end, func(s span) { old = old || s.to < end })
			if old {
				fn(t.name, s.name, end)
			}
		}
	}
}
