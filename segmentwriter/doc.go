// Package segmentwriter gathers profiles for a moment and writes them as one object.
//
// A Writer has a shard for every shard id it is asked for. A shard gathers what is appended to it in one segment, a
// part per tenant, until the segment is cut; then the segment flies: it is encoded, put into the bucket and registered
// with the index, while the shard gathers the next. A push is durable, and its wait returns nil, once both the bucket
// and the index have said so; never before.
//
// Service is the door for distributors of other processes; package client is its other end. A distributor in the same
// process calls the Writer itself.
//
// # When a segment is cut
//
// When gathering more would save nothing any more; else when it falls silent, or after the linger. A push that comes alone
// is flushed at once, and what comes during its flight shares the next (group commit). Where pushes keep coming they are
// waited for until all who push have pushed: the silence that says so follows the pace at which they come. So twenty
// pushes a second cost two flushes, and clients that wait for their answers are all in one segment, however many they are.
// A budget of puts, for buckets where each costs money, makes small segments wait longer.
//
// # Cumulative profiles
//
// Profiles that count since their program started (__delta__="true") are stored as the difference to the one before;
// package delta remembers what that was. It moves on with a push that succeeds and back with one that fails, before the
// push is answered.
//
// # What fails together
//
// Encoding fails per tenant: the segment is written without the part that cannot be, and only its pushes fail. When
// the bucket or the index fail, all pushes of the segment do. A put is repeated with the same key and bytes, and an
// entry is proposed again under the same id, which the index takes once; so an unknown outcome is resolved if there
// is time. If not, the pushes fail as Unavailable: their profiles may be stored, or an object without an entry may
// remain, which a sweep of the bucket finds. Nothing here ever writes a profile a second time under another id.
//
// A put that takes much longer than others do is made a second time beside the first, and the first success counts;
// a small share of puts may be. Retries are no more than puts that succeed, and a credit: an outage is not multiplied.
//
// # Sharp edges
//
// Memory is bounded over everything gathered and in flight. Above the bound Append refuses with ResourceExhausted at
// once; it does not queue.
//
// Whoever makes a Writer must call Run; it ends once the last flight has landed. Drain, called when the doors begin to close,
// lets those inside have their answers soon.
package segmentwriter
