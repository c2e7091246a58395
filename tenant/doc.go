// Package tenant says who is asking, and how much they may ask for.
//
// An ID names a tenant; it rides in the context of a public call, and nothing that reads or writes data
// does so without one. Limits are the bounds that a tenant's requests keep to. Both are values.
package tenant
