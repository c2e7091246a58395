// Package querybackendtest is a small kiln without a write path, in memory: it turns profiles into real objects and
// keeps the list of them that an index would keep. Only tests import it.
//
// A Store is the bucket and the index. Segment writes one segment, Compact merges a tenant's segments into a block.
package querybackendtest
