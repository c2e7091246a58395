// Package snapshots keeps snapshots of the metastore's state in the bucket, where they outlive every disk.
//
//	snapshots/metastore/{ulid}        the bytes of a Raft snapshot, as package fsm draws them
//
// The name says which state it is: the ULID's time is the time of the last command in it, and the first eight of the
// ten other bytes are its log index. So the order of names is the order of states, whatever the clock of the member
// that wrote one, and however long it took.
//
// Put stores one, List finds them, Open reads one, Prune leaves the newest. Whether one is sound is known when it has
// been read to its end: fsm.CheckSnapshot and fsm.Restore say so.
package snapshots
