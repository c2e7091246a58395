// Package otlptest makes requests of OpenTelemetry's protocol for tests, with the modules that its collector is made of.
package otlptest

import (
	"strings"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pprofile"
	"go.opentelemetry.io/collector/pdata/pprofile/pprofileotlp"
)

// Request is a request that is being made. What its methods return may be changed.
type Request struct {
	pprofile.Profiles
	pprofile.ProfilesDictionary
	strings, stacks, locations map[string]int32
}

// New returns a request without profiles. The tables have the entry of index 0 that stands for nothing.
func New() *Request {
	all := pprofile.NewProfiles()
	r := &Request{all, all.Dictionary(), map[string]int32{}, map[string]int32{}, map[string]int32{}}
	r.StringTable().Append("")
	r.MappingTable().AppendEmpty()
	r.LocationTable().AppendEmpty()
	r.FunctionTable().AppendEmpty()
	r.LinkTable().AppendEmpty()
	r.AttributeTable().AppendEmpty()
	r.StackTable().AppendEmpty()
	return r
}

// String returns the index of a string.
func (r *Request) String(s string) int32 {
	if s == "" {
		return 0
	}
	i, ok := r.strings[s]
	if !ok {
		i = int32(r.StringTable().Len())
		r.StringTable().Append(s)
		r.strings[s] = i
	}
	return i
}

// Stack returns the index of a stack: function names, root first, joined by semicolons.
func (r *Request) Stack(text string) int32 {
	if i, ok := r.stacks[text]; ok {
		return i
	}
	i := int32(r.StackTable().Len())
	r.stacks[text] = i
	stack := r.StackTable().AppendEmpty()
	names := strings.Split(text, ";")
	for j := range names {
		stack.LocationIndices().Append(r.Location(names[len(names)-1-j]))
	}
	return i
}

// Location returns the index of a location in the function of that name.
func (r *Request) Location(name string) int32 {
	i, ok := r.locations[name]
	if !ok {
		f := r.FunctionTable().AppendEmpty()
		f.SetNameStrindex(r.String(name))
		i = int32(r.LocationTable().Len())
		line := r.LocationTable().AppendEmpty().Lines().AppendEmpty()
		line.SetFunctionIndex(int32(r.FunctionTable().Len() - 1))
		line.SetLine(1)
		r.locations[name] = i
	}
	return i
}

// Attribute returns the index of a new attribute.
func (r *Request) Attribute(key string, value any) int32 {
	a := r.AttributeTable().AppendEmpty()
	a.SetKeyStrindex(r.String(key))
	if err := a.Value().FromRaw(value); err != nil {
		panic(err)
	}
	return int32(r.AttributeTable().Len() - 1)
}

// Link returns the index of a new link.
func (r *Request) Link(trace [16]byte, span [8]byte) int32 {
	l := r.LinkTable().AppendEmpty()
	l.SetTraceID(trace)
	l.SetSpanID(span)
	return int32(r.LinkTable().Len() - 1)
}

// Resource adds a resource; names and values of its attributes alternate.
func (r *Request) Resource(attributes ...any) pprofile.ScopeProfiles {
	resource := r.ResourceProfiles().AppendEmpty()
	Put(resource.Resource().Attributes(), attributes...)
	return resource.ScopeProfiles().AppendEmpty()
}

// Put adds attributes; names and values alternate.
func Put(to pcommon.Map, attributes ...any) {
	for i := 0; i < len(attributes); i += 2 {
		if err := to.PutEmpty(attributes[i].(string)).FromRaw(attributes[i+1]); err != nil {
			panic(err)
		}
	}
}

// Profile adds a profile. Types are type:unit.
func (r *Request) Profile(to pprofile.ScopeProfiles, at time.Time, sampleType, periodType string, period int64) pprofile.Profile {
	p := to.Profiles().AppendEmpty()
	if !at.IsZero() {
		p.SetTime(pcommon.NewTimestampFromTime(at))
	}
	r.set(p.SampleType(), sampleType)
	r.set(p.PeriodType(), periodType)
	p.SetPeriod(period)
	return p
}

func (r *Request) set(to pprofile.ValueType, text string) {
	name, unit, _ := strings.Cut(text, ":")
	to.SetTypeStrindex(r.String(name))
	to.SetUnitStrindex(r.String(unit))
}

// Sample adds a sample with values.
func (r *Request) Sample(p pprofile.Profile, stack string, values ...int64) pprofile.Sample {
	s := p.Samples().AppendEmpty()
	s.SetStackIndex(r.Stack(stack))
	s.Values().FromRaw(values)
	return s
}

// Export returns the request.
func (r *Request) Export() pprofileotlp.ExportRequest {
	return pprofileotlp.NewExportRequestFromProfiles(r.Profiles)
}

// Proto returns the request as protobuf. Attributes of resources become references: call it once everything is in.
func (r *Request) Proto() []byte {
	b, err := r.Export().MarshalProto()
	if err != nil {
		panic(err)
	}
	return b
}

// JSON returns the request as JSON.
func (r *Request) JSON() []byte {
	b, err := r.Export().MarshalJSON()
	if err != nil {
		panic(err)
	}
	return b
}
