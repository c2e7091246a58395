package query

import (
	"fmt"
	"math"

	queryv1 "github.com/kilndb/kiln/api/kiln/query/v1"
	"github.com/kilndb/kiln/profile"
)

// StacksToProto returns the stacks with a weight, and the symbols that they need, as a report has them. sums
// has one weight per node of the tree. The numbers of profiles and so on are left to the caller. It
// returns ErrReport for a negative weight, and ErrOverflow if the weights do not add up to an int64.
func StacksToProto(sym *profile.Symbols, tree *profile.StackTree, sums []int64) (*queryv1.Stacks, error) {
	if len(sums) != len(tree.Parents) {
		return nil, fmt.Errorf("%w: %d sums for %d nodes", ErrReport, len(sums), len(tree.Parents))
	}
	if _, err := checkWeights(sums); err != nil {
		return nil, err
	}
	w := newStacksWriter(sym)
	w.nodes(tree, sums)
	w.locations()
	w.functions()
	w.mappings()
	w.strings()
	return w.out, nil
}

// checkWeights returns the sum of weights of one answer.
func checkWeights(weights []int64) (total int64, err error) {
	for i, v := range weights {
		if v < 0 {
			return 0, fmt.Errorf("%w: weight %d of node %d is negative", ErrReport, v, i)
		}
		if total += v; total < 0 {
			return 0, fmt.Errorf("%w: weights of %d nodes", ErrOverflow, len(weights))
		}
	}
	return total, nil
}

// numbering gives new numbers to those in use, in the order of use.
type numbering struct {
	// numbers has the new number plus one, by old number.
	numbers []uint32
	inUse   []uint32
}

// newNumbering is for n old numbers; none means that 0 stands for "none" and stays 0.
func newNumbering(n int, none bool) numbering {
	x := numbering{numbers: make([]uint32, n)}
	if none {
		x.of(0)
	}
	return x
}

func (x *numbering) of(old uint32) uint32 {
	if x.numbers[old] == 0 {
		x.inUse = append(x.inUse, old)
		x.numbers[old] = uint32(len(x.inUse))
	}
	return x.numbers[old] - 1
}

// stacksWriter writes tables from the outside in: nodes say which locations are in use, these say which
// functions, and so on.
type stacksWriter struct {
	sym                   *profile.Symbols
	out                   *queryv1.Stacks
	strs, maps, fns, locs numbering
}

func newStacksWriter(sym *profile.Symbols) *stacksWriter {
	return &stacksWriter{
		sym: sym, out: &queryv1.Stacks{},
		strs: newNumbering(len(sym.Strings), true),
		maps: newNumbering(len(sym.Mappings), true),
		fns:  newNumbering(len(sym.Functions), true),
		locs: newNumbering(len(sym.Locations), false),
	}
}

func (w *stacksWriter) nodes(tree *profile.StackTree, sums []int64) {
	alive := make([]bool, len(sums))
	for i := len(sums) - 1; i > 0; i-- {
		alive[i] = alive[i] || sums[i] != 0
		alive[tree.Parents[i]] = alive[tree.Parents[i]] || alive[i]
	}
	places := make([]uint32, len(sums))
	for i, v := range sums {
		switch {
		case i == 0:
			w.node(0, 0, v)
		case alive[i]:
			places[i] = uint32(len(w.out.Self))
			w.node(places[tree.Parents[i]], w.locs.of(tree.Locations[i]), v)
		}
	}
}

func (w *stacksWriter) node(parent, location uint32, self int64) {
	w.out.Parents = append(w.out.Parents, parent)
	w.out.NodeLocations = append(w.out.NodeLocations, location)
	w.out.Self = append(w.out.Self, self)
}

func (w *stacksWriter) locations() {
	memory := make([]queryv1.Location, len(w.locs.inUse))
	w.out.Locations = make([]*queryv1.Location, len(memory))
	for i, old := range w.locs.inUse {
		from, to := w.sym.Locations[old], &memory[i]
		to.Mapping, to.Address, to.Folded = w.maps.of(from.Mapping), from.Address, from.Folded
		lines := make([]queryv1.Line, from.Lines)
		to.Lines = make([]*queryv1.Line, from.Lines)
		for j, l := range w.sym.LinesOf(old) {
			lines[j].Function, lines[j].Line, lines[j].Column = w.fns.of(l.Function), l.Line, l.Column
			to.Lines[j] = &lines[j]
		}
		w.out.Locations[i] = to
	}
}

func (w *stacksWriter) functions() {
	memory := make([]queryv1.Function, len(w.fns.inUse))
	w.out.Functions = make([]*queryv1.Function, len(memory))
	for i, old := range w.fns.inUse {
		from, to := w.sym.Functions[old], &memory[i]
		to.Name, to.SystemName, to.File = w.strs.of(from.Name), w.strs.of(from.SystemName), w.strs.of(from.File)
		to.StartLine = from.StartLine
		w.out.Functions[i] = to
	}
}

func (w *stacksWriter) mappings() {
	memory := make([]queryv1.Mapping, len(w.maps.inUse))
	w.out.Mappings = make([]*queryv1.Mapping, len(memory))
	for i, old := range w.maps.inUse {
		from, to := w.sym.Mappings[old], &memory[i]
		to.Start, to.Limit, to.Offset = from.Start, from.Limit, from.Offset
		to.File, to.BuildId = w.strs.of(from.File), w.strs.of(from.BuildID)
		to.HasFunctions, to.HasFilenames = from.HasFunctions, from.HasFilenames
		to.HasLineNumbers, to.HasInlineFrames = from.HasLineNumbers, from.HasInlineFrames
		w.out.Mappings[i] = to
	}
}

func (w *stacksWriter) strings() {
	w.out.Strings = make([]string, len(w.strs.inUse))
	for i, old := range w.strs.inUse {
		w.out.Strings[i] = string(w.sym.String(old))
	}
}

// StacksFromProto returns the symbols and the stack tree of a report; the weights of the nodes are Self of
// the message. It copies the names. It returns ErrReport, or ErrOverflow, if anything in the message is not
// as it has to be.
func StacksFromProto(s *queryv1.Stacks) (*profile.Symbols, *profile.StackTree, error) {
	r := stacksReader{in: s, sym: &profile.Symbols{}}
	for _, read := range []func() error{r.strings, r.mappings, r.functions, r.locations, r.nodes} {
		if err := read(); err != nil {
			return nil, nil, err
		}
	}
	return r.sym, &profile.StackTree{Parents: s.GetParents(), Locations: s.GetNodeLocations()}, nil
}

// stacksReader mirrors stacksWriter, from the inside out: every reference is to a table that has been read.
type stacksReader struct {
	in  *queryv1.Stacks
	sym *profile.Symbols
}

func (r *stacksReader) strings() error {
	if len(r.in.GetStrings()) == 0 || r.in.GetStrings()[0] != "" {
		return fmt.Errorf("%w: string 0 is not empty", ErrReport)
	}
	size := 0
	for _, s := range r.in.GetStrings() {
		size += len(s)
	}
	if size > math.MaxUint32 {
		return fmt.Errorf("%w: %d bytes of strings", ErrReport, size)
	}
	r.sym.Data = make([]byte, 0, size)
	r.sym.Strings = make([]profile.Span, len(r.in.GetStrings()))
	for i, s := range r.in.GetStrings() {
		r.sym.Strings[i] = profile.Span{Off: uint32(len(r.sym.Data)), Len: uint32(len(s))}
		r.sym.Data = append(r.sym.Data, s...)
	}
	return nil
}

func (r *stacksReader) mappings() error {
	r.sym.Mappings = make([]profile.Mapping, len(r.in.GetMappings()))
	for i, m := range r.in.GetMappings() {
		if err := r.below(len(r.sym.Strings), "string", "mapping", i, m.GetFile(), m.GetBuildId()); err != nil {
			return err
		}
		r.sym.Mappings[i] = profile.Mapping{
			Start: m.GetStart(), Limit: m.GetLimit(), Offset: m.GetOffset(), File: m.GetFile(), BuildID: m.GetBuildId(),
			HasFunctions: m.GetHasFunctions(), HasFilenames: m.GetHasFilenames(),
			HasLineNumbers: m.GetHasLineNumbers(), HasInlineFrames: m.GetHasInlineFrames(),
		}
	}
	if len(r.sym.Mappings) == 0 || r.sym.Mappings[0] != (profile.Mapping{}) {
		return fmt.Errorf("%w: mapping 0 is not empty", ErrReport)
	}
	return nil
}

func (r *stacksReader) functions() error {
	r.sym.Functions = make([]profile.Function, len(r.in.GetFunctions()))
	for i, f := range r.in.GetFunctions() {
		if err := r.below(len(r.sym.Strings), "string", "function", i, f.GetName(), f.GetSystemName(), f.GetFile()); err != nil {
			return err
		}
		r.sym.Functions[i] = profile.Function{
			Name: f.GetName(), SystemName: f.GetSystemName(), File: f.GetFile(), StartLine: f.GetStartLine(),
		}
	}
	if len(r.sym.Functions) == 0 || r.sym.Functions[0] != (profile.Function{}) {
		return fmt.Errorf("%w: function 0 is not empty", ErrReport)
	}
	return nil
}

func (r *stacksReader) locations() error {
	r.sym.Locations = make([]profile.Location, len(r.in.GetLocations()))
	for i, l := range r.in.GetLocations() {
		if err := r.below(len(r.sym.Mappings), "mapping", "location", i, l.GetMapping()); err != nil {
			return err
		}
		r.sym.Locations[i] = profile.Location{
			Mapping: l.GetMapping(), Address: l.GetAddress(), Folded: l.GetFolded(),
			FirstLine: uint32(len(r.sym.Lines)), Lines: uint32(len(l.GetLines())),
		}
		for _, line := range l.GetLines() {
			if err := r.below(len(r.sym.Functions), "function", "location", i, line.GetFunction()); err != nil {
				return err
			}
			r.sym.Lines = append(r.sym.Lines, profile.Line{Function: line.GetFunction(), Line: line.GetLine(), Column: line.GetColumn()})
		}
	}
	return nil
}

func (r *stacksReader) nodes() error {
	parents, locations := r.in.GetParents(), r.in.GetNodeLocations()
	if len(parents) == 0 || len(locations) != len(parents) || len(r.in.GetSelf()) != len(parents) {
		return fmt.Errorf("%w: %d parents, %d locations and %d weights of nodes", ErrReport, len(parents), len(locations), len(r.in.GetSelf()))
	}
	if parents[0] != 0 {
		return fmt.Errorf("%w: the root has parent %d", ErrReport, parents[0])
	}
	for i := 1; i < len(parents); i++ {
		if parents[i] >= uint32(i) {
			return fmt.Errorf("%w: node %d has parent %d", ErrReport, i, parents[i])
		}
		if err := r.below(len(r.sym.Locations), "location", "node", i, locations[i]); err != nil {
			return err
		}
	}
	_, err := checkWeights(r.in.GetSelf())
	return err
}

// below checks that references are to one of n things.
func (r *stacksReader) below(n int, thing, of string, i int, references ...uint32) error {
	for _, ref := range references {
		if uint64(ref) >= uint64(n) {
			return fmt.Errorf("%w: %s %d of %s %d, there are %d", ErrReport, thing, ref, of, i, n)
		}
	}
	return nil
}
