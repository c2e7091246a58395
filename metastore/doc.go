// Package metastore is the replicated index of every object, and the leader's side of compaction.
//
// Metastore is one member of the group. It serves IndexService (registering and finding objects; IndexPagesService is the
// same for those who are elsewhere), MembershipService (who is there; MembershipWatchService tells of every change),
// WorkerService (compaction jobs) and JobService (showing them). Beneath it are
//
//	raftnode     one member of the Raft group
//	fsm          the state machine: one bbolt file, commands, snapshots
//	index        the entries, and the view that queries read without a lock
//	snapshots    snapshots of the state in the bucket
//	rebuild      which objects an index has that is put together from the bucket alone
//	fsck         compares the bucket with the index
//	compaction   what waits to be merged, jobs, tombstones, deletions: steps of the state machine and the leader's planner
//	client       finds the leader, over a list of addresses
//
// What is durable goes through the log. What can be lost lives in the leader's memory, a term: the members and their
// leases, those who watch them, renewals of job leases, workers that wait for a job. A new leader starts with none of it:
// members announce themselves again, and running jobs get one more lease before somebody else may have them.
//
// # Loops
//
// Run keeps these going: appendLoop batches concurrent registrations into one log entry, always; dispatchLoop plans jobs and hands
// them out, changeLoop tells watchers of members whose leases have ended, shippingLoop stores snapshots of the state in the bucket, deletionLoop deletes what was replaced, retentionLoop drops what is too old, and sweepLoop
// finds objects that nobody names, while this member leads.
//
// Nothing leaves the bucket before a snapshot that is in it says why: so the newest snapshot and the objects together are
// always a whole index.
//
// # Errors
//
// FAILED_PRECONDITION with a NotLeader detail: nothing happened, ask there. ABORTED: the outcome is not known; repeat what
// can be repeated. UNAVAILABLE: nothing happened, and this member cannot serve. FAILED_PRECONDITION without the detail: the
// state refuses it. INVALID_ARGUMENT: it is wrong and stays wrong. OUT_OF_RANGE: data of that time was dropped.
package metastore
