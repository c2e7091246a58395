// Package profile is a profile in memory: names, stacks, samples and sample types as flat arrays that are
// filled, interned and merged without an allocation per item.
//
// Symbols are the tables of names. A Profile is one capture as it came (package profile/pprof reads and writes
// the wire form). A Table collects the symbols of many profiles and gives each distinct name, location
// and stack one number. Nothing here knows of time, disks or networks.
package profile
