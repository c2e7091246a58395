// Package node is one process of kiln: it opens the roles that the process was asked to play and wires
// them to each other, in memory where both ends are here, over the network where they are not.
//
// Open reads from top to bottom as the list of what a node is made of. Nothing is decided here but where
// the other end of a call lives.
package node
