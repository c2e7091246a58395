package otlp

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"
	"unsafe"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pprofile"
	"go.opentelemetry.io/collector/pdata/pprofile/pprofileotlp"

	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/pprof"
	"github.com/kilndb/kiln/tenant"
)

// This file is all that knows the types of the schema.

// versionHeader says which version of the schema a request is written in.
const versionHeader = pprofileotlp.DevelopmentVersionHeader

// checkVersion refuses requests in a version that we do not read. Without the header it is 1.
func checkVersion(values []string) error { return pprofileotlp.ValidateDevelopmentVersion(values) }

// encodeReply returns the answer to a request of which so many profiles were refused.
func encodeReply(rejected int, message string, asJSON bool) ([]byte, error) {
	if rejected == 0 { // without partial_success, which an encoder would write even if it is empty
		if asJSON {
			return []byte("{}"), nil
		}
		return nil, nil
	}
	reply := pprofileotlp.NewExportResponse()
	reply.PartialSuccess().SetRejectedProfiles(int64(rejected))
	reply.PartialSuccess().SetErrorMessage(message)
	if asJSON {
		return reply.MarshalJSON()
	}
	return reply.MarshalProto()
}

// otlpProfile is a profile of a request.
type otlpProfile = pprofile.Profile

// export is a decoded request. It may be read by many at once.
type export struct {
	resources                              pprofile.ResourceProfilesSlice
	strings                                pcommon.StringSlice
	mappings                               pprofile.MappingSlice
	locations                              pprofile.LocationSlice
	functions                              pprofile.FunctionSlice
	links                                  pprofile.LinkSlice
	stacks                                 pprofile.StackSlice
	attributes                             []attribute
	nStrings, nMappings, nLocations        int
	nFunctions, nLinks, nStacks, nServices int
}

// attribute is an attribute that samples and mappings refer to. If it has a value that is not a text, text is empty.
type attribute struct {
	key  string
	text string
	// err says that its key is outside of the string table.
	err error
}

// decodeExport reads a request that the guard has let pass.
func decodeExport(body []byte, isJSON bool) (*export, error) {
	request := pprofileotlp.NewExportRequest()
	unmarshal := request.UnmarshalProto
	if isJSON {
		unmarshal = request.UnmarshalJSON
	}
	if err := unmarshal(body); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	d := request.Profiles().Dictionary()
	e := &export{
		resources: request.Profiles().ResourceProfiles(),
		strings:   d.StringTable(), mappings: d.MappingTable(), locations: d.LocationTable(),
		functions: d.FunctionTable(), links: d.LinkTable(), stacks: d.StackTable(),
		nStrings: d.StringTable().Len(), nMappings: d.MappingTable().Len(), nLocations: d.LocationTable().Len(),
		nFunctions: d.FunctionTable().Len(), nLinks: d.LinkTable().Len(), nStacks: d.StackTable().Len(),
	}
	e.attributes = make([]attribute, d.AttributeTable().Len())
	for i := range e.attributes {
		kv := d.AttributeTable().At(i)
		a := &e.attributes[i]
		if a.key, a.err = e.string(kv.KeyStrindex()); a.err != nil {
			continue
		}
		if v := kv.Value(); v.Type() == pcommon.ValueTypeStr || v.Type() == pcommon.ValueTypeBool {
			a.text = textOf(v)
		}
		if a.key == serviceAttribute {
			e.nServices++
		}
	}
	return e, e.checkText()
}

// maxTypeName bounds the names in a profile type: they are compared and hashed for every profile.
const maxTypeName = 1024

// inTable checks an index. The first entry of every table stands for nothing, even in one without entries.
func inTable(what string, i int32, n int) error {
	if i < 0 || int(i) >= max(n, 1) {
		return malformed("%s %d is outside of a table of %d", what, i, n)
	}
	return nil
}

// string returns a string of the string table.
func (e *export) string(i int32) (string, error) {
	if err := inTable("string", i, e.nStrings); err != nil || e.nStrings == 0 {
		return "", err
	}
	return e.strings.At(int(i)), nil
}

// checkText refuses strings and attributes that are not UTF-8: once, for many may refer to one.
func (e *export) checkText() error {
	for i, s := range e.strings.All() {
		if !utf8.ValidString(s) {
			return fmt.Errorf("%w: string %d is not UTF-8: %.40q", ErrMalformed, i, s)
		}
	}
	for i := range e.attributes {
		if text := e.attributes[i].text; !utf8.ValidString(text) {
			return fmt.Errorf("%w: attribute %d is not UTF-8: %.40q", ErrMalformed, i, text)
		}
	}
	return nil
}

// valueType returns a sample type or a period type.
func (e *export) valueType(v pprofile.ValueType) (t profile.SampleType, err error) {
	if t.Type, err = e.string(v.TypeStrindex()); err == nil {
		t.Unit, err = e.string(v.UnitStrindex())
	}
	if n := max(len(t.Type), len(t.Unit)); n > maxTypeName {
		err = malformed("a name of %d bytes is more than the limit of %d", n, maxTypeName)
	}
	return t, err
}

// textOf returns a value as the value of a label; empty if it cannot be one.
func textOf(v pcommon.Value) string {
	switch v.Type() {
	case pcommon.ValueTypeStr:
		return v.Str()
	case pcommon.ValueTypeBool:
		return strconv.FormatBool(v.Bool())
	case pcommon.ValueTypeInt:
		return strconv.FormatInt(v.Int(), 10)
	case pcommon.ValueTypeSlice:
		if s := v.Slice(); s.Len() == 1 && s.At(0).Type() != pcommon.ValueTypeSlice {
			return textOf(s.At(0))
		}
	}
	return ""
}

// each calls do for every profile of the request with the attributes of its resource and scope, the resource's first,
// as far as they have a text, or with what check says against those.
func (e *export) each(check func(labels.Labels) error, do func(o origin, attributes labels.Labels, err error, p otlpProfile)) {
	for r, resource := range e.resources.All() {
		ofResource := appendAttributes(nil, resource.Resource().Attributes())
		err := check(ofResource)
		for s, scope := range resource.ScopeProfiles().All() {
			all, err := ofResource, err
			if err == nil && scope.Scope().Attributes().Len() > 0 {
				all = appendAttributes(slices.Clip(ofResource), scope.Scope().Attributes())
				err = check(all)
			}
			for i, p := range scope.Profiles().All() {
				do(origin{r, s, i}, all, err, p)
			}
		}
	}
}

func appendAttributes(dst labels.Labels, attributes pcommon.Map) labels.Labels {
	for name, v := range attributes.All() {
		if text := textOf(v); text != "" {
			dst = append(dst, labels.Label{Name: name, Value: text})
		}
	}
	return dst
}

// read returns what a profile says of itself, its samples apart.
func (e *export) read(p otlpProfile) (h header, err error) {
	if h.sample, err = e.valueType(p.SampleType()); err != nil {
		return h, fmt.Errorf("sample_type: %w", err)
	}
	if h.period, err = e.valueType(p.PeriodType()); err != nil {
		return h, fmt.Errorf("period_type: %w", err)
	}
	if p.Time() > math.MaxInt64 || p.DurationNano() > math.MaxInt64 {
		return h, malformed("time_unix_nano %d or duration_nano %d exceeds 63 bits", p.Time(), p.DurationNano())
	}
	h.id, h.time, h.duration, h.every = profile.ID(p.ProfileID()), int64(p.Time()), int64(p.DurationNano()), p.Period()
	return h, nil
}

// part is the samples of one service.
type part struct {
	service string
	// samples by number; nil if they are all of the profile's.
	samples []int32
}

// parts divides the samples of a profile by service, in order of arrival. Those that name none are of the given one.
func (e *export) parts(p otlpProfile, service string) ([]part, error) {
	if e.nServices == 0 {
		return []part{{service: service}}, nil
	}
	var parts []part
	place := map[string]int{}
	for i, s := range p.Samples().All() {
		of := service
		for _, a := range s.AttributeIndices().All() {
			if err := inTable("attribute", a, len(e.attributes)); err != nil {
				return nil, fmt.Errorf("sample %d: %w", i, err)
			}
			if len(e.attributes) > 0 && e.attributes[a].key == serviceAttribute && e.attributes[a].text != "" {
				of = e.attributes[a].text
			}
		}
		at, ok := place[of]
		if !ok {
			at = len(parts)
			place[of] = at
			parts = append(parts, part{service: of})
		}
		parts[at].samples = append(parts[at].samples, int32(i))
	}
	if len(parts) == 0 { // without samples, and refused or ignored as such where profiles are checked
		parts = append(parts, part{service: service})
	}
	return parts, nil
}

// filler fills profiles from requests. It keeps its memory from one to the next; not safe for concurrent use.
type filler struct {
	e   *export
	p   *profile.Profile
	lim tenant.Limits

	// Numbers in p of the entries of the request's tables. A stack is numbered by the sample that had it first, an
	// attribute by its place in texts.
	strings, mappings, functions, locations, stacks, attributes numbering
	texts                                                       []profile.SampleLabel
}

// begin makes p and the numbers of the last profile empty.
func (f *filler) begin(e *export, p *profile.Profile, lim tenant.Limits) {
	f.e, f.p, f.lim = e, p, lim
	f.strings.begin(e.nStrings)
	f.mappings.begin(e.nMappings)
	f.functions.begin(e.nFunctions)
	f.locations.begin(e.nLocations)
	f.stacks.begin(e.nStacks)
	f.attributes.begin(len(e.attributes))
	f.texts = f.texts[:0]
}

// end lets go of the request.
func (f *filler) end() { f.e, f.p = nil, nil }

// bytes returns the memory that the filler holds on to.
func (f *filler) bytes() int {
	n := cap(f.texts) * int(unsafe.Sizeof(profile.SampleLabel{}))
	for _, of := range []*numbering{&f.strings, &f.mappings, &f.functions, &f.locations, &f.stacks, &f.attributes} {
		n += cap(of.marks) * int(unsafe.Sizeof(mark{}))
	}
	return n
}

// fill fills p, which was Reset, with a part of a profile.
func (f *filler) fill(e *export, from otlpProfile, h header, k kind, of part, lim tenant.Limits, p *profile.Profile) error {
	f.begin(e, p, lim)
	defer f.end()
	p.SampleTypes = append(p.SampleTypes, profile.ValueType{})
	for _, s := range []struct {
		number *uint32
		text   string
	}{
		{&p.SampleTypes[0].Type, k.sample.Type}, {&p.SampleTypes[0].Unit, k.sample.Unit},
		{&p.PeriodType.Type, k.period.Type}, {&p.PeriodType.Unit, k.period.Unit},
	} {
		var err error
		if *s.number, err = f.text(s.text); err != nil {
			return err
		}
	}
	if err := f.samples(from, of, k.factor); err != nil {
		return err
	}
	p.Period, p.DurationNanos, p.TimeNanos = h.every, h.duration, h.time
	if p.TimeNanos == 0 && len(p.Times) > 0 {
		p.TimeNanos = slices.Min(p.Times)
	}
	return nil
}

// samples fills in the samples of a part. Each value is multiplied by factor.
func (f *filler) samples(p otlpProfile, of part, factor int64) error {
	all := p.Samples()
	count := all.Len()
	if of.samples != nil {
		count = len(of.samples)
	}
	if count > f.lim.MaxSamples {
		return &pprof.LimitError{What: "samples", Limit: f.lim.MaxSamples}
	}
	if f.e.nLinks > 1 {
		f.p.Spans = slices.Grow(f.p.Spans, count)
		f.p.Traces = slices.Grow(f.p.Traces, count)
	}
	for i := range count {
		number := i
		if of.samples != nil {
			number = int(of.samples[i])
		}
		if err := f.sample(all.At(number), factor); err != nil {
			return fmt.Errorf("sample %d: %w", number, err)
		}
	}
	f.dropEmpty()
	return nil
}

// dropEmpty leaves no column that says nothing.
func (f *filler) dropEmpty() {
	p := f.p
	if len(p.Times) == 0 {
		p.TimeEnds = p.TimeEnds[:0]
	}
	if !slices.ContainsFunc(p.Spans, func(id profile.SpanID) bool { return id != profile.SpanID{} }) {
		p.Spans = p.Spans[:0]
	}
	if !slices.ContainsFunc(p.Traces, func(id profile.TraceID) bool { return id != profile.TraceID{} }) {
		p.Traces = p.Traces[:0]
	}
}

func (f *filler) sample(s pprofile.Sample, factor int64) error {
	p, times := f.p, s.TimestampsUnixNano()
	value, err := weigh(s.Values(), times.Len(), factor)
	if err != nil {
		return err
	}
	if err := f.stack(s.StackIndex()); err != nil {
		return err
	}
	for i := range times.Len() {
		t := times.At(i)
		if t > math.MaxInt64 {
			return malformed("timestamp %d exceeds 63 bits", t)
		}
		p.Times = append(p.Times, int64(t))
	}
	if err := f.labels(s.AttributeIndices()); err != nil {
		return err
	}
	if err := f.link(s.LinkIndex()); err != nil {
		return err
	}
	p.Values = append(p.Values, value)
	p.StackEnds = append(p.StackEnds, uint32(len(p.Stacks)))
	p.LabelEnds = append(p.LabelEnds, uint32(len(p.SampleLabels)))
	p.TimeEnds = append(p.TimeEnds, uint32(len(p.Times)))
	return nil
}

// weigh returns the value of a sample.
func weigh(values pcommon.Int64Slice, moments int, factor int64) (int64, error) {
	n := values.Len()
	if n == 0 {
		return multiply(int64(moments), factor)
	}
	sum := values.At(0)
	for i := 1; i < n; i++ {
		v := values.At(i)
		if v > 0 && sum > math.MaxInt64-v || v < 0 && sum < math.MinInt64-v {
			return 0, malformed("the sum of its %d values overflows", n)
		}
		sum += v
	}
	return multiply(sum, factor)
}

// stack appends the locations of a stack.
func (f *filler) stack(i int32) error {
	if err := inTable("stack", i, f.e.nStacks); err != nil || f.e.nStacks == 0 {
		return err
	}
	p := f.p
	if first, ok := f.stacks.get(i); ok {
		known := p.Stack(int(first))
		if err := f.room(len(known)); err != nil {
			return err
		}
		p.Stacks = append(p.Stacks, known...)
		return nil
	}
	locations := f.e.stacks.At(int(i)).LocationIndices()
	if err := f.room(locations.Len()); err != nil {
		return err
	}
	for j := range locations.Len() {
		number, ok, err := f.location(locations.At(j))
		if err != nil {
			return fmt.Errorf("stack %d: %w", i, err)
		}
		if ok {
			p.Stacks = append(p.Stacks, number)
		}
	}
	f.stacks.set(i, uint32(len(p.StackEnds)))
	return nil
}

// room refuses a stack with which the profile would be too large: short messages can name long stacks often.
func (f *filler) room(locations int) error {
	if f.p.Size()+2*locations > f.lim.MaxProfileBytes { // two bytes: what Size says of a location
		return &pprof.LimitError{What: "bytes", Limit: f.lim.MaxProfileBytes}
	}
	return nil
}

// location returns the number of a location; false if it stands for nothing.
func (f *filler) location(i int32) (uint32, bool, error) {
	if number, ok := f.locations.get(i); ok {
		return number, true, nil
	}
	if err := inTable("location", i, f.e.nLocations); err != nil || f.e.nLocations == 0 {
		return 0, false, err
	}
	from, p := f.e.locations.At(int(i)), f.p
	lines := from.Lines()
	if i == 0 && lines.Len() == 0 && from.Address() == 0 {
		return 0, false, nil
	}
	l := profile.Location{Address: from.Address(), FirstLine: uint32(len(p.Lines))}
	var err error
	if l.Mapping, err = f.mapping(from.MappingIndex()); err != nil {
		return 0, false, fmt.Errorf("location %d: %w", i, err)
	}
	for j := range lines.Len() {
		line := lines.At(j)
		function, err := f.function(line.FunctionIndex())
		if err != nil {
			return 0, false, fmt.Errorf("location %d: %w", i, err)
		}
		if function != 0 { // a line of nowhere says nothing
			p.Lines = append(p.Lines, profile.Line{Function: function, Line: line.Line(), Column: line.Column()})
		}
	}
	l.Lines = uint32(len(p.Lines)) - l.FirstLine
	if l.Lines > 0 && l.Mapping != 0 {
		p.Mappings[l.Mapping].HasFunctions = true
	}
	number := uint32(len(p.Locations))
	p.Locations = append(p.Locations, l)
	f.locations.set(i, number)
	return number, true, nil
}

// function returns the number of a function. One that has no name but a system name is called by that.
func (f *filler) function(i int32) (uint32, error) {
	if number, ok := f.functions.get(i); ok {
		return number, nil
	}
	if err := inTable("function", i, f.e.nFunctions); err != nil || f.e.nFunctions == 0 {
		return 0, err
	}
	from := f.e.functions.At(int(i))
	to := profile.Function{StartLine: from.StartLine()}
	for _, s := range []struct {
		number *uint32
		index  int32
	}{{&to.Name, from.NameStrindex()}, {&to.SystemName, from.SystemNameStrindex()}, {&to.File, from.FilenameStrindex()}} {
		var err error
		if *s.number, err = f.string(s.index); err != nil {
			return 0, fmt.Errorf("function %d: %w", i, err)
		}
	}
	if to.Name == 0 {
		to.Name = to.SystemName
	}
	number := uint32(0)
	if i != 0 || to != (profile.Function{}) {
		number = uint32(len(f.p.Functions))
		f.p.Functions = append(f.p.Functions, to)
	}
	f.functions.set(i, number)
	return number, nil
}

// mapping returns the number of a mapping.
func (f *filler) mapping(i int32) (uint32, error) {
	if number, ok := f.mappings.get(i); ok {
		return number, nil
	}
	if err := inTable("mapping", i, f.e.nMappings); err != nil || f.e.nMappings == 0 {
		return 0, err
	}
	from := f.e.mappings.At(int(i))
	to := profile.Mapping{Start: from.MemoryStart(), Limit: from.MemoryLimit(), Offset: from.FileOffset()}
	var err error
	if to.File, err = f.string(from.FilenameStrindex()); err != nil {
		return 0, fmt.Errorf("mapping %d: %w", i, err)
	}
	for _, a := range from.AttributeIndices().All() {
		known, err := f.attribute(a)
		if err != nil {
			return 0, fmt.Errorf("mapping %d: %w", i, err)
		}
		if known.key == buildIDAttribute && to.BuildID == 0 {
			if to.BuildID, err = f.text(known.text); err != nil {
				return 0, err
			}
		}
	}
	number := uint32(0)
	if i != 0 || to != (profile.Mapping{}) {
		number = uint32(len(f.p.Mappings))
		f.p.Mappings = append(f.p.Mappings, to)
	}
	f.mappings.set(i, number)
	return number, nil
}

// attribute returns an attribute of the request; one without a key stands for nothing.
func (f *filler) attribute(i int32) (attribute, error) {
	if err := inTable("attribute", i, len(f.e.attributes)); err != nil || len(f.e.attributes) == 0 {
		return attribute{}, err
	}
	a := f.e.attributes[i]
	return a, a.err
}

// labels appends the attributes of a sample that have a text, but for its service.
func (f *filler) labels(indices pcommon.Int32Slice) error {
	if n := indices.Len(); n > f.lim.MaxSampleLabels {
		return &pprof.LimitError{What: "labels of a sample", Limit: f.lim.MaxSampleLabels}
	}
	for j := range indices.Len() {
		i := indices.At(j)
		place, ok := f.attributes.get(i)
		if !ok {
			a, err := f.attribute(i)
			if err != nil {
				return err
			}
			var l profile.SampleLabel // without a text: nothing
			if a.text != "" && a.key != "" && a.key != serviceAttribute {
				if l.Key, err = f.text(a.key); err != nil {
					return err
				}
				if l.Str, err = f.text(a.text); err != nil {
					return err
				}
			}
			if len(f.e.attributes) == 0 {
				continue
			}
			place = uint32(len(f.texts))
			f.texts = append(f.texts, l)
			f.attributes.set(i, place)
		}
		if l := f.texts[place]; l.Str != 0 {
			f.p.SampleLabels = append(f.p.SampleLabels, l)
		}
	}
	return nil
}

// link appends the span and the trace of a sample.
func (f *filler) link(i int32) error {
	if err := inTable("link", i, f.e.nLinks); err != nil || f.e.nLinks <= 1 {
		return err // a table of one has only the link that stands for none
	}
	l := f.e.links.At(int(i))
	f.p.Spans = append(f.p.Spans, profile.SpanID(l.SpanID()))
	f.p.Traces = append(f.p.Traces, profile.TraceID(l.TraceID()))
	return nil
}

// string returns the number of a string of the string table.
func (f *filler) string(i int32) (uint32, error) {
	if number, ok := f.strings.get(i); ok {
		return number, nil
	}
	s, err := f.e.string(i)
	if err != nil {
		return 0, err
	}
	number, err := f.text(s)
	if err == nil && f.e.nStrings > 0 {
		f.strings.set(i, number)
	}
	return number, err
}

// text adds a string.
func (f *filler) text(s string) (uint32, error) {
	p := f.p
	if s == "" {
		return 0, nil
	}
	if len(p.Data)+len(s) > f.lim.MaxProfileBytes {
		return 0, &pprof.LimitError{What: "bytes", Limit: f.lim.MaxProfileBytes}
	}
	p.Strings = append(p.Strings, profile.Span{Off: uint32(len(p.Data)), Len: uint32(len(s))})
	p.Data = append(p.Data, s...)
	return uint32(len(p.Strings) - 1), nil
}
