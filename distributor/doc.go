// Package distributor is the door for writes: it checks profiles, chooses their shards and answers for each of them.
//
// There is one type, Distributor. Push is the RPC push.v1.PusherService/Push, Ingest the HTTP handler of POST /ingest,
// OTLP that of OpenTelemetry's protocol; all end in the same steps for every profile: decode, name, validate, normalise,
// give it a time, hand it to a SegmentWriter, wait until it is durable. A profile is decoded once, into memory that the next
// one uses again. One that did not come as pprof is filled in by whoever read it, and held to the limits of the decoder.
//
// # What an answer means
//
// A push succeeds if and only if every profile of it is durable; one without profiles has nothing to lose and succeeds.
// If it fails, the good profiles are stored all the same; the message names each one that is not, and why. Its code is
// the worst among them, where what passes by itself is worse than what never will: a sender that repeats the push because
// of an outage will lose nothing, and the profiles that have ids of their own count once. A request that is refused as
// a whole (no tenant, too many series or bytes) stores nothing.
//
// A profile that has no samples left after normalising is answered as durable and leaves no trace, as does one whose
// samples are all zero or negative; metrics count what is dropped.
//
// # Labels
//
// A series needs __name__, the kind of its profiles. Without service_name it belongs to unknown_service. A label with an
// empty value is a missing label. Other private labels are accepted and not stored; __session_id__ is gone before a shard
// is chosen, and __delta__="true" has the segment-writer take differences of cumulative profiles.
//
// Rules of the tenant change the labels and the sample types, or drop a profile, which is answered as a success: see
// package relabel, also for the rules that everybody has. Limits are checked after them. Where rules tell the columns of
// a profile apart, it is stored in pieces, and durable when all of them are.
//
// # Sharp edges
//
// Names in a profile type are joined by colons, so a kind, a sample type or a unit with a colon is refused: nobody could
// ask for it. So are sample types that occur twice.
//
// A profile without a time gets ours. Profiles that are sent without an id get a random one, so that a sender which
// repeats them counts them again.
package distributor
