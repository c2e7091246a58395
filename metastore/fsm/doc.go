// Package fsm is the replicated state machine of the metastore: what the Raft log says, applied to one bbolt file.
//
// An FSM owns the file, the order of things and the promises; what a command means is said by the Components and
// Commands it is given. Each batch of log entries is one bbolt transaction that also stores the index and term of its
// last entry, so replaying the log after a restart changes nothing: entries at or below that index are skipped.
//
// # The rules for handlers
//
// A handler is a function of the transaction, the entry and its command. It may use no clock (Entry.Time is the only
// one), no randomness, no map order and no I/O but the transaction. A refusal is its result; an error means that this
// replica cannot go on, and stops it. What a component keeps in memory changes in Commit, after the transaction is
// durable, and is rebuilt from zero by Load.
//
// # When it cannot go on
//
//   - An unknown command, a version above this build's, a command of another cluster, or a handler that fails or
//     panics halts the replica: nothing later is applied, Halted says why. Skipping would make it differ.
//   - A transaction that cannot be committed (a full disk) is tried again until it can be; Stalled says so meanwhile.
//   - A state file that cannot be read is set aside under the name *.corrupt when it is opened, and the FSM starts
//     empty: the Raft snapshot and log rebuild it.
//
// # A snapshot's bytes
//
//	"KSNP" version u8
//	zstd frame of
//	    'B' uvarint length, name                           a bucket; the pairs that follow are its own
//	    'P' uvarint length, key, uvarint length, value     in the order of the keys
//	    'E' u64 number of pairs, u32 CRC-32C of everything before the E
//
// Buckets come in the order of their names, so equal states have equal streams. Restoring writes a new file, which is
// also how a file that has grown becomes small again.
package fsm
