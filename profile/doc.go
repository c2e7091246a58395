// Package profile is a profile in memory: names, stacks, samples and sample types as flat arrays that are
// filled, interned and merged without an allocation per item.
//
// Symbols are the tables of names. A Profile is one capture as it came (package profile/pprof reads and writes
// the wire form); Normalise prepares it for storage. A Table collects the symbols of many profiles and gives each
// distinct name and location one number, a StackSet does so for stacks, and a TreeBuilder merges
// stack trees. A Builder makes a Profile of stacks of names. Type and Kind say what the values mean, and a
// SeriesFilter which series a selector means. Nothing here knows of time, disks or networks.
//
// Numbers are 32 bits wide and references are not checked: whoever fills Symbols from bytes has validated them.
// The types keep their memory from one use to the next; Bytes says how much, so that owners can let go of what
// one large profile left behind.
package profile
