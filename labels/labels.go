package labels

import (
	"encoding/binary"
	"slices"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// Names with a meaning of their own.
const (
	// Name is the kind of the profiles: process_cpu, memory.
	Name = "__name__"
	// ServiceName is the program that was profiled. Every stored series has it.
	ServiceName = "service_name"
	// ProfileType is a profile type in its text form; it and the next five exist only in answers.
	ProfileType = "__profile_type__"
	// Type is the sample type of the profile type.
	Type = "__type__"
	// Unit is the sample unit of the profile type.
	Unit = "__unit__"
	// PeriodType is the period type of the profile type.
	PeriodType = "__period_type__"
	// PeriodUnit is the period unit of the profile type.
	PeriodUnit = "__period_unit__"
	// PrivateServiceName repeats ServiceName for old clients.
	PrivateServiceName = "__service_name__"
	// Delta says whether a cumulative profile still has to be turned into a delta; clients send "false".
	Delta = "__delta__"
	// SessionID is a number that a client drew when it started.
	SessionID = "__session_id__"
)

// Label is a name and its value.
type Label struct {
	Name, Value string
}

// Labels is a set of labels, sorted by name; the names are distinct. Make one with New or FromStrings.
type Labels []Label

// New returns the set of ls. The last of equal names wins. It keeps no reference to ls.
func New(ls ...Label) Labels {
	set := slices.Clone(ls)
	slices.SortStableFunc(set, func(a, b Label) int { return strings.Compare(a.Name, b.Name) })
	n := 0
	for i, l := range set {
		if i+1 < len(set) && set[i+1].Name == l.Name {
			continue
		}
		set[n] = l
		n++
	}
	return set[:n]
}

// FromStrings returns the set of alternating names and values. It panics if a value is missing: the
// arguments are meant to be written down in the program.
func FromStrings(nameValue ...string) Labels {
	if len(nameValue)%2 != 0 {
		panic("labels: name without a value: " + nameValue[len(nameValue)-1])
	}
	ls := make([]Label, 0, len(nameValue)/2)
	for i := 0; i < len(nameValue); i += 2 {
		ls = append(ls, Label{nameValue[i], nameValue[i+1]})
	}
	return New(ls...)
}

// find returns where name is or belongs.
func (ls Labels) find(name string) (int, bool) {
	return slices.BinarySearchFunc(ls, name, func(l Label, name string) int { return strings.Compare(l.Name, name) })
}

// Get returns the value of name, "" if there is none.
func (ls Labels) Get(name string) string {
	if i, ok := ls.find(name); ok {
		return ls[i].Value
	}
	return ""
}

// Has tells whether name is in the set, with whatever value.
func (ls Labels) Has(name string) bool {
	_, ok := ls.find(name)
	return ok
}

// With returns the set with name set to value.
func (ls Labels) With(name, value string) Labels {
	i, ok := ls.find(name)
	if ok {
		set := slices.Clone(ls)
		set[i].Value = value
		return set
	}
	set := make(Labels, 0, len(ls)+1)
	set = append(set, ls[:i]...)
	set = append(set, Label{name, value})
	return append(set, ls[i:]...)
}

// Without returns the set without names.
func (ls Labels) Without(names ...string) Labels {
	return ls.filter(func(name string) bool { return !slices.Contains(names, name) })
}

// Project returns the part of the set that names name.
func (ls Labels) Project(names []string) Labels {
	return ls.filter(func(name string) bool { return slices.Contains(names, name) })
}

func (ls Labels) filter(keep func(name string) bool) Labels {
	set := make(Labels, 0, len(ls))
	for _, l := range ls {
		if keep(l.Name) {
			set = append(set, l)
		}
	}
	return set
}

// Hash returns a 64-bit hash of the set, the same in every process and version: it decides placement and
// may be stored. Equal hashes do not prove equal sets.
func (ls Labels) Hash() uint64 {
	// 1 KiB holds all but extraordinary sets without going to the heap.
	var stack [1024]byte
	b := stack[:0]
	for _, l := range ls {
		// Lengths first, so that no two sets have the same bytes.
		b = binary.AppendUvarint(b, uint64(len(l.Name)))
		b = append(b, l.Name...)
		b = binary.AppendUvarint(b, uint64(len(l.Value)))
		b = append(b, l.Value...)
	}
	return xxhash.Sum64(b)
}

// String returns the set as a selector that matches it: {a="b", c="d"}.
func (ls Labels) String() string {
	b := []byte{'{'}
	for i, l := range ls {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = appendName(b, l.Name)
		b = append(b, '=')
		b = strconv.AppendQuote(b, l.Value)
	}
	return string(append(b, '}'))
}

// appendName quotes a name that PromQL could not read bare.
func appendName(b []byte, name string) []byte {
	for i, c := range name {
		letter := c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return strconv.AppendQuote(b, name)
		}
	}
	if name == "" {
		return append(b, `""`...)
	}
	return append(b, name...)
}

// Compare orders sets: by the first label that differs, name before value; a prefix comes first.
func Compare(a, b Labels) int {
	return slices.CompareFunc(a, b, func(a, b Label) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return strings.Compare(a.Value, b.Value)
	})
}
