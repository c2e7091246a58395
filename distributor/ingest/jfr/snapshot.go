package jfr

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/kilndb/kiln/labels"
)

// maxSnapshot bounds the contexts and the strings of a snapshot.
const maxSnapshot = 1 << 16

// Snapshot is the table of labels that an agent sends beside a recording: events name a context, a context its labels.
//
//	message LabelsSnapshot { map<int64, Context> contexts = 1; map<int64, string> strings = 2; }
//	message Context        { map<int64, int64> labels = 1; }    // name to value, both numbers of strings
type Snapshot struct {
	contexts map[int64][]byte
	strings  map[int64][]byte
}

// ParseSnapshot reads a LabelsSnapshot in wire form. The snapshot refers to data. The errors wrap ErrMalformed.
func ParseSnapshot(data []byte) (*Snapshot, error) {
	s := &Snapshot{contexts: map[int64][]byte{}, strings: map[int64][]byte{}}
	err := eachField(data, func(number protowire.Number, entry []byte) error {
		if number != 1 && number != 2 {
			return nil
		}
		key, value := int64(0), []byte(nil)
		if err := eachNumber(entry, func(n protowire.Number, v uint64, b []byte) {
			switch n {
			case 1:
				key = int64(v)
			case 2:
				value = b
			}
		}); err != nil {
			return err
		}
		to := s.contexts
		if number == 2 {
			to = s.strings
		} else if _, err := s.labels(value, nil); err != nil {
			return err
		}
		if to[key] = value; len(to) > maxSnapshot {
			return fmt.Errorf("more than %d contexts or strings", maxSnapshot)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%w: labels: %w", ErrMalformed, err)
	}
	return s, nil
}

// Labels returns the labels of a context, none if there is no such context.
func (s *Snapshot) Labels(context uint64) []labels.Label {
	if s == nil {
		return nil
	}
	ls, _ := s.labels(s.contexts[int64(context)], nil) // checked when it was read
	return ls
}

// String returns a string of the snapshot, "" if it has none of that number.
func (s *Snapshot) String(number uint64) string {
	if s == nil {
		return ""
	}
	return string(s.strings[int64(number)])
}

// labels appends the labels of a context to ls.
func (s *Snapshot) labels(context []byte, ls []labels.Label) ([]labels.Label, error) {
	err := eachField(context, func(number protowire.Number, entry []byte) error {
		if number != 1 {
			return nil
		}
		var pair [2]uint64
		if err := eachNumber(entry, func(n protowire.Number, v uint64, _ []byte) {
			if n == 1 || n == 2 {
				pair[n-1] = v
			}
		}); err != nil {
			return err
		}
		ls = append(ls, labels.Label{Name: s.String(pair[0]), Value: s.String(pair[1])})
		return nil
	})
	return ls, err
}

// eachField calls visit with the fields of a message that are messages or strings, and passes over the others.
func eachField(b []byte, visit func(protowire.Number, []byte) error) error {
	var failed error
	err := eachNumber(b, func(n protowire.Number, _ uint64, value []byte) {
		if value != nil && failed == nil {
			failed = visit(n, value)
		}
	})
	if failed != nil {
		return failed
	}
	return err
}

// eachNumber calls visit with the fields of a message: v for varints, b, which is not nil, for what has a length.
func eachNumber(message []byte, visit func(n protowire.Number, v uint64, b []byte)) error {
	for len(message) > 0 {
		number, typ, n := protowire.ConsumeTag(message)
		if n < 0 {
			return protowire.ParseError(n)
		}
		message = message[n:]
		var v uint64
		var b []byte
		switch typ {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(message)
		case protowire.BytesType:
			b, n = protowire.ConsumeBytes(message)
		default:
			n = protowire.ConsumeFieldValue(number, typ, message)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		visit(number, v, b)
		message = message[n:]
	}
	return nil
}
