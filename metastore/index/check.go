package index

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/oklog/ulid/v2"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/tenant"
)

var (
	// ErrInvalid is returned when a message does not describe an object.
	ErrInvalid = errors.New("invalid entry")

	// ErrWindow is returned when an id's time is too far away to know whether it was registered before.
	ErrWindow = errors.New("entry outside of the registration window")

	// ErrBanned is returned when an object of that id was refused before, and is being deleted.
	ErrBanned = errors.New("entry was refused before")

	// ErrDropped is returned when data as old as all of an object's was deleted.
	ErrDropped = errors.New("data of that time was deleted")
)

// maxLevel bounds what an entry may claim: far more compactions than there are levels.
const maxLevel = 64

// ParseID returns the id in its binary form. Only the canonical text is accepted: the id is part of an object's key.
func ParseID(text string) (ulid.ULID, error) {
	id, err := ulid.ParseStrict(text)
	canonical := [ulid.EncodedSize]byte{}
	if err == nil {
		err = id.MarshalTextTo(canonical[:])
	}
	if err != nil || string(canonical[:]) != text {
		return id, fmt.Errorf("%w: id %q is not a ULID", ErrInvalid, text)
	}
	return id, nil
}

// CheckNew is Check for an object that is to be registered: its footer, which says of no series that it was deleted.
func CheckNew(m *storagev1.BlockMeta) error {
	if err := Check(m); err != nil {
		return err
	}
	if slices.ContainsFunc(m.GetDatasets(), func(d *storagev1.Dataset) bool { return len(d.GetExcluded()) > 0 }) {
		return fmt.Errorf("%w: %s: series are excluded from an object that is new", ErrInvalid, m.GetId())
	}
	return nil
}

// Check returns ErrInvalid unless m describes an object: a segment, or the block of one tenant. Every reference that
// anybody may follow is in range, tenants are valid names, datasets are in order.
func Check(m *storagev1.BlockMeta) error {
	if m == nil {
		return fmt.Errorf("%w: empty", ErrInvalid)
	}
	if _, err := ParseID(m.GetId()); err != nil {
		return err
	}
	if problem := check(m); problem != "" {
		return fmt.Errorf("%w: %s: %s", ErrInvalid, m.GetId(), problem)
	}
	return nil
}

func check(m *storagev1.BlockMeta) (problem string) {
	n := uint32(len(m.GetStrings()))
	switch {
	case n == 0 || m.GetStrings()[0] != "":
		return "the first string is not empty"
	case m.GetTenant() >= n || m.GetWriter() >= n:
		return "tenant or writer outside of the strings"
	case m.GetMinTime() > m.GetMaxTime():
		return "min_time after max_time"
	case len(m.GetDatasets()) == 0:
		return "no datasets"
	case m.GetLevel() > maxLevel:
		return fmt.Sprintf("level %d is above %d", m.GetLevel(), maxLevel)
	case (m.GetLevel() == 0) != (m.GetTenant() == 0):
		return "a segment has no tenant and a block has one"
	case (m.GetLevel() == 0) != (len(m.GetSources()) == 0):
		return "a segment has no sources and a block has some"
	}
	for _, source := range m.GetSources() {
		if _, err := ParseID(source); err != nil {
			return err.Error()
		}
	}
	for _, k := range m.GetKinds() {
		bad := k == nil || k.GetName() >= n || k.GetPeriodType() >= n || k.GetPeriodUnit() >= n
		for _, t := range k.GetSampleTypes() {
			bad = bad || t == nil || t.GetType() >= n || t.GetUnit() >= n
		}
		if bad {
			return "kind outside of the strings"
		}
	}
	for _, g := range m.GetGroups() {
		if g == nil || g.GetTenant() >= n {
			return "group outside of the strings"
		}
	}
	var before *storagev1.Dataset
	for i, d := range m.GetDatasets() {
		if problem := checkDataset(m, d, before); problem != "" {
			return fmt.Sprintf("dataset %d: %s", i, problem)
		}
		before = d
	}
	return ""
}

func checkDataset(m *storagev1.BlockMeta, d, before *storagev1.Dataset) (problem string) {
	n := uint32(len(m.GetStrings()))
	switch {
	case d == nil:
		return "empty"
	case d.GetTenant() >= n || d.GetService() >= n:
		return "tenant or service outside of the strings"
	case d.GetGroup() >= uint32(len(m.GetGroups())):
		return "group outside of the groups"
	case m.GetGroups()[d.GetGroup()].GetTenant() != d.GetTenant():
		return "group of another tenant"
	case m.GetTenant() != 0 && d.GetTenant() != m.GetTenant():
		return "tenant is not the block's"
	case d.GetMinTime() > d.GetMaxTime() || d.GetMinTime() < m.GetMinTime() || d.GetMaxTime() > m.GetMaxTime():
		return "times outside of the object's"
	case before != nil && compareDatasets(m, before, d) >= 0:
		return "not in the order of (tenant, service)"
	case slices.ContainsFunc(d.GetExcluded(), func(ref uint32) bool { return ref >= n }):
		return "excluded series outside of the strings"
	}
	if _, err := tenant.Parse(m.GetStrings()[d.GetTenant()]); err != nil {
		return err.Error()
	}
	for _, r := range d.GetRows() {
		if r == nil || r.GetKind() >= uint32(len(m.GetKinds())) {
			return "rows of no kind"
		}
	}
	return ""
}

func compareDatasets(m *storagev1.BlockMeta, a, b *storagev1.Dataset) int {
	name := func(ref uint32) string { return m.GetStrings()[ref] }
	return cmp.Or(
		cmp.Compare(name(a.GetTenant()), name(b.GetTenant())),
		cmp.Compare(name(a.GetService()), name(b.GetService())),
	)
}
