// Package file is a bucket in a local directory: one file per object, in folders named as in the key.
//
// A put writes a temporary file beside its target, syncs it, renames it into place (PutIfAbsent: links it, which fails
// where there is one already) and syncs the folder; where folders had to be made, theirs too. Only then does it return,
// so what it stored survives a power cut as far as the disk honours a sync. Puts into one folder at the same time share
// the syncs of that folder.
//
// Several processes may use one directory. Each reaches its files through os.Root, so that neither a key nor a
// symbolic link leads out of it.
//
// # Sharp edges
//
// A temporary file is named with a tilde, which no key has: it is never listed and never read. The writer holds a lock
// on it, by which Open knows those that a crash left behind, and removes them. Where the system or the file system has
// no such locks they stay.
//
// Folders are never removed, not even empty ones: a writer in another process may count on them being durable.
//
// Where a file system ignores case, keys that differ in nothing else are one object.
package file
