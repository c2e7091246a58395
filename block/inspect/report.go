package inspect

import (
	"context"
	"errors"
	"fmt"
	"time"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block"
)

// Report is what there is to know of an object. Sizes are bytes: stored is what they take in the object, raw what they
// inflate to. Size is the sum of Footer and of all sections' Stored.
type Report struct {
	ID string `json:"id"`
	// Key is the object's name in a bucket.
	Key   string `json:"key"`
	Level uint32 `json:"level"`
	Shard uint32 `json:"shard"`
	// Tenant is "" for a segment, which mixes tenants.
	Tenant  string    `json:"tenant,omitempty"`
	MinTime time.Time `json:"minTime"`
	MaxTime time.Time `json:"maxTime"`
	Writer  string    `json:"writer"`
	Sources []string  `json:"sources"`
	Size    int64     `json:"size"`
	// Footer is all that is not a section: the footer, and magic, version, length and CRC at both ends.
	Footer int64 `json:"footer"`
	// Totals add the sections up by their type.
	Totals   []Total   `json:"totals"`
	Groups   []Group   `json:"groups"`
	Datasets []Dataset `json:"datasets"`
}

// Total is all sections of one type.
type Total struct {
	Type     string `json:"type"`
	Sections int    `json:"sections"`
	Raw      int64  `json:"raw"`
	Stored   int64  `json:"stored"`
	// Columns are those of the sections, added up by name.
	Columns []Column `json:"columns"`
}

// Group is what some datasets of a tenant share.
type Group struct {
	Tenant   string    `json:"tenant"`
	Sorted   bool      `json:"sorted"`
	Sections []Section `json:"sections"`
}

// Dataset is one service's rows.
type Dataset struct {
	Tenant  string    `json:"tenant"`
	Service string    `json:"service"`
	Group   int       `json:"group"`
	MinTime time.Time `json:"minTime"`
	MaxTime time.Time `json:"maxTime"`
	Cost
	Kinds []Kind `json:"kinds"`
}

// Kind is the rows of one kind of a dataset.
type Kind struct {
	Name       string `json:"name"`
	PeriodType string `json:"periodType"`
	PeriodUnit string `json:"periodUnit"`
	Cost
	Sums []Sum `json:"sums"`
}

// Cost is how many profiles there are and what they take.
type Cost struct {
	Profiles uint64 `json:"profiles"`
	// Samples counts rows: one per profile, stack, span and trace.
	Samples uint64 `json:"samples"`
	// Stored is the share of the object's sections: what several rows have in common is divided by profiles (SERIES,
	// PROFILES) or samples (the others). The shares of all rows add up to all sections of groups that have rows.
	Stored          int64   `json:"stored"`
	BytesPerProfile float64 `json:"bytesPerProfile"`
}

func (c *Cost) add(o Cost) {
	c.Profiles += o.Profiles
	c.Samples += o.Samples
	c.Stored += o.Stored
	c.BytesPerProfile = float64(c.Stored) / float64(max(c.Profiles, 1))
}

// Sum is the sum of all values of one sample type.
type Sum struct {
	Type string `json:"type"`
	Unit string `json:"unit"`
	Sum  int64  `json:"sum"`
}

// Inspect reads an object and reports on it. It holds one group's sections at a time. An error means that there
// is nothing to report: no footer, or no bytes.
func Inspect(ctx context.Context, src block.Source) (*Report, error) {
	o, err := open(ctx, src)
	if err != nil {
		return nil, err
	}
	m := o.meta
	r := &Report{
		ID: m.GetId(), Key: block.Key(m), Level: m.GetLevel(), Shard: m.GetShard(), Tenant: m.Strings[m.GetTenant()],
		MinTime: moment(m.GetMinTime()), MaxTime: moment(m.GetMaxTime()), Writer: m.Strings[m.GetWriter()],
		Sources: append([]string{}, m.GetSources()...), Size: int64(m.GetSize()), Footer: headSize + o.footer + tailSize,
		Totals: []Total{}, Groups: []Group{}, Datasets: []Dataset{},
	}
	for i, g := range m.GetGroups() {
		group := Group{Tenant: m.Strings[g.GetTenant()], Sorted: g.GetSorted(), Sections: []Section{}}
		for j := range g.GetSections() {
			s, err := o.section(ctx, sectionRef{i, j})
			if err != nil {
				return nil, fmt.Errorf("object %s: %w", m.GetId(), err)
			}
			group.Sections = append(group.Sections, s)
			r.add(s)
		}
		o.src.release()
		r.Groups = append(r.Groups, group)
	}
	r.datasets(o)
	return r, nil
}

func moment(nanos int64) time.Time { return time.Unix(0, nanos).UTC() }

// add counts a section among those of its type.
func (r *Report) add(s Section) {
	t := find(&r.Totals, func(t *Total) bool { return t.Type == s.Type })
	t.Type = s.Type
	t.Sections++
	t.Raw += s.Raw
	t.Stored += s.Stored
	for _, c := range s.Columns {
		sum := find(&t.Columns, func(o *Column) bool { return o.Name == c.Name })
		sum.Name = c.Name
		sum.Raw += c.Raw
		sum.Stored += c.Stored
		if sum.Encoding == "" {
			sum.Encoding = c.Encoding
		} else if sum.Encoding != c.Encoding {
			sum.Encoding = "mixed"
		}
	}
}

// find returns the item of a short list that is wanted, a new one at its end if there is none.
func find[T any](all *[]T, is func(*T) bool) *T {
	for i := range *all {
		if is(&(*all)[i]) {
			return &(*all)[i]
		}
	}
	var zero T
	*all = append(*all, zero)
	return &(*all)[len(*all)-1]
}

// datasets lists the datasets and what they cost.
func (r *Report) datasets(o *object) {
	shares := o.shares()
	for i, d := range o.meta.GetDatasets() {
		out := Dataset{
			Tenant: o.meta.Strings[d.GetTenant()], Service: o.meta.Strings[d.GetService()], Group: int(d.GetGroup()),
			MinTime: moment(d.GetMinTime()), MaxTime: moment(d.GetMaxTime()), Kinds: []Kind{},
		}
		for j, rows := range d.GetRows() {
			k := o.kind(rows.GetKind())
			kind := Kind{Name: k.Name, PeriodType: k.PeriodType, PeriodUnit: k.PeriodUnit}
			kind.add(Cost{Profiles: rows.GetProfiles(), Samples: rows.GetSamples(), Stored: shares[use{i, j}]})
			for c, t := range k.SampleTypes {
				kind.Sums = append(kind.Sums, Sum{t.Type, t.Unit, rows.GetSums()[c]})
			}
			out.Kinds = append(out.Kinds, kind)
			out.add(kind.Cost)
		}
		r.Datasets = append(r.Datasets, out)
	}
}

// isCorrupt tells whether an error is about the object rather than about reading it.
func isCorrupt(err error) bool {
	return errors.Is(err, block.ErrCorrupt) || errors.Is(err, block.ErrVersion)
}

// byProfiles tells whether a shared section grows with the number of profiles rather than of samples.
func byProfiles(t storagev1.SectionType) bool {
	return t == storagev1.SectionType_SECTION_TYPE_PROFILES || t == storagev1.SectionType_SECTION_TYPE_SERIES
}
