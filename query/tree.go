package query

import (
	"errors"
	"fmt"

	queryv1 "github.com/kilndb/kiln/api/kiln/query/v1"
	"github.com/kilndb/kiln/flamegraph"
)

// TreeToProto returns t as a report has it; both share their columns.
func TreeToProto(t *flamegraph.Tree) *queryv1.Tree {
	return &queryv1.Tree{Names: t.Names, Parents: t.Parents, NodeNames: t.NodeNames, Self: t.Self}
}

// TreeFromProto returns the tree of a report; both share their columns. It returns ErrReport, or ErrOverflow,
// if it is not a tree.
func TreeFromProto(t *queryv1.Tree) (*flamegraph.Tree, error) {
	tree := &flamegraph.Tree{Names: t.GetNames(), Parents: t.GetParents(), NodeNames: t.GetNodeNames(), Self: t.GetSelf()}
	switch err := tree.Validate(); {
	case errors.Is(err, flamegraph.ErrOverflow):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrReport, err)
	}
	return tree, nil
}

type treeAnswer struct {
	merger flamegraph.Merger
	some   bool
}

func (a *treeAnswer) add(r *queryv1.Report) error {
	if err := only(r, "tree"); err != nil || r.GetTree() == nil {
		return err
	}
	t, err := TreeFromProto(r.GetTree())
	if err != nil {
		return err
	}
	a.some = true
	return a.merger.Add(t)
}

func (a *treeAnswer) report() *queryv1.Report {
	if !a.some {
		return &queryv1.Report{}
	}
	return &queryv1.Report{Tree: TreeToProto(a.merger.Tree())}
}
