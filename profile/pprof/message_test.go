package pprof_test

import (
	"encoding/binary"
	"math/rand/v2"

	"github.com/kilndb/kiln/profile/pprof"
)

// message is a protobuf message put together by hand, right or wrong, field by field.
type message struct {
	fields []wireField
}

type wireField struct {
	number int
	bytes  []byte
}

func (m *message) tag(number, wireType int) []byte {
	return binary.AppendUvarint(nil, uint64(number)<<3|uint64(wireType))
}

func (m *message) raw(number int, b []byte) *message {
	m.fields = append(m.fields, wireField{number, b})
	return m
}

// varint adds the field even if it is zero.
func (m *message) varint(number int, v uint64) *message {
	return m.raw(number, binary.AppendUvarint(m.tag(number, 0), v))
}

func (m *message) blob(number int, b []byte) *message {
	return m.raw(number, append(binary.AppendUvarint(m.tag(number, 2), uint64(len(b))), b...))
}

func (m *message) nest(number int, n *message) *message { return m.blob(number, n.encode()) }

// list adds a repeated number, packed or one by one.
func (m *message) list(number int, packed bool, vs ...uint64) *message {
	if !packed {
		for _, v := range vs {
			m.varint(number, v)
		}
		return m
	}
	var b []byte
	for _, v := range vs {
		b = binary.AppendUvarint(b, v)
	}
	return m.blob(number, b)
}

func (m *message) encode() []byte {
	var b []byte
	for _, f := range m.fields {
		b = append(b, f.bytes...)
	}
	return b
}

// shuffle changes the order of the fields; those of one number stay in order, as repeated fields must.
func (m *message) shuffle(rnd *rand.Rand) *message {
	shuffled := make([]wireField, len(m.fields))
	queues := map[int][]wireField{}
	for i, j := range rnd.Perm(len(m.fields)) {
		shuffled[i] = m.fields[j]
		queues[m.fields[i].number] = append(queues[m.fields[i].number], m.fields[i])
	}
	for i, f := range shuffled {
		shuffled[i] = queues[f.number][0]
		queues[f.number] = queues[f.number][1:]
	}
	return &message{shuffled}
}

// minimal is a small profile that is right: two samples, two locations, one function, one mapping.
func minimal() *message {
	m := new(message)
	m.nest(1, new(message).varint(1, 1).varint(2, 2))
	m.nest(2, new(message).list(1, true, 1, 2).list(2, true, 10))
	m.nest(2, new(message).list(1, true, 2).list(2, true, 5).nest(3, new(message).varint(1, 5).varint(2, 3)))
	m.nest(3, new(message).varint(1, 1).varint(2, 0x1000).varint(3, 0x2000).varint(5, 4))
	m.nest(4, new(message).varint(1, 1).varint(2, 1).varint(3, 0x1010).nest(4, new(message).varint(1, 1).varint(2, 7)))
	m.nest(4, new(message).varint(1, 2).varint(3, 0x1020))
	m.nest(5, new(message).varint(1, 1).varint(2, 3))
	for _, s := range []string{"", "cpu", "nanoseconds", "main", "/bin/main", "handler"} {
		m.blob(6, []byte(s))
	}
	return m.nest(11, new(message).varint(1, 1).varint(2, 2)).varint(12, 100)
}

// unlimited leaves only what no Limits can lift.
var unlimited = pprof.Limits{}
