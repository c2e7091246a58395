package profile

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// ErrType is returned when a text is not a profile type.
var ErrType = errors.New("invalid profile type")

// Type is a profile type as the API names it: the kind, and one of its sample types.
type Type struct {
	Name, SampleType, SampleUnit, PeriodType, PeriodUnit string
}

// ParseType reads name:sample_type:sample_unit:period_type:period_unit. A sixth part "delta", which old
// clients add, is accepted and forgotten. Name and sample type may not be empty. The errors wrap ErrType.
func ParseType(s string) (Type, error) {
	parts := strings.Split(s, ":")
	if len(parts) == 6 && parts[5] == "delta" {
		parts = parts[:5]
	}
	if len(parts) != 5 {
		return Type{}, fmt.Errorf("%w %q: want name:sample_type:sample_unit:period_type:period_unit", ErrType, s)
	}
	for i, what := range []string{"name", "sample type"} {
		if parts[i] == "" {
			return Type{}, fmt.Errorf("%w %q: the %s is empty", ErrType, s, what)
		}
	}
	return Type{parts[0], parts[1], parts[2], parts[3], parts[4]}, nil
}

// String returns the type in the form that ParseType reads.
func (t Type) String() string {
	return strings.Join([]string{t.Name, t.SampleType, t.SampleUnit, t.PeriodType, t.PeriodUnit}, ":")
}

// SampleType names a column of values.
type SampleType struct {
	Type, Unit string
}

// Kind is the shape of profiles that share rows: what __name__ says, what a period is, and the columns of
// values in order.
type Kind struct {
	Name                   string
	PeriodType, PeriodUnit string
	SampleTypes            []SampleType
}

// Kind returns the kind of p, given the __name__ that it was sent with.
func (p *Profile) Kind(name string) Kind {
	k := Kind{
		Name:        name,
		PeriodType:  string(p.String(p.PeriodType.Type)),
		PeriodUnit:  string(p.String(p.PeriodType.Unit)),
		SampleTypes: make([]SampleType, len(p.SampleTypes)),
	}
	for i, t := range p.SampleTypes {
		k.SampleTypes[i] = SampleType{string(p.String(t.Type)), string(p.String(t.Unit))}
	}
	return k
}

// Type returns the profile type of column i.
func (k Kind) Type(i int) Type {
	st := k.SampleTypes[i]
	return Type{k.Name, st.Type, st.Unit, k.PeriodType, k.PeriodUnit}
}

// Index returns the column of a profile type; false if t is not a type of this kind.
func (k Kind) Index(t Type) (i int, ok bool) {
	if k.Name != t.Name || k.PeriodType != t.PeriodType || k.PeriodUnit != t.PeriodUnit {
		return 0, false
	}
	i = slices.Index(k.SampleTypes, SampleType{t.SampleType, t.SampleUnit})
	return max(i, 0), i >= 0
}

// Equal tells whether two kinds have the same rows.
func (k Kind) Equal(o Kind) bool { return k.Compare(o) == 0 }

// Compare orders kinds: by name, period, then sample types.
func (k Kind) Compare(o Kind) int {
	return cmp.Or(
		strings.Compare(k.Name, o.Name),
		strings.Compare(k.PeriodType, o.PeriodType),
		strings.Compare(k.PeriodUnit, o.PeriodUnit),
		slices.CompareFunc(k.SampleTypes, o.SampleTypes, func(a, b SampleType) int {
			return cmp.Or(strings.Compare(a.Type, b.Type), strings.Compare(a.Unit, b.Unit))
		}),
	)
}

// Key returns a text that is the same for equal kinds only: a key of maps, not for people.
func (k Kind) Key() string {
	var b []byte
	add := func(s string) {
		b = strconv.AppendInt(b, int64(len(s)), 10)
		b = append(b, ':')
		b = append(b, s...)
	}
	add(k.Name)
	add(k.PeriodType)
	add(k.PeriodUnit)
	for _, t := range k.SampleTypes {
		add(t.Type)
		add(t.Unit)
	}
	return string(b)
}
