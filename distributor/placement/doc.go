// Package placement decides where a profile goes: which shard takes its series, and which writers may take the shard.
//
// Ring.Shard goes from tenant to service to series and hashes consistently at each step, so that a service stays
// in few shards and a change of a number moves no more than it must. Rules are the numbers: one shard for a tenant, more for those that the
// metastore has seen to be too much for one. A Map gives every shard an owner among the
// members, none of whom has much more to do than the others, and an order of the others, in case the owner cannot be reached.
//
// Everything here is a pure function of its arguments: two nodes that see the same members decide alike, without
// talking to each other. The hashes are part of that agreement and must not change.
package placement
