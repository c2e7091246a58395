// Package delta turns counters that run since a program started into what happened between two profiles.
//
// There are two types. A Tracker remembers for every series what its last profile counted; Take replaces the values of
// a profile by their difference to it. The answer is a Change: how the memory of the series moved. Whoever took it must
// say by Settle whether the profile became durable. If not, the memory moves back, so that the client's next attempt
// counts what this one did not.
//
// Only profiles whose series has __delta__="true" are touched, and of those the columns that count: all of block and
// mutex, and sample types that start with alloc_. What is in use at a moment is no counter.
//
// # What a profile counts for
//
//   - The first of a series is a baseline: its counters become zero. So does one that comes after so long a gap that
//     profiles in between may have gone to another writer, where they were counted.
//   - If any stack counts less than before, or is gone, the program was started anew: the values are the difference.
//   - One that is as old as the last or older counts zero: what it would count is in the difference of the one that
//     overtook it.
//   - A copy of one of the last few, known by its time and id, counts the same again: copies collapse when they are
//     compacted. So does one with the time of a profile that failed after a newer one had been taken.
//
// Stacks are compared by content, not by their numbers, which differ in every profile.
//
// # Sharp edges
//
// The memory is lost when the process ends, and with it one interval of every series. It is bounded per tenant and in all;
// series that were not seen for longest go first, and begin again with a baseline.
//
// Two programs that push under the same labels look like one that is started anew all the time, and all that they ever
// counted is stored with every profile. Labels must tell them apart.
package delta
