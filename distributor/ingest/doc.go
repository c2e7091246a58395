// Package ingest reads what the profiling SDKs send to POST /ingest, in any of their formats, and what they say about it in
// the query. docs/ingest.md is the page for its users.
//
// There are two types of note. A Handler answers the requests; an Upload is a profile it found in one, and hands to a
// Store with all others of the request. The door for all writes, package distributor, is that store: limits, decoding and
// validation happen there, the same as for every other way in.
//
// # The formats
//
// A pprof is passed on as it is: decoding it is the store's business. All others become a profile.Builder here, one for
// each profile, and the store is given a function that fills a profile from it. Each format is a file:
//
//	folded.go      groups and lines: text, a line for each stack
//	tree.go        tree and trie: nodes in preorder
//	speedscope.go  JSON, one profile for each unit
//	jfr/           recordings of the JVM, one profile for each kind of event
//
// stacks.go holds what the first three share: a builder that never grows beyond the limits of a tenant, and what the ending of
// a program's name says about values whose format does not say what they count. spy.go mends what some SDKs send.
//
// # Sharp edges
//
// display-name of sample_type_config decides the kind of the profile (its __name__: mutex, block, goroutines), as it
// always has; it does not rename the columns, nor does units. A heap profile of an SDK is so of the same type,
// memory:alloc_space:bytes:space:bytes, as one that an agent scraped. Values are stored as sent: cumulative is read and
// changes nothing.
//
// Clients take every status but 200 for a failure, and drop the profile: 200 is sent only once everything in the request
// is durable. A recording without an event that is stored has nothing to lose and gets it at once.
package ingest
