// Package flamegraph is arithmetic on trees of weight: build, merge, compare, truncate and encode them.
//
// A Tree is a call tree with the weight of each node, as columns. Build and BuildUnsorted make one from sums
// per stack, a Merger adds any number of them, Truncate and Diff prepare them for the eye, and FlameGraph,
// TreeBytes, Folded, Speedscope and DOT write them down. Nothing here knows where a tree came from or who
// will draw it.
//
// A tree has one form only: names ascending and distinct, nodes in preorder, siblings ascending by name.
// Equal trees are therefore equal columns, and merging is a walk with cursors that only move forward.
//
// Weights are never negative, and the total of a tree fits an int64: whatever makes a tree checks this and
// returns ErrOverflow, so that no sum inside a tree can overflow. A tree that came from elsewhere has to
// pass Validate before anything else here may see it. Trees are not changed once made and may be shared.
package flamegraph
