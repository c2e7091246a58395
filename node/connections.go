package node

import (
	"container/list"
	"net"
	"net/http"
	"sync"
)

// connections bounds how many connections a server has. When there is one too many, the one that has been idle for the
// longest makes room; if all are busy, the newcomer does. So clients that hold connections and do nothing keep
// nobody out.
type connections struct {
	max int

	mu   sync.Mutex // guards the rest
	open map[net.Conn]*list.Element
	idle *list.List // of net.Conn, the longest idle first; a busy one has no element
}

func newConnections(max int) *connections {
	return &connections{max: max, open: map[net.Conn]*list.Element{}, idle: list.New()}
}

// changed is http.Server.ConnState.
func (c *connections) changed(conn net.Conn, state http.ConnState) {
	if surplus := c.note(conn, state); surplus != nil {
		_ = surplus.Close() // its own goroutine finds out and says that it is closed
	}
}

// note returns the connection to close, if any.
func (c *connections) note(conn net.Conn, state http.ConnState) (surplus net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.open[conn]; e != nil {
		c.idle.Remove(e)
	}
	switch state {
	case http.StateClosed, http.StateHijacked:
		delete(c.open, conn)
		return nil
	case http.StateActive:
		c.open[conn] = nil
	default:
		if len(c.open) >= c.max && state == http.StateNew {
			surplus = conn
			if e := c.idle.Front(); e != nil {
				surplus = c.idle.Remove(e).(net.Conn)
				delete(c.open, surplus)
			}
		}
		if surplus != conn {
			c.open[conn] = c.idle.PushBack(conn)
		}
	}
	return surplus
}
