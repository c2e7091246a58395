package profile_test

import (
	"fmt"
	"reflect"
	"testing"

	"github.com/kilndb/kiln/profile"
)

// wall is a profile of three columns in two series.
func wall(t *testing.T) *story {
	s := tell(2)
	s.SampleTypes = nil
	for _, name := range []string{"sample", "wall", "cpu"} {
		s.SampleTypes = append(s.SampleTypes, profile.ValueType{Type: s.str(name), Unit: s.str("count")})
	}
	for _, row := range [][]int64{{1, 10, 100}, {2, 20, 0}, {0, 0, 300}} {
		s.sample(0, []uint32{uint32(row[0] % 2)}, "pod", fmt.Sprint(row[0]))
		s.Values = append(s.Values[:len(s.Values)-1], row...)
	}
	s.normalise(t, wide)
	s.Wire = len(s.Data)
	return s
}

func TestKeepColumns(t *testing.T) {
	s := wall(t)
	s.KeepColumns([]int{1, 2}, []profile.SampleType{{Type: "wall", Unit: "nanoseconds"}, {Type: "cpu", Unit: "count"}})
	if k := s.Kind("x"); !reflect.DeepEqual(k.SampleTypes, []profile.SampleType{{Type: "wall", Unit: "nanoseconds"}, {Type: "cpu", Unit: "count"}}) {
		t.Errorf("sample types %v", k.SampleTypes)
	}
	if got := fmt.Sprint(s.Values, len(s.Series), s.Wire); got != "[10 100 20 0 0 300] 3 0" {
		t.Errorf("values, series and wire are %s", got)
	}
	s.KeepColumns([]int{1}, []profile.SampleType{{Type: "cpu", Unit: "count"}})
	if got := fmt.Sprint(s.Values, s.Order, s.Series); got != `[100 300] [0 1] [{{pod="1"} 0 1} {{pod="0"} 1 1}]` {
		t.Errorf("values, order and series are %s", got)
	}
}

func TestCloneSharesNothing(t *testing.T) {
	s := wall(t)
	s.Times, s.TimeEnds = []int64{1, 2, 3}, []uint32{1, 2, 3}
	s.Spans, s.Traces = make([]profile.SpanID, 3), make([]profile.TraceID, 3)
	s.Mappings, s.Functions, s.Lines = append(s.Mappings, profile.Mapping{}), append(s.Functions, profile.Function{}), append(s.Lines, profile.Line{})
	c := s.Clone()
	// Whatever is added to a profile must be copied, or be said here to be a value.
	from, to := reflect.ValueOf(&s.Profile).Elem(), reflect.ValueOf(c).Elem()
	for _, f := range reflect.VisibleFields(from.Type()) {
		if f.Name == "scratch" || f.Anonymous || f.Type.Kind() != reflect.Slice || len(f.Index) > 1 && f.Index[0] != 0 || !f.IsExported() {
			continue
		}
		a, b := from.FieldByIndex(f.Index), to.FieldByIndex(f.Index)
		if a.Len() == 0 || !reflect.DeepEqual(a.Interface(), b.Interface()) || a.UnsafePointer() == b.UnsafePointer() {
			t.Errorf("%s: %v became %v, in the same memory: %v", f.Name, a, b, a.UnsafePointer() == b.UnsafePointer())
		}
	}
}
