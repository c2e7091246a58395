// Package raftnode runs one member of the metastore's Raft group: the log and its files, elections, proposals, reads
// that are up to date, and an honest answer to whether it could serve.
//
// A group of one talks to itself in memory and elects itself within a tenth of a second. More members are a matter of
// Config: an address to listen on and the list of members.
//
//	<dir>/log.db        log and vote, raft-boltdb; synced before anything is acknowledged
//	<dir>/snapshots/    the latest snapshots
//
// # What a proposal's outcome means
//
// Apply tells a definite refusal from not knowing. After NotLeaderError nothing was written and the call may be
// repeated elsewhere. After ErrUnknown the command may or may not be applied, now or later, and only a command that can be repeated safely may be.
// There is no timeout around log writes: a write that may still land is not a failure.
//
// # Reads
//
// ReadIndex returns once this node has made sure that it still leads, and that all that earlier leaders acknowledged is
// applied here. Whatever is read from the state machine after that is at least as new as every write acknowledged before
// the call.
//
// # When the state machine cannot go on
//
// A halted state machine stops this member: it leaves the leadership and Err says why, until somebody installs a build
// that understands the log. The process goes on, so that it can be asked.
package raftnode
