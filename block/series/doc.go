// Package series is the byte form of the label sets of a group (a SERIES section): names and values interned
// as strings, and per series the pairs, sorted by name. The index of a set is its series id in the group.
package series
