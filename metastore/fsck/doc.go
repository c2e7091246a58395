// Package fsck compares the bucket with the index: every entry must be an object that is as the entry says, and what no
// entry and no tombstone names is an orphan.
//
// Check does it beside a system that works. Objects come and go meanwhile, so what looks wrong is looked at again: an entry
// is only missing its object if it is still an entry afterwards, and an object that nobody names is only an orphan when
// it is old enough to have been registered.
//
// Orphans are no damage: attempts that died leave them, and the metastore's leader sweeps them. Problems are.
package fsck
