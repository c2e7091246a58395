package memnet

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

var _ net.Conn = (*conn)(nil)

// conn is one end of a connection.
type conn struct {
	in, out       *pipe
	local, remote Addr
	cut           *cut
	once          sync.Once
}

// newPair returns both ends of a connection to the listener at a.
func newPair(a Addr, c *cut) (near, far *conn) {
	const dialler = Addr("dialler")
	there, back := newPipe(), newPipe()
	c.add(there)
	c.add(back)
	near = &conn{in: back, out: there, local: dialler, remote: a, cut: c}
	far = &conn{in: there, out: back, local: a, remote: dialler, cut: c}
	return near, far
}

// Read implements net.Conn.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.in.Read(b)
	return n, c.wrap("read", err)
}

// Write implements net.Conn.
func (c *conn) Write(b []byte) (int, error) {
	n, err := c.out.Write(b)
	return n, c.wrap("write", err)
}

// Close ends both directions: our own calls fail from now on, the other end reads what was sent and then io.EOF.
func (c *conn) Close() error {
	err := c.wrap("close", net.ErrClosed)
	c.once.Do(func() {
		c.out.closeWrite()
		c.in.closeRead()
		c.cut.forget(c.in, c.out)
		err = nil
	})
	return err
}

// LocalAddr implements net.Conn. All who dial have the same address.
func (c *conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.in.setReadLimit(t)
	return nil
}

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.out.setWriteLimit(t)
	return nil
}

func (c *conn) wrap(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return &net.OpError{Op: op, Net: c.local.Network(), Source: c.local, Addr: c.remote, Err: err}
}
