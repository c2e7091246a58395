// Package memnet is a network inside a process, for tests and for programs whose parts speak HTTP to each other without
// a port. There are two types of its own: Network, and the Addr of its listeners; listeners and connections are those
// of package net.
//
// Connections are streams with a bounded buffer and with deadlines, in each direction, so that HTTP/1.1 and HTTP/2
// run over them as over TCP. A dial is answered when the listener accepts it: there is no backlog.
//
// A network can be cut at an address with Partition. As with a real cut nobody is told: what is sent stays on the way
// until the cut is healed, and dials wait.
package memnet
