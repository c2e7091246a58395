// Package querybackend executes plans: it reads the sections of a few objects and makes a report of them.
//
// There is one type, Backend, with one method, Invoke, that executes a node of a plan and all below it. A leaf reads
// the datasets of its entries (dataset.go) and makes of them what the question asks: a tree or stacks (weights.go),
// time series (timeseries.go), or names, values and sets of labels (labels.go). An inner node has its children
// executed and merges their reports.
//
// What it promises. Only datasets of the tenant in the request are read, whatever the plan says, and series that an entry says
// were deleted are left out of every report and of what it cost. A report is whole: a
// missing object is CodeNotFound, damaged bytes are CodeDataLoss, each naming what it was, and never a smaller sum.
// Work is bounded: leaves wait for one another beyond Config.Leaves, and a request that would decode more than
// Config.MaxDecodedBytes fails with CodeResourceExhausted. When the caller leaves, work stops at the next dataset.
//
// Sharp edges. The bytes a request decodes are counted over its whole life, not at one moment; what is held at one
// moment is at most Config.Leaves times Config.Entries objects. Profiles are counted once for all series that their
// sample labels split them into, which is known within one dataset: rows of one profile are never in two.
package querybackend
