package query

import (
	"fmt"
	"math"

	queryv1 "github.com/kilndb/kiln/api/kiln/query/v1"
	"github.com/kilndb/kiln/profile"
)

// stacksAnswer is stacks over one table of names.
type stacksAnswer struct {
	table *profile.Table
	tree  profile.TreeBuilder
	self  []int64
	total int64
	// sums has the numbers of the answer and nothing else.
	sums  queryv1.Stacks
	some  bool
	remap profile.Remap
	nodes []uint32
}

func newStacksAnswer() *stacksAnswer { return &stacksAnswer{table: profile.NewTable()} }

func (a *stacksAnswer) add(r *queryv1.Report) error {
	s := r.GetStacks()
	if err := only(r, "stacks"); err != nil || s == nil {
		return err
	}
	sym, tree, err := StacksFromProto(s)
	if err != nil {
		return err
	}
	if err := a.addSums(s); err != nil {
		return err
	}
	if len(a.table.Data)+len(sym.Data) > math.MaxUint32 {
		return fmt.Errorf("names of merged stacks pass 4 GiB: %d + %d bytes", len(a.table.Data), len(sym.Data))
	}
	a.table.Add(sym, &a.remap)
	a.nodes = a.tree.Add(tree, a.remap.Locations, a.nodes)
	a.self = append(a.self, make([]int64, len(a.tree.Tree.Parents)-len(a.self))...)
	for i, at := range a.nodes {
		a.self[at] += s.GetSelf()[i]
	}
	a.some = true
	return nil
}

// addSums adds what is one number per report. With the total in range no node can overflow.
func (a *stacksAnswer) addSums(s *queryv1.Stacks) error {
	total, err := checkWeights(s.GetSelf())
	if err != nil {
		return err
	}
	if a.total, err = plus(a.total, total); err != nil {
		return fmt.Errorf("stacks: %w", err)
	}
	if s.GetDuration() < 0 {
		return fmt.Errorf("%w: duration %d is negative", ErrReport, s.GetDuration())
	}
	// Durations are what clients say: nonsense stops at what an int64 holds instead of failing the query.
	a.sums.Duration += min(s.GetDuration(), math.MaxInt64-a.sums.Duration)
	if s.GetProfiles() > math.MaxUint64-a.sums.Profiles {
		return fmt.Errorf("%w: %d profiles", ErrReport, s.GetProfiles())
	}
	a.sums.Period = max(a.sums.Period, s.GetPeriod())
	if s.GetProfiles() > 0 && (a.sums.Profiles == 0 || s.GetTime() < a.sums.Time) {
		a.sums.Time = s.GetTime()
	}
	a.sums.Profiles += s.GetProfiles()
	return nil
}

func (a *stacksAnswer) report() *queryv1.Report {
	if !a.some {
		return &queryv1.Report{}
	}
	s, err := StacksToProto(&a.table.Symbols, &a.tree.Tree, a.self)
	if err != nil {
		panic(fmt.Sprintf("query: weights were checked when they came: %v", err))
	}
	s.Profiles, s.Duration, s.Period, s.Time = a.sums.Profiles, a.sums.Duration, a.sums.Period, a.sums.Time
	return &queryv1.Report{Stacks: s}
}
