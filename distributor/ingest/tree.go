package ingest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
)

// maxDepth bounds trees and tries: deeper than any program's stack, and a trie has a level or two for each frame.
const maxDepth = 1 << 16

// Formats tree and trie are the same bytes with different meanings: nodes in preorder, the root first.
//
//	length of the name, varint · name · value, varint · number of children, varint
//
// In a tree a node is a frame, and the value what was seen of exactly its stack. In a trie names are pieces of text: those
// from the root to a node, put together, are a stack with its frames joined by semicolons.

// node is one of either.
type node struct {
	name     []byte
	value    int64
	children uint64
}

// level is what a node keeps while its children are read.
type level struct {
	children uint64 // still to come
	frames   int    // of the stack at this node
	text     int    // trie: how long its text is
	partial  int    // trie: where in it the frame begins that no semicolon has ended yet
}

// parseTree reads format tree.
func parseTree(s *stacks, body []byte) error {
	s.stack = s.stack[:0]
	return walk(body, func(n node, at level) (level, error) {
		s.stack = s.stack[:at.frames]
		if err := s.push(n.name); err != nil {
			return at, err
		}
		at.frames = len(s.stack)
		if n.value > 0 {
			return at, s.add(n.value)
		}
		return at, nil
	})
}

// parseTrie reads format trie.
func parseTrie(s *stacks, body []byte) error {
	s.stack = s.stack[:0]
	var text []byte
	return walk(body, func(n node, at level) (level, error) {
		text = append(text[:at.text], n.name...)
		s.stack = s.stack[:at.frames]
		for i := at.text; i < len(text); i++ {
			if text[i] != ';' {
				continue
			}
			if err := s.push(text[at.partial:i]); err != nil {
				return at, err
			}
			at.partial = i + 1
		}
		at.frames, at.text = len(s.stack), len(text)
		if n.value > 0 {
			if err := s.push(text[at.partial:]); err != nil {
				return at, err
			}
			return at, s.add(n.value)
		}
		return at, nil
	})
}

// walk visits the nodes in their order. visit gets what it returned for the parent, and for the root nothing. No
// recursion: how deep a tree is, is up to who sent it.
func walk(body []byte, visit func(node, level) (level, error)) error {
	rest := body
	var open []level // from the root to the node whose children are next
	for first := true; first || len(open) > 0; first = false {
		at := level{}
		if !first {
			parent := &open[len(open)-1]
			if parent.children == 0 {
				open = open[:len(open)-1]
				continue
			}
			parent.children--
			at = *parent
		}
		n, after, err := readNode(rest)
		if err == nil && len(open) == maxDepth {
			err = fmt.Errorf("it is more than %d deep", maxDepth)
		}
		if err == nil {
			at, err = visit(n, at)
		}
		if err != nil {
			return fmt.Errorf("node at byte %d: %w", len(body)-len(rest), err)
		}
		rest = after
		at.children = n.children
		open = append(open, at)
	}
	if len(rest) > 0 {
		return fmt.Errorf("%d bytes follow its last node", len(rest))
	}
	return nil
}

// readNode reads one node and returns what follows it.
func readNode(b []byte) (n node, rest []byte, err error) {
	length, b, err := uvarint(b, "the length of its name")
	if err != nil {
		return n, nil, err
	}
	if length > uint64(len(b)) {
		return n, nil, fmt.Errorf("its name has %d bytes, of %d that follow", length, len(b))
	}
	n.name, b = b[:length], b[length:]
	value, b, err := uvarint(b, "its value")
	if err != nil {
		return n, nil, err
	}
	if value > math.MaxInt64 {
		return n, nil, fmt.Errorf("its value %d is larger than an int64 holds", value)
	}
	n.value = int64(value)
	n.children, b, err = uvarint(b, "the number of its children")
	if err == nil && n.children > uint64(len(b))/3 { // no node takes less
		err = fmt.Errorf("%d children do not fit in the %d bytes that follow", n.children, len(b))
	}
	return n, b, err
}

func uvarint(b []byte, what string) (uint64, []byte, error) {
	v, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, nil, fmt.Errorf("%s is cut off or too large: % x", what, bytes.Clone(b[:min(len(b), 10)]))
	}
	return v, b[n:], nil
}
