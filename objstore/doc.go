// Package objstore is the bucket: named objects of bytes, written once and whole, read by range.
//
// The roles are small, so that a caller may ask for no more than it uses: Getter, Putter, Lister, Deleter. A Bucket
// plays all of them. Object turns one key of a bucket into something that is read by range and knows its size.
//
// The providers are sub-packages: file (a durable local directory), memory (a map), cloud (S3 and what speaks like
// it). So are the wrappers, which take a Bucket and are one: metered counts, retried repeats. Package open chooses a
// provider by URL. Package objstoretest holds the suite that every provider passes, and a bucket that fails on command.
//
// # What every bucket promises
//
//   - All methods may be called concurrently, also for the same key.
//   - A put is atomic: readers see the whole old object, the whole new one, or none; never a piece.
//   - A put is durable when it returns nil. When it returns an error other than ErrExists or ErrKey, the object may
//     or may not have been stored; never a part of it.
//   - What was put is seen by every get and list that starts afterwards.
//   - A short object is an error, never a short read.
//   - Bytes are copied: a caller may reuse what it passed in, and owns what it got.
//   - Every method returns soon after its context ends, with an error for which errors.Is finds the context's error.
//
// # Sharp edges
//
// Keys are a narrow set, the one that every store takes without escaping; see CheckKey. A key that is also a folder of
// another key ("a" and "a/b") works in the cloud and in memory but not in a directory: do not use such names.
//
// PutIfAbsent and a lost answer: where a store or its client repeats a request whose answer was lost, the repeat
// finds the object of the first and reports ErrExists to the very caller who wrote it.
package objstore
