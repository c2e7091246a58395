package jfr

import (
	"cmp"
	"slices"
)

// maxConstants bounds the constants of a chunk that are looked at: 16 MiB of them. A JVM writes some ten thousand.
const maxConstants = 1 << 20

// pool says where in the chunk the constants of a class are.
type pool struct {
	class   *class
	entries []constant
}

// constant is one of a pool: its number, and where it begins.
type constant struct {
	id     uint64
	offset uint32
}

// constants are the pools of a chunk that stacks are made of.
type constants struct {
	chunk                                    []byte
	stacks, methods, classes, symbols, state pool
	count                                    int
}

func newConstants(chunk []byte, cs *classes) *constants {
	k := &constants{chunk: chunk}
	for name, p := range map[string]*pool{
		"jdk.types.StackTrace": &k.stacks, "jdk.types.Method": &k.methods, "java.lang.Class": &k.classes,
		"jdk.types.Symbol": &k.symbols, "jdk.types.ThreadState": &k.state,
	} {
		p.class = cs.byName[name]
	}
	return k
}

func (k *constants) poolOf(cl *class) *pool {
	for _, p := range []*pool{&k.stacks, &k.methods, &k.classes, &k.symbols, &k.state} {
		if p.class == cl {
			return p
		}
	}
	return nil
}

// readCheckpoint takes in the constants of a checkpoint, of which c has read the size and the class.
func (k *constants) readCheckpoint(c *cursor, cs *classes) {
	c.varint() // time
	c.varint() // duration
	c.varint() // distance to the checkpoint before it
	c.byte()   // kind of checkpoint
	for range c.count() {
		id := c.varint()
		cl := cs.byID[id]
		switch {
		case c.err != nil:
			return
		case cl == nil:
			c.fail("constants of class %d, which the metadata does not describe", id)
			return
		case cl.name == "jdk.types.ChunkHeader":
			return // a copy of the header, alone in its checkpoint
		}
		p := k.poolOf(cl)
		for range c.count() {
			if c.err != nil {
				return
			}
			e := constant{id: c.varint(), offset: uint32(c.i)}
			cl.skip(c, 0)
			if p == nil {
				continue
			}
			if k.count++; k.count > maxConstants {
				c.fail("the chunk has more than %d constants", maxConstants)
				return
			}
			p.entries = append(p.entries, e)
		}
	}
}

// sort makes the pools ready for find.
func (k *constants) sort() {
	for _, p := range []*pool{&k.stacks, &k.methods, &k.classes, &k.symbols, &k.state} {
		slices.SortStableFunc(p.entries, func(a, b constant) int { return cmp.Compare(a.id, b.id) })
	}
}

// find reads the constant of a number into r; false if the pool has none. A pool of values that are not made of fields
// has none: they have no name to look for.
func (k *constants) find(p *pool, id uint64, r *record) bool {
	i, ok := slices.BinarySearchFunc(p.entries, id, func(e constant, id uint64) int { return cmp.Compare(e.id, id) })
	if !ok || p.class.shape != shapeFields {
		return false
	}
	c := cursor{b: k.chunk, i: int(p.entries[i].offset)}
	r.read(&c, p.class)
	return c.err == nil
}

// stateOf returns the name of a state of threads.
func (k *constants) stateOf(id uint64) string {
	var r record
	k.find(&k.state, id, &r)
	return string(r.string(slotName))
}

// symbol returns the text of a symbol.
func (k *constants) symbol(id uint64) []byte {
	var r record
	k.find(&k.symbols, id, &r)
	return r.string(slotString)
}

// method returns what a frame in a method is called: Class.method.
func (k *constants) method(id uint64) ([]byte, bool) {
	var m, cl record
	if !k.find(&k.methods, id, &m) || !k.find(&k.classes, m.num[slotType], &cl) {
		return nil, false
	}
	name := append([]byte(nil), stable(k.symbol(cl.num[slotName]))...)
	name = append(name, '.')
	return append(name, k.symbol(m.num[slotName])...), true
}
