package otlp

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// A request is looked at before it is decoded. The decoder recurses without a bound and makes a struct of every nested
// message: a sample takes two bytes on the wire and a hundred in memory.

// maxDepth is far more than a request needs: five for an attribute, and two for each list within a list.
const maxDepth = 32

// shape says what a message of the schema takes in memory and which of its fields are messages or packed numbers.
// Fields that it does not list are numbers, texts, or unknown.
type shape struct {
	// size is the struct, the pointer to it, and what an append has left behind.
	size   int
	fields [maxField + 1]field // by number
}

// maxField is the largest number of a field that a shape lists.
const maxField = 11

type field struct {
	message *shape
	// packed is the memory that a byte of packed numbers takes at most.
	packed int
}

const (
	// scalarSize is a number in a list that is not packed, textSize the header of a text and what rounding takes.
	// They, and the sizes below, count what a list leaves behind as it grows: four times its length.
	scalarSize, textSize = 36, 80
	// Varints begin at one byte; numbers of fixed width are counted beforehand.
	packed32, packed64, packedFixed = 20, 36, 2
)

// newShape returns the shape of a request in version 1 of the schema.
func newShape() *shape {
	type fields = [maxField + 1]field
	message := func(size int, fields fields) field { return field{message: &shape{size, fields}} }
	leaf := func(size int) field { return message(size, fields{}) }
	numbers := func(size, number int) field {
		f := leaf(size)
		f.message.fields[number].packed = packed32
		return f
	}

	anyValue := leaf(80)
	keyValue := message(224, fields{2: anyValue})
	anyValue.message.fields = fields{5: message(64, fields{1: anyValue}), 6: message(64, fields{1: keyValue})}
	sample := message(160, fields{2: {packed: packed32}, 4: {packed: packed64}, 5: {packed: packedFixed}})
	profile := message(320, fields{1: leaf(16), 2: sample, 5: leaf(16), 11: {packed: packed32}})
	scope := message(192, fields{1: message(128, fields{3: keyValue}), 2: profile})
	resource := message(128, fields{1: keyValue, 3: leaf(160)})
	dictionary := message(256, fields{
		1: numbers(112, 5),                                          // mappings
		2: message(112, fields{3: leaf(64), 4: {packed: packed32}}), // locations
		3: leaf(64),
		4: leaf(64),
		6: message(112, fields{2: anyValue}),
		7: numbers(72, 1), // stacks
	})
	return message(128, fields{
		1: message(192, fields{1: resource, 2: scope}),
		2: dictionary,
	}).message
}

// check returns what a message takes in memory at most, and refuses one that may take more than limit.
func (s *shape) check(b []byte, limit int) (size int, err error) {
	left := limit
	if err = s.walk(b, &left, 0); err == nil {
		err = within(left, limit)
	}
	return limit - left, err
}

func within(left, limit int) error {
	if left < 0 {
		return fmt.Errorf("%w: decoded it would take more than %d bytes", ErrTooLarge, limit)
	}
	return nil
}

// walk takes off left what a message takes, and ends early once nothing is left.
func (s *shape) walk(b []byte, left *int, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%w: messages are nested more than %d deep", ErrMalformed, maxDepth)
	}
	*left -= s.size
	for len(b) > 0 && *left >= 0 {
		number, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("%w: %w", ErrMalformed, protowire.ParseError(n))
		}
		b = b[n:]
		if typ != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(number, typ, b); n < 0 || typ == protowire.StartGroupType {
				return fmt.Errorf("%w: field %d ends early or is a group", ErrMalformed, number)
			}
			b = b[n:]
			*left -= scalarSize
			continue
		}
		value, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return fmt.Errorf("%w: field %d: %w", ErrMalformed, number, protowire.ParseError(n))
		}
		b = b[n:]
		var f field
		if number <= maxField {
			f = s.fields[number]
		}
		switch {
		case f.message != nil:
			if err := f.message.walk(value, left, depth+1); err != nil {
				return err
			}
		case f.packed > 0:
			*left -= f.packed * len(value)
		default:
			*left -= textSize + len(value)
		}
	}
	return nil
}

// What JSON takes in memory at most: an object the largest struct, a comma the number behind it.
const objectSize, arraySize, commaSize = 320, 64, 48

// checkJSON is check for JSON. It reads no more than strings and brackets.
func checkJSON(b []byte, limit int) (size int, err error) {
	depth, left := 0, limit
	for i := 0; i < len(b) && left >= 0; i++ {
		left--
		switch b[i] {
		case '"':
			end := stringEnd(b, i+1)
			left -= end - i + textSize/2
			i = end
		case '{', '[':
			if depth++; depth > 2*maxDepth { // an object and a list for each message
				return 0, fmt.Errorf("%w: messages are nested more than %d deep", ErrMalformed, maxDepth)
			}
			if b[i] == '{' {
				left -= objectSize
			} else {
				left -= arraySize
			}
		case '}', ']':
			depth--
		case ',':
			left -= commaSize
		}
	}
	return limit - left, within(left, limit)
}

// stringEnd returns where the string that begins at i ends: the place of its quote, or the end of b.
func stringEnd(b []byte, i int) int {
	for ; i < len(b) && b[i] != '"'; i++ {
		if b[i] == '\\' {
			i++
		}
	}
	return min(i, len(b))
}
