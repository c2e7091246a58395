package profile

// Span is a string as a range of Symbols.Data.
type Span struct {
	Off, Len uint32
}

// Mapping is a program or library in memory. File and BuildID are indexes into Symbols.Strings.
type Mapping struct {
	Start, Limit, Offset uint64
	File, BuildID        uint32
	HasFunctions         bool
	HasFilenames         bool
	HasLineNumbers       bool
	HasInlineFrames      bool
}

// Function is a function of the program. Name, SystemName and File are indexes into Symbols.Strings.
type Function struct {
	Name, SystemName, File uint32
	StartLine              int64
}

// Line is one frame of a location: a function and where in it. Several lines are inlined calls.
type Line struct {
	// Function is an index into Symbols.Functions.
	Function uint32
	Line     int64
	Column   int64
}

// Location is one address of a stack. Its lines are Symbols.Lines[FirstLine:FirstLine+Lines], leaf
// (innermost inlined call) first, as on the wire.
type Location struct {
	// Mapping is an index into Symbols.Mappings.
	Mapping          uint32
	FirstLine, Lines uint32
	Address          uint64
	Folded           bool
}

// Symbols are the names that stacks are made of, as flat tables. All references are indexes. Index 0 of
// Strings is "", of Mappings and Functions "none": every table has that entry, always. Locations have no
// such entry: index 0 is a location like any other.
type Symbols struct {
	// Data holds the bytes of all strings; it may hold other bytes as well.
	Data      []byte
	Strings   []Span
	Mappings  []Mapping
	Functions []Function
	Locations []Location
	Lines     []Line
}

// String returns the bytes of string i. They must not be changed, and live as long as Data.
func (s *Symbols) String(i uint32) []byte {
	sp := s.Strings[i]
	return s.Data[sp.Off : sp.Off+sp.Len]
}

// LinesOf returns the lines of location i, leaf first.
func (s *Symbols) LinesOf(i uint32) []Line {
	l := s.Locations[i]
	return s.Lines[l.FirstLine : l.FirstLine+l.Lines]
}

// StackTree is many stacks as one tree. Node 0 is the root and has no location; every parent comes before its
// children. A stack is named by its last node.
type StackTree struct {
	Parents []uint32
	// Locations are indexes into Symbols.Locations; that of the root is unused and 0.
	Locations []uint32
}

// CallTree is a stack tree at the level of functions: nodes in preorder, siblings ascending by name, node 0
// the root.
type CallTree struct {
	Parents []uint32
	// Names are indexes into Symbols.Strings; that of the root is 0.
	Names []uint32
	// OfStack maps every node of the stack tree to its node here.
	OfStack []uint32
}
