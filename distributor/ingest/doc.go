// Package ingest reads what the profiling SDKs send to POST /ingest: a profile as the body or as a part of a form, and
// everything said about it in the query.
//
// There are two types of note. A Handler answers the requests; an Upload is the profile it found in one, which it
// hands to a Store. The door for all writes, package distributor, is that store: limits, decoding and validation
// happen there, the same as for every other way in.
//
// # The query
//
//	name             app{label=value,...}: the program, and labels of its profiles
//	from, until      when the capture began and ended; see ParseTime. Missing: now
//	spyName          the SDK, kept as the label pyroscope_spy
//	format           pprof, or missing with a form. The other formats that SDKs know are refused by name
//	sampleRate, units, aggregationType
//	                 describe formats that cannot describe themselves; checked, but pprof needs none of them
//
// # The body
//
// A pprof, or multipart/form-data with the parts profile and, optionally, sample_type_config: JSON that says of some
// sample types how to show them. Either may be gzipped, with or without a Content-Encoding that says so. A form with
// the part prev_profile is refused: its client expects the server to subtract one cumulative profile from the next.
//
// # Sharp edges
//
// display-name of sample_type_config decides the kind of the profile (its __name__: mutex, block, goroutines), as it
// always has; it does not rename the columns, nor does units. A heap profile of an SDK is so of the same type,
// memory:alloc_space:bytes:space:bytes, as one that an agent scraped. Values are stored as sent: cumulative is read and
// changes nothing.
//
// Clients take every status but 200 for a failure, and drop the profile: 200 is sent only once it is durable.
package ingest
