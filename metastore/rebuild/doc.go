// Package rebuild decides which objects of a bucket an index has that is put together from the bucket alone.
//
// Choose is given what the newest sound snapshot knows, if there is one, and the footers of all objects that it does not
// know. It says which objects are entries, so that every profile which was acknowledged is in exactly one of them.
//
// # The rules
//
// What the snapshot says holds: its entries were entries, and what it knows besides was replaced or refused and stays
// out. A segment that it does not know was stored later, or was never registered; both may be entered.
// For a block it depends on its sources:
//
//   - One source was out already when the snapshot was taken: another attempt had won. The block is an orphan.
//   - One source is an entry that had lost data: to a deletion, or to retention. The block may be older than that and bring
//     it back, so its sources are taken, which are all there. Only if one is gone, and the snapshot thus is not the newest,
//     the block is treated as any other.
//   - The block is named as a source by another. Only entries are merged, so it was one, and its sources are replaced.
//   - One of its sources is replaced, or is gone from the bucket, which happens only to what was replaced: then the job
//     was done. Of several blocks with the same source and tenant one is taken: from the same sources comes the same
//     content. It is the one with the most sources, or else the smallest id.
//   - All of its sources are there and nothing tells whether the job was done. Then the sources and the outputs are two
//     ways to say the same. The outputs are taken if they are complete: together they have every tenant of every source
//     exactly once. If not, a worker died between two of them, and the sources are taken.
//
// # Sharp edges
//
// That an object which is missing had been replaced is only true as long as nothing is deleted before a snapshot in the bucket
// knows why, and as long as that snapshot can be read. With an older one, or none, an output of a lost attempt may look
// like the only one left: such blocks are in Plan.Doubtful.
package rebuild
