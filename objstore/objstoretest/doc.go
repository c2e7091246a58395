// Package objstoretest helps to test buckets and what is built on them. Run is the suite that every provider and every
// wrapper passes; Faulty is a bucket that fails by name, at the step and as often as a test says.
package objstoretest
