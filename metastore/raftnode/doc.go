// Package raftnode runs one member of the metastore's Raft group: the log and its files, elections, proposals, changes of the
// group, reads that are up to date, and an honest answer to whether it could serve.
//
// A group of one talks to itself in memory and elects itself within a tenth of a second. More members are a matter of
// Config: an address for members, and the addresses of the others.
//
//	<dir>/log.db        log, vote and the member's id, raft-boltdb; synced before anything is acknowledged
//	<dir>/snapshots/    the latest snapshots
//
// # How a group comes to be
//
// Members that have no log ask each other (joinLoop). When all of them answer and none has one, the one with the least address
// makes the group of all. When one of them has a log there is a group already: the others ask its leader to be taken in, as
// learners, and vote when they have caught up. So it does not matter which of them starts first, and a member that comes back
// with an empty disk is a new member: ids are kept in the log and nowhere else, streams say whom they are for, and the leader
// removes the one that it was before it takes it in. A member that was removed says so and stays out.
//
// The address for members (port) carries Raft's streams and calls of PeerService; over TLS if its Network is. Both say
// which cluster they belong to.
//
// # What a proposal's outcome means
//
// Apply tells a definite refusal from not knowing. After NotLeaderError nothing was written and the call may be
// repeated elsewhere. After ErrUnknown the command may or may not be applied, now or later, and only a command that can be repeated safely may be.
// There is no timeout around log writes: a write that may still land is not a failure. One that hangs ends a member of a
// group with ErrStuck, after it has been cut off from the others, who would otherwise follow its heartbeats; a member
// alone waits.
//
// # Reads
//
// ReadIndex returns once all that was acknowledged before the call is applied here. A leader makes sure that it still leads, by a
// round of heartbeats; a follower asks the leader to. Whoever reads while a question is under way shares the next one.
//
// # When the state machine cannot go on
//
// A halted state machine stops this member: it leaves the leadership and Err says why, until somebody installs a build
// that understands the log. The process goes on, so that it can be asked. A leader that cannot store what it commits, because its
// disk is full, has another member lead.
package raftnode
