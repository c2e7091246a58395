// Package process measures a whole kiln, every role in one process on a local bucket, from outside: a real server
// takes real pushes, fsyncs, registers and compacts while its CPU and memory are read from the operating system.
//
//	go test -run '^$' -bench . -benchtime 1x ./benchmarks/process
//
// Cost is CPU per byte of raw pprof, in units of what only gunzipping the same bytes costs in this process (klauspost/compress,
// everything reused). The clients' CPU is not counted, but they share the cores: capacity is what is left.
package process
