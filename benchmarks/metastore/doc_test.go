// Package metastore measures the index: how fast entries are committed, how fast a plan is found while they arrive, how
// long a start takes, and what an entry costs in memory.
//
//	go test -run '^$' -bench . -benchtime 1x -timeout 30m ./benchmarks/metastore
//
// The group is one member, or three on loopback, with a real log and a real state file, on the disk of the temporary directory. An entry is a
// segment of two services with one kind each. Figures of time depend on the disk and on who else uses the machine: they say
// whether a budget is met, not how two builds compare.
package metastore
