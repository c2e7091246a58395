// Package placement finds out which tenants and services are too much for one shard.
//
// The leader shows a Watch every segment that it registers. What each service stores a second, averaged over a minute, says how many
// shards it needs; Rules is the answer that distributors follow. They take more shards as soon as the rate asks for it, and fewer only
// when it has been far below for a while, so that services do not move to and fro: where a service is in
// two shards, its symbols are stored twice and its flame graphs read twice as many objects.
//
// Nothing depends on it that all see the same rules, or any: they say where a profile is best kept, and it is found wherever it is. So
// they live in the leader's memory, and a new leader says nothing before it has watched for a while.
package placement
