package profile_test

import (
	"errors"
	"testing"

	"github.com/kilndb/kiln/profile"
)

func TestParseType(t *testing.T) {
	cpu := profile.Type{Name: "process_cpu", SampleType: "cpu", SampleUnit: "nanoseconds", PeriodType: "cpu", PeriodUnit: "nanoseconds"}
	good := map[string]profile.Type{
		"process_cpu:cpu:nanoseconds:cpu:nanoseconds":       cpu,
		"process_cpu:cpu:nanoseconds:cpu:nanoseconds:delta": cpu,
		"off_cpu:off_cpu:nanoseconds::":                     {Name: "off_cpu", SampleType: "off_cpu", SampleUnit: "nanoseconds"},
	}
	for text, want := range good {
		got, err := profile.ParseType(text)
		if err != nil || got != want {
			t.Errorf("ParseType(%q) = %+v, %v", text, got, err)
		}
		if again, err := profile.ParseType(got.String()); err != nil || again != want {
			t.Errorf("ParseType(%q) = %+v, %v", got.String(), again, err)
		}
	}
	for _, text := range []string{"", "process_cpu", "a:b:c:d", "a:b:c:d:e:f", "a:b:c:d:e:delta:", ":cpu:nanoseconds:cpu:nanoseconds", "process_cpu::nanoseconds:cpu:nanoseconds", "a:b:c:d:e:f:g"} {
		if got, err := profile.ParseType(text); !errors.Is(err, profile.ErrType) {
			t.Errorf("ParseType(%q) = %+v, %v, want ErrType", text, got, err)
		}
	}
}

func TestKind(t *testing.T) {
	memory := profile.Kind{Name: "memory", PeriodType: "space", PeriodUnit: "bytes", SampleTypes: []profile.SampleType{
		{Type: "alloc_objects", Unit: "count"}, {Type: "alloc_space", Unit: "bytes"}}}
	for i := range memory.SampleTypes {
		if got, ok := memory.Index(memory.Type(i)); !ok || got != i {
			t.Errorf("Index(Type(%d)) = %d, %v", i, got, ok)
		}
	}
	space := memory.Type(1)
	for _, change := range []func(*profile.Type){
		func(t *profile.Type) { t.Name = "heap" },
		func(t *profile.Type) { t.SampleType = "inuse_space" },
		func(t *profile.Type) { t.SampleUnit = "count" },
		func(t *profile.Type) { t.PeriodType = "" },
		func(t *profile.Type) { t.PeriodUnit = "" },
	} {
		other := space
		change(&other)
		if _, ok := memory.Index(other); ok {
			t.Errorf("%v is a type of %+v", other, memory)
		}
	}
}

// The order is total, equality is that of the order, and keys are equal exactly when kinds are.
func TestKindOrder(t *testing.T) {
	st := func(s ...string) (all []profile.SampleType) {
		for i := 0; i < len(s); i += 2 {
			all = append(all, profile.SampleType{Type: s[i], Unit: s[i+1]})
		}
		return all
	}
	ascending := []profile.Kind{
		{},
		{SampleTypes: st("", "")},
		{Name: "a", PeriodUnit: "z", SampleTypes: st("x", "y")},
		{Name: "a", PeriodType: "p"},
		{Name: "a", PeriodType: "p", SampleTypes: st("x", "y")},
		{Name: "a", PeriodType: "p", SampleTypes: st("x", "y", "x", "y")},
		{Name: "a", PeriodType: "p", SampleTypes: st("x", "z")},
		{Name: "a1:", PeriodType: "p"},
		{Name: "b"},
	}
	for i, a := range ascending {
		for j, b := range ascending {
			want := 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			if got := a.Compare(b); got != want {
				t.Errorf("Compare(%+v, %+v) = %d, want %d", a, b, got, want)
			}
			if (a.Key() == b.Key()) != (i == j) || a.Equal(b) != (i == j) {
				t.Errorf("%+v and %+v: keys %q and %q, Equal %v", a, b, a.Key(), b.Key(), a.Equal(b))
			}
		}
	}
}

func TestID(t *testing.T) {
	id := profile.NewID()
	if id == profile.NewID() {
		t.Error("two new ids are equal")
	}
	got, err := profile.ParseID(id.String())
	if err != nil || got != id {
		t.Errorf("ParseID(%s) = %s, %v", id, got, err)
	}
	for _, s := range []string{"", "xyz", id.String()[1:], "g" + id.String()[1:]} {
		if _, err := profile.ParseID(s); err == nil {
			t.Errorf("ParseID(%q) has no error", s)
		}
	}
}
