package flamegraph

import (
	"encoding/binary"
	"fmt"
	"math"
	"unicode/utf8"
)

// TreeBytes writes the heaviest maxNodes nodes of t (all if 0) as a stream of nodes in preorder, the root with
// an empty name first. All numbers are unsigned varints:
//
//	node: name length · name · self · number of children
//
// What was left out below a node is one node "other".
func TreeBytes(t *Tree, maxNodes int) []byte {
	tr := Truncate(t, maxNodes)
	children := make([]uint32, len(tr.Self))
	for _, parent := range tr.Parents[1:] {
		children[parent]++
	}
	// 32 bytes: what a node of a Go program takes.
	b := make([]byte, 0, 32*len(tr.Self))
	for i, self := range tr.Self {
		name := ""
		switch n := tr.NodeNames[i]; {
		case i == 0:
		case n == Other:
			name = otherName
		default:
			name = tr.Names[n]
		}
		b = binary.AppendUvarint(b, uint64(len(name)))
		b = append(b, name...)
		b = binary.AppendUvarint(b, uint64(self))
		b = binary.AppendUvarint(b, uint64(children[i]))
	}
	return b
}

// DecodeTreeBytes reads what TreeBytes or another program wrote, siblings in any order; those of one name are
// added up. No bytes are the empty tree. It checks everything and takes memory in proportion to len(b).
// The errors are ErrMalformed and ErrOverflow.
func DecodeTreeBytes(b []byte) (*Tree, error) {
	d := treeDecoder{b: b, numbers: make(map[string]uint32)}
	if len(b) == 0 {
		return &Tree{}, nil
	}
	if uint64(len(b)) > math.MaxUint32 {
		return nil, fmt.Errorf("%w: %d bytes", ErrMalformed, len(b))
	}
	d.forest = newForest()
	d.useIndex()
	// open are the nodes on the way down that wait for children.
	type open struct {
		node uint32
		left uint64
	}
	children, err := d.root()
	path := []open{{0, children}}
	for err == nil && len(path) > 0 {
		last := &path[len(path)-1]
		if last.left == 0 {
			path = path[:len(path)-1]
			continue
		}
		last.left--
		var child open
		child.node, child.left, err = d.child(last.node)
		path = append(path, child)
	}
	if err == nil && d.at != len(b) {
		err = d.malformed("bytes after the last node")
	}
	if err != nil {
		return nil, err
	}
	names, rank := rankNames(d.texts)
	return d.tree(d.order(rank, len(names)), rank, names, d.self), nil
}

// treeDecoder is a position in a stream and the tree so far.
type treeDecoder struct {
	forest
	b       []byte
	at      int
	texts   [][]byte
	numbers map[string]uint32
	self    []int64
	total   int64
}

func (d *treeDecoder) malformed(what string) error {
	return fmt.Errorf("%w: %s at byte %d of %d", ErrMalformed, what, d.at, len(d.b))
}

func (d *treeDecoder) root() (children uint64, err error) {
	name, self, children, err := d.node()
	if err == nil && len(name) > 0 {
		err = d.malformed("the root has a name")
	}
	d.self = []int64{self}
	return children, err
}

// child reads the next node and adds it below parent.
func (d *treeDecoder) child(parent uint32) (n uint32, children uint64, err error) {
	name, self, children, err := d.node()
	if err != nil {
		return 0, 0, err
	}
	number, ok := d.numbers[string(name)]
	if !ok {
		number = uint32(len(d.texts))
		d.texts = append(d.texts, name)
		d.numbers[string(name)] = number
	}
	n = d.forest.child(parent, number)
	if int(n) == len(d.self) {
		d.self = append(d.self, 0)
	}
	d.self[n] += self
	return n, children, nil
}

func (d *treeDecoder) node() (name []byte, self int64, children uint64, err error) {
	length, err := d.uvarint("name length")
	if err != nil {
		return nil, 0, 0, err
	}
	if length > uint64(len(d.b)-d.at) {
		return nil, 0, 0, d.malformed(fmt.Sprintf("a name of %d bytes", length))
	}
	name = d.b[d.at : d.at+int(length)]
	d.at += int(length)
	if !utf8.Valid(name) {
		return nil, 0, 0, d.malformed(fmt.Sprintf("the name %q, which is not UTF-8,", name[:min(len(name), 40)]))
	}
	weight, err := d.uvarint("weight")
	if err != nil {
		return nil, 0, 0, err
	}
	if weight > math.MaxInt64 {
		return nil, 0, 0, d.malformed(fmt.Sprintf("the negative weight %d", int64(weight)))
	}
	self = int64(weight)
	if d.total += self; d.total < 0 {
		return nil, 0, 0, fmt.Errorf("%w at byte %d", ErrOverflow, d.at)
	}
	// Children are read one by one: a number that is too large leads to the end of the bytes.
	children, err = d.uvarint("number of children")
	return name, self, children, err
}

func (d *treeDecoder) uvarint(what string) (uint64, error) {
	v, n := binary.Uvarint(d.b[d.at:])
	if n <= 0 {
		return 0, d.malformed("no " + what)
	}
	d.at += n
	return v, nil
}
