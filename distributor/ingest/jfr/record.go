package jfr

// slot is a place for a field that somebody here looks at.
type slot uint8

const (
	slotNone slot = iota
	slotStackTrace
	slotState
	slotContextID
	slotSpanID
	slotSpanName
	slotTraceIDHi
	slotTraceIDLo
	slotTlabSize
	slotAllocationSize
	slotWeight
	slotDuration
	slotSize
	slotSamples
	slotType
	slotFrames
	slotMethod
	slotLineNumber
	slotName // from here on those that may be strings
	slotValue
	slotString
	slots
)

var slotNames = [slots]string{
	slotStackTrace: "stackTrace", slotState: "state", slotContextID: "contextId", slotSpanID: "spanId", slotSpanName: "spanName",
	slotTraceIDHi: "traceIdHi", slotTraceIDLo: "traceIdLo", slotTlabSize: "tlabSize", slotAllocationSize: "allocationSize",
	slotWeight: "weight", slotDuration: "duration", slotSize: "size", slotSamples: "samples", slotType: "type", slotName: "name",
	slotValue: "value", slotString: "string", slotFrames: "frames", slotMethod: "method", slotLineNumber: "lineNumber",
}

func slotOf(field string) slot {
	for s := slotStackTrace; s < slots; s++ {
		if slotNames[s] == field {
			return s
		}
	}
	return slotNone
}

// record is what was read of one event or constant: numbers, and numbers of constants, in num; strings in text; where
// the frames of a stack begin, and their class.
type record struct {
	num    [slots]uint64
	text   [slots - slotName][]byte
	frames int
	frame  *class
}

// string returns what was read into a slot of strings. It must not be changed.
func (r *record) string(s slot) []byte { return r.text[s-slotName] }

// read reads the fields of a class into r.
func (r *record) read(c *cursor, cl *class) {
	*r = record{}
	for i := range cl.fields {
		f := &cl.fields[i]
		switch {
		case f.slot == slotNone || f.array && f.slot != slotFrames:
			f.skip(c, 0)
		case f.constant && !f.array:
			r.num[f.slot] = c.varint()
		case f.array && !f.constant && f.class != nil && f.class.shape == shapeFields:
			r.frames, r.frame = c.i, f.class
			f.skip(c, 0)
		case !f.array && f.class != nil && f.class.shape == shapeVarint:
			r.num[f.slot] = c.varint()
		case !f.array && f.class != nil && f.class.shape == shapeString && f.slot >= slotName:
			r.text[f.slot-slotName] = c.string()
		default:
			f.skip(c, 0)
		}
	}
}

// skip passes over the value of a field.
func (f *field) skip(c *cursor, depth int) {
	n := 1
	if f.array {
		n = c.count()
	}
	if !f.constant && f.class == nil {
		c.fail("a field is of class %d, which the metadata does not describe", f.typ)
	}
	for ; n > 0 && c.err == nil; n-- {
		if f.constant {
			c.varint()
		} else {
			f.class.skip(c, depth+1)
		}
	}
}

// skip passes over a value of the class.
func (cl *class) skip(c *cursor, depth int) {
	switch cl.shape {
	case shapeVarint:
		c.varint()
	case shapeByte:
		c.bytes(1)
	case shapeFloat:
		c.bytes(4)
	case shapeDouble:
		c.bytes(8)
	case shapeString:
		c.skipString()
	default:
		// A value of no bytes could be repeated for ever, one that contains itself never ends.
		if len(cl.fields) == 0 || depth > maxDepth {
			c.fail("values of class %.80q have no fields or contain each other", cl.name)
			return
		}
		for i := range cl.fields {
			if c.err != nil {
				return
			}
			cl.fields[i].skip(c, depth)
		}
	}
}
