// Package jfr reads recordings of the Java Flight Recorder, as the JVM and async-profiler write them, into profiles.
//
// There are three types of note. Parse turns the bytes of a Recording into its Profiles, one for each kind of event that
// has samples; a Snapshot is the table of labels that an agent may send beside a recording.
//
// # The format
//
// A recording is one or more chunks, each whole in itself:
//
//	header     68 bytes: "FLR\0", version, size, where the last checkpoint and the metadata are, time, ticks per second
//	event      size (varint), class (varint), the fields of that class
//	event ...
//
// Two events are special. The metadata (class 0) says what classes there are and which fields they have, so that
// fields that are not known can be passed over. A checkpoint (class 1) holds constants: stacks, methods, classes and
// symbols by number, to which the other events refer. Integers are varints of at most nine bytes, the ninth whole.
//
// # What becomes of events
//
//	jdk.ExecutionSample              process_cpu cpu, unless the thread slept; also wall if the recording samples wall time
//	profiler.WallClockSample         wall; also process_cpu if the recording samples wall time and the thread ran
//	jdk.ObjectAllocationInNewTLAB    memory alloc_in_new_tlab_objects, alloc_in_new_tlab_bytes
//	jdk.ObjectAllocationOutsideTLAB  memory alloc_outside_tlab_objects, alloc_outside_tlab_bytes
//	jdk.ObjectAllocationSample       memory alloc_sample_objects, alloc_sample_bytes
//	profiler.Malloc                  memory malloc_objects, malloc_bytes
//	profiler.LiveObject              memory live
//	jdk.JavaMonitorEnter             mutex contentions, delay
//	jdk.ThreadPark                   block contentions, delay
//
// # Sharp edges
//
// Frames are named as class files name classes, java/lang/Thread.run, without the descriptor. Names that the JVM makes up
// anew in every process, such as those of lambdas, lose what is random in them.
//
// Whatever the input says, it is read once from front to back, nothing is allocated by a length that it names,
// and what is kept is bounded: maxConstants, and the limits that Parse is given.
package jfr
