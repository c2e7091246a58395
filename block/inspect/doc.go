// Package inspect takes an object apart: what is in it, what each byte is for, and whether every promise of
// docs/formats/block.md holds.
//
// Inspect makes a Report: the footer's facts, the sections of each group with the size of every column, and the
// datasets with the bytes that each costs. Verify reads all of an object and lists Problems. Alone gives the entry
// of one group of an object, for whoever goes through a large object without keeping all of it.
//
// Sharp edges. Inspect checks only what it has to read; a section that it cannot take apart is in the Report with
// its problem and without columns. A section of a type unknown here is measured, and its CRC is checked, but
// not what is inside. Verify does not check what can only be understood with a section it has found damaged.
package inspect
