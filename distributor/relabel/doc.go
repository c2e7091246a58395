// Package relabel changes the labels of profiles on their way in, and drops some, by rules that a tenant is given.
//
// A rule is one of Prometheus, with its syntax and meaning. There are two lists of them. The rules for sample types see
// the labels of the series and, as __type__ and __unit__, one column of values; what they make of these two becomes the
// column's name, and a column that they drop is not stored. The rules for series see the same and decide the labels.
// They may make different labels of the columns of one profile; Apply then returns it in Parts.
//
//	default_rules: first              # or last, or disabled
//	series:
//	  - source_labels: [namespace]
//	    regex: test-.*
//	    action: drop
//	sample_types:
//	  - source_labels: [__type__]
//	    regex: inuse_objects
//	    action: drop
//
// Rules are what became of such a text; Tenants are those of many. Both are values, checked as a whole when they are
// made, and safe for concurrent use.
//
// # The default rules
//
// They hold for everybody who does not disable them, before or after the rules of the tenant:
//
//   - a kind godeltaprof_X, which agents take over from the name of the handler they ask, becomes X, and __delta__
//     becomes false: the program computed differences itself;
//   - the column cpu of a profile of kind wall becomes one of kind process_cpu.
//
// The kind that was replaced is left in __name_replaced__, for the rules that follow; it is not stored.
//
// # Sharp edges
//
// Rules run before limits are checked, so that they can drop what is too much. Labels that samples carry are not seen by
// them.
package relabel
