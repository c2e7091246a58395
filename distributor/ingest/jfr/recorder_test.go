package jfr_test

import (
	"encoding/binary"
	"slices"
)

// varint writes an integer as recordings do, for values below 2^56.
func varint(b []byte, v uint64) []byte { return binary.AppendUvarint(b, v) }

func text(b []byte, s string) []byte {
	return append(varint(append(b, 3), uint64(len(s))), s...)
}

// event is an event of a class with its fields written already. The size takes four bytes.
func event(class uint64, fields []byte) []byte {
	size := uint32(4 + len(varint(nil, class)) + len(fields))
	b := []byte{byte(size)&0x7f | 0x80, byte(size>>7)&0x7f | 0x80, byte(size>>14)&0x7f | 0x80, byte(size >> 21)}
	return append(varint(b, class), fields...)
}

// fields writes numbers.
func fields(numbers ...uint64) (b []byte) {
	for _, n := range numbers {
		b = varint(b, n)
	}
	return b
}

// testField and testClass are what the metadata say.
type testField struct {
	name            string
	class           string
	constant, array bool
}

type testClass struct {
	id     string
	name   string
	fields []testField
}

// Numbers of the classes that every recording here has.
const (
	classString, classThreadState, classStack, classMethod, classClass, classSymbol = 20, 25, 26, 28, 21, 30
	classExecution, classPark, classAlloc, classSetting                             = 101, 105, 102, 108
)

// standard are those classes.
func standard() []testClass {
	return []testClass{
		{"4", "boolean", nil}, {"6", "float", nil}, {"7", "double", nil}, {"10", "int", nil}, {"11", "long", nil}, {"20", "java.lang.String", nil},
		{"21", "java.lang.Class", []testField{{"classLoader", "11", false, false}, {"name", "30", true, false}}},
		{"25", "jdk.types.ThreadState", []testField{{"name", "20", false, false}}},
		{"26", "jdk.types.StackTrace", []testField{{"truncated", "4", false, false}, {"frames", "27", false, true}}},
		{"27", "jdk.types.StackFrame", []testField{{"method", "28", true, false}, {"lineNumber", "10", false, false}}},
		{"28", "jdk.types.Method", []testField{{"type", "21", true, false}, {"name", "30", true, false}}},
		{"30", "jdk.types.Symbol", []testField{{"string", "20", false, false}}},
		{"101", "jdk.ExecutionSample", []testField{{"startTime", "11", false, false}, {"stackTrace", "26", true, false}, {"state", "25", true, false}}},
		{"102", "jdk.ObjectAllocationInNewTLAB", []testField{{"weather", "6", false, false}, {"mood", "7", false, false}, {"tags", "20", false, true},
			{"stackTrace", "26", true, false}, {"tlabSize", "11", false, false}}},
		{"105", "jdk.ThreadPark", []testField{{"duration", "11", false, false}, {"stackTrace", "26", true, false}}},
		{"108", "jdk.ActiveSetting", []testField{{"name", "20", false, false}, {"value", "20", false, false}}},
	}
}

// metadata is the event that describes classes.
func metadata(classes []testClass) []byte {
	var names []string
	str := func(s string) uint64 {
		i := slices.Index(names, s)
		if i < 0 {
			i, names = len(names), append(names, s)
		}
		return uint64(i)
	}
	var tree []byte
	element := func(name string, children int, attributes ...string) {
		tree = fields2(tree, str(name), uint64(len(attributes)/2))
		for _, a := range attributes {
			tree = varint(tree, str(a))
		}
		tree = varint(tree, uint64(children))
	}
	element("root", 2)
	element("metadata", len(classes))
	for _, c := range classes {
		element("class", len(c.fields), "id", c.id, "name", c.name)
		for _, f := range c.fields {
			attributes := []string{"name", f.name, "class", f.class}
			if f.constant {
				attributes = append(attributes, "constantPool", "true")
			}
			if f.array {
				attributes = append(attributes, "dimension", "1")
			}
			element("field", 1, attributes...)
			element("annotation", 0)
		}
	}
	element("region", 0, "locale", "en")
	b := fields(1, 2, 3, uint64(len(names)))
	for _, s := range names {
		b = text(b, s)
	}
	return event(0, append(b, tree...))
}

func fields2(b []byte, numbers ...uint64) []byte {
	for _, n := range numbers {
		b = varint(b, n)
	}
	return b
}

// pool is the constants of a class, each with its number in front.
func pool(class uint64, constants ...[]byte) []byte {
	return append(fields(class, uint64(len(constants))), slices.Concat(constants...)...)
}

func checkpoint(pools ...[]byte) []byte {
	b := fields(1, 2, 3)
	return event(1, append(varint(append(b, 1), uint64(len(pools))), slices.Concat(pools...)...))
}

// constants are a checkpoint with two states, and methods Main.run (1) and lib/Work.do (2) on the stacks
// 1: run:7, 2: do:9 < run:8, 3: a method that is nowhere < run:7.
func constants() []byte {
	symbol := func(id uint64, s string) []byte { return text(fields(id), s) }
	return checkpoint(
		pool(classThreadState, text(fields(1), "STATE_RUNNABLE"), text(fields(2), "STATE_SLEEPING")),
		pool(classSymbol, symbol(1, "Main"), symbol(2, "run"), symbol(3, "lib/Work"), symbol(4, "do")),
		pool(classClass, fields(1, 0, 1), fields(2, 0, 3)),
		pool(classMethod, fields(1, 1, 2), fields(2, 2, 4)),
		pool(classStack, append(fields(1), 0, 1, 1, 7), append(fields(2), 0, 2, 2, 9, 1, 8), append(fields(3), 0, 2, 77, 1, 1, 7)),
	)
}

// chunk is a chunk of events, the metadata after the first.
func chunk(ticks uint64, meta []byte, events ...[]byte) []byte {
	b := append(make([]byte, 68), events[0]...)
	at := len(b)
	b = append(b, meta...)
	b = append(b, slices.Concat(events[1:]...)...)
	copy(b, "FLR\x00\x00\x02\x00\x01")
	binary.BigEndian.PutUint64(b[8:], uint64(len(b)))
	binary.BigEndian.PutUint64(b[24:], uint64(at))
	binary.BigEndian.PutUint64(b[56:], ticks)
	b[67] = 1
	return b
}

func execution(stack, state uint64) []byte { return event(classExecution, fields(5, stack, state)) }
func park(ticks, stack uint64) []byte      { return event(classPark, fields(ticks, stack)) }

// alloc has two fields that nobody knows and an array of strings in all their encodings.
func alloc(stack, bytes uint64) []byte {
	b := []byte{1, 2, 3, 4, 1, 2, 3, 4, 5, 6, 7, 8, 6}
	b = append(b, 0, 1, 2, 42, 3, 1, 'x', 4, 1, 'y', 5, 1, 0xe9)
	return event(classAlloc, fields2(b, stack, bytes))
}

func setting(name, value string) []byte { return event(classSetting, text(text(nil, name), value)) }
