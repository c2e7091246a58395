// Package queryfrontend answers questions about profiles: it speaks the querier.v1 API that Grafana and its clients
// know.
//
// There is one type, Frontend. Every call goes the same way: the request is checked and turned into a
// query.Question (request.go), the index is asked which objects may hold the answer, a plan over them is executed by
// a query-backend (ask.go), and its report is truncated once and encoded. Questions that index entries alone can
// answer read no object at all (catalogue.go).
//
// A Frontend keeps nothing between calls and starts no goroutine that outlives one. An answer is whole or an error:
// an object that is gone makes it plan once more, an object that cannot be read fails the call.
//
// Sharp edges. Times on the wire are whole Unix milliseconds, both ends included; inside they are half-open ranges
// of nanoseconds. Several selectors of one request must all hold. What the API has and kiln has not yet (heatmaps,
// asynchronous queries) is refused as unimplemented and never left out silently.
package queryfrontend
