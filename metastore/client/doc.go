// Package client finds the leader of the metastore, over a list of addresses, some of which may be names that stand for others.
//
// Client implements the generated client interfaces, so that a role does not know whether it talks to a metastore
// in its own process or to a group of them. It follows the leader's address where an answer names it, tries the other
// addresses where there is none, and pauses with jitter in between, for as long as the call's context allows (callers
// without a deadline: GiveUp).
//
// A process that plays the metastore in a group of several has a Client beside it: calls go to its own member directly while
// that leads, and to the leader otherwise; Find is answered by its own member in any case. Every call to another process bears the
// header PassedOn, by which a process that would pass it on as well knows to answer it itself, and the tenant of the context,
// without which a door that the metastore shares with tenants lets nobody in.
//
// # What is repeated
//
// A refusal by a node that does not lead is always repeated elsewhere: nothing happened there. UNAVAILABLE is repeated, and so
// is ABORTED, the outcome that is not known, because every call of these services may be made twice: segments and reports
// of jobs are recognised by their ids. A Fail that is repeated may find that it has worked the first time, which it reports
// as FAILED_PRECONDITION. All other errors are returned as they are.
//
// # Streams
//
// Find gathers the pages of an answer; if they break off, it asks for the whole answer again, because what is missing would be
// of another view. Watch opens its stream at the leader and follows it.
package client
