// Package compactionworker merges objects: it takes a job, reads the sources, writes one block per tenant, and reports.
//
// There is one type, Worker. It keeps nothing that it cannot lose: a job that it drops goes to another worker when the lease
// ends, and what it had uploaded is named by nobody.
//
// # What it promises
//
//   - A job succeeds only as a whole: every source was read and its checksums were right, every output is durable in the
//     bucket. Otherwise it fails with a reason that names the source.
//   - Each attempt writes objects of its own, with new ids. An object that was reported is never touched again.
//   - A small source takes one request of the bucket, whatever is read of it.
//   - It stops working on a job whose lease it lost.
//   - Memory: a job takes no more than Config.Memory, whatever its sources, or fails with block.ErrBudget; an output beyond
//     Config.MemoryBuffer goes to a temporary file, and one beyond Config.MaxOutput fails its job.
//
// # Sharp edges
//
// A report whose answer is lost is not taken back: the metastore may have accepted it, so its outputs are left alone. They are
// either in the index, or orphans for the sweep.
package compactionworker
