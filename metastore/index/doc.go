// Package index is the record of every object that kiln can answer from, by data time.
//
// There are two halves. In bbolt, written only by the state machine: "entries", the BlockMeta of each live object, less the
// datasets that were dropped from it, under
// the 16 bytes of its ULID, and "seen", every id that was registered in the last Window, so that registering an object
// twice counts it once, also after a compaction has replaced it. In memory: View, an immutable value that is replaced
// as a whole when a transaction is durable. Find reads a View without a lock, and sees all of a compaction's swap or
// nothing of it.
//
// A View is three levels of persistent trees: tenant, service, and the service's datasets ordered by time. Adding an
// entry copies the path to each of its datasets and shares the rest; a path is copied once in a transaction, which changes
// its own copies in place. A tree knows the range of time of every tree below it, which is how Find skips what cannot
// overlap.
//
// An entry is kept as the bytes that are stored until a query finds it, and as a message from then on: most are never asked
// for. See docs/decisions/0026-an-entry-is-bytes-until-it-is-asked-for.md.
//
// # Dropping
//
// Drop takes the datasets of a tenant or a service off their entries, and stores a floor: a dataset whose newest profile is
// older than its floor is not registered any more, so that late data does not bring back what was deleted. Floors only
// rise, and there is one per service or tenant of which anything was ever dropped. A dataset of which some rows are below
// the floor stays whole.
//
// A drop with a selector hides series, not datasets: each dataset that may have one of them, by the rules of Find, carries the
// selector from then on, and whoever reads the object leaves these series out. No floor rises: the same series may be pushed
// again. A dataset carries at most MaxExcluded selectors, until its object has been rewritten without these series.
//
// # Sharp edges
//
// Messages that Find returns are shared with everybody: they must never be changed. Within a transaction a view changes the
// trees of the one before: only the newest may be used. The set of seen ids forgets what is older than Window; an unknown id
// that is older, or as far in the future, is refused, because it could be one that was forgotten.
package index
