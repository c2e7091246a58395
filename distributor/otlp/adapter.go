package otlp

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pprofile"
	"go.opentelemetry.io/collector/pdata/pprofile/pprofileotlp"

	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
)

// This file and fill.go are all that knows the types of the schema.

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
