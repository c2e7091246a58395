// Package compaction keeps the state of compaction: what waits to be merged, the jobs, and the objects that await their
// deletion.
//
// Its steps are functions of the state and a command: Assign, Complete, Fail, DeleteTombstones, Drop. They run in the state
// machine and check everything they are told, the leader and the worker included. Planner and Pick are the leader's
// side: they read the state and say what ought to be decided; the decision goes through the log as AssignJobs.
//
// # The life of an object
//
//	registered → waiting → claimed by a job → replaced (tombstone) → deleted from the bucket → forgotten
//
// An entry waits from the moment it is in the index until a job claims it, and is claimed by at most one job. Until its
// replacement commits it stays in the index, and from then on only the outputs are there: in one transaction.
//
// # The life of a job
//
//	waiting → running (token, lease) → done
//	   ↑_________|  failed, or given to the next worker because its lease ended
//
// A job's token is the log index of its latest assignment; a report with any other is refused. After MaxFailures a job
// of several sources is replaced by its two halves, so that a source which breaks every merge is found in a few steps
// and is alone in the end. That last job is parked: it is never handed out again, it keeps its source claimed, and the
// source stays in the index and can be queried. A lease that ends counts as a failure, because a merge that kills its
// worker cannot say so.
//
// Outputs that are refused become tombstones, so that their objects do not stay in the bucket.
//
// # Dropped data
//
// Drop takes datasets off entries: what is too old, or what somebody deletes. It is out of every answer from then on. An
// object of which no dataset is left becomes a tombstone; one that has others is marked, and a job of one source rewrites
// it when the mark is due, unless an ordinary merge replaces it before. A job that works on such a source begins anew: its
// worker was told of more than the entry names now, and its report would bring the data back.
//
// A drop with a selector hides series instead: the datasets that may have them carry the selector, and the entry is marked as
// well. Who merges such a dataset leaves these series out, and a dataset of which then nothing is left is in no output. A job
// may so have fewer outputs than its sources have tenants, or none.
//
// A deletion that somebody asked for is finished when none of the objects that held its data is in the bucket, nor any
// object that had been replaced before it was asked for.
//
// # The buckets
//
//	waiting      level u8, tenant, 0, shard u32, id        → registered i64, size u64
//	jobs         id                                        → kiln.storage.v1.Job
//	tombstones   replaced i64, id                          → kiln.storage.v1.Tombstone
//	replaced     id                                        → replaced i64 (finds the tombstone)
//	rewrites     id                                        → due i64, rows of samples that were dropped u64
//	rewrites-due due i64, id                               → nothing
//	deletions    id                                        → kiln.storage.v1.Deletion
//	deleting     id of a deletion, id of an object         → nothing: the object holds its data
//
// Finished jobs are not part of the state: each replica remembers the latest FinishedKept that it saw finishing, and
// forgets them when it restarts.
package compaction
