// Package body reads the bodies of requests that carry profiles over plain HTTP, and holds them to the limits of their tenant.
//
// There are two types. An Arena holds the bytes of one request: as they came, inflated, and what else is made of them. An
// Error is a refusal with its HTTP status.
//
// Bytes are counted as they are made, if the body counts: one that has a method Hold, as those behind a distributor's
// Guard do. What is refused there ends the reading.
package body
