package jfr

import "strconv"

// Bounds of the metadata, far above what any JVM writes: about 300 classes, 3,000 fields and as many strings.
const (
	maxStrings = 1 << 16
	maxClasses = 1 << 13
	maxFields  = 1 << 16
	// maxDepth bounds how deep elements of the metadata are nested, five as written, and values in values.
	maxDepth = 8
)

// shape is how the values of a class are written.
type shape uint8

const (
	shapeFields shape = iota
	shapeVarint
	shapeByte
	shapeFloat
	shapeDouble
	shapeString
)

// class is a class of events or of values.
type class struct {
	id     uint64
	name   string
	shape  shape
	fields []field
}

// field is a field of a class.
type field struct {
	typ      uint64
	class    *class
	slot     slot
	constant bool // a number in the pool of its class
	array    bool
}

// classes are those of a chunk, by number and by name.
type classes struct {
	byID   map[uint64]*class
	byName map[string]*class
	fields int
}

func shapeOf(name string) shape {
	switch name {
	case "boolean", "byte":
		return shapeByte
	case "char", "short", "int", "long":
		return shapeVarint
	case "float":
		return shapeFloat
	case "double":
		return shapeDouble
	case "java.lang.String":
		return shapeString
	}
	return shapeFields
}

// readMetadata reads the event in which a chunk describes its classes.
func readMetadata(c *cursor) *classes {
	c.varint() // size
	if typ := c.varint(); typ != 0 {
		c.fail("there is an event of class %d where the metadata should be", typ)
	}
	c.varint() // time
	c.varint() // duration
	c.varint() // number of the metadata
	n := c.count()
	if n > maxStrings {
		c.fail("the metadata has %d strings, more than %d", n, maxStrings)
	}
	var names []string
	for range n {
		if c.err != nil {
			return nil
		}
		names = append(names, string(c.string()))
	}
	cs := &classes{byID: map[uint64]*class{}, byName: map[string]*class{}}
	cs.readElement(c, names, nil, 0)
	for _, cl := range cs.byID {
		for i := range cl.fields {
			f := &cl.fields[i]
			f.class = cs.byID[f.typ]
		}
	}
	return cs
}

// readElement reads one element of the tree of metadata and all below it. Classes stand under metadata, fields under
// their class.
func (cs *classes) readElement(c *cursor, names []string, parent *class, depth int) {
	if depth > maxDepth {
		c.fail("elements of the metadata are nested more than %d deep", maxDepth)
		return
	}
	name := func() string {
		i := c.varint()
		if i >= uint64(len(names)) {
			c.fail("string %d of %d", i, len(names))
			return ""
		}
		return names[i]
	}
	element := name()
	attributes := [5]string{}
	for range c.count() {
		key, value := name(), name()
		for i, known := range [...]string{"id", "name", "class", "constantPool", "dimension"} {
			if key == known {
				attributes[i] = value
			}
		}
		if c.err != nil {
			return
		}
	}
	id, className := attributes[0], attributes[1]
	switch element {
	case "class":
		parent = cs.addClass(c, id, className)
	case "field":
		if parent != nil {
			cs.addField(c, parent, attributes)
		}
	}
	for range c.count() {
		if c.err != nil {
			return
		}
		cs.readElement(c, names, parent, depth+1)
	}
}

func (cs *classes) addClass(c *cursor, id, name string) *class {
	n, err := strconv.ParseUint(id, 10, 64)
	switch {
	case err != nil || name == "":
		c.fail("class %.80q has the number %.40q", name, id)
	case len(cs.byID) == maxClasses:
		c.fail("the metadata has more than %d classes", maxClasses)
	}
	cl := &class{id: n, name: name, shape: shapeOf(name)}
	cs.byID[n], cs.byName[name] = cl, cl
	return cl
}

func (cs *classes) addField(c *cursor, cl *class, attributes [5]string) {
	typ, err := strconv.ParseUint(attributes[2], 10, 64)
	cs.fields++
	switch {
	case err != nil:
		c.fail("field %.80q of class %.80q is of class %.40q", attributes[1], cl.name, attributes[2])
	case cs.fields > maxFields:
		c.fail("the metadata has more than %d fields", maxFields)
	}
	cl.fields = append(cl.fields, field{
		typ: typ, slot: slotOf(attributes[1]), constant: attributes[3] == "true", array: attributes[4] != "" && attributes[4] != "0",
	})
}
