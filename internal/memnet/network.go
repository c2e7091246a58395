package memnet

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
)

// Addr is the address of a listener: any name.
type Addr string

// Network returns "mem".
func (Addr) Network() string { return "mem" }

// String returns the name.
func (a Addr) String() string { return string(a) }

// Network is a set of listeners that can be dialled by address. Use New. All methods may be called concurrently.
type Network struct {
	mu        sync.Mutex
	listeners map[Addr]*listener // guarded by mu
	cuts      map[Addr]*cut      // guarded by mu; one for every address that was ever listened at or partitioned
	unnamed   int                // guarded by mu; listeners that were named by us
}

// New returns a network without listeners.
func New() *Network {
	return &Network{listeners: map[Addr]*listener{}, cuts: map[Addr]*cut{}}
}

// Listen listens at addr, which is any name that nobody listens at. The empty one means a new one.
func (n *Network) Listen(addr string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for addr == "" {
		n.unnamed++
		if name := fmt.Sprintf("mem:%d", n.unnamed); n.listeners[Addr(name)] == nil {
			addr = name
		}
	}
	a := Addr(addr)
	if n.listeners[a] != nil {
		return nil, failure("listen", a, os.NewSyscallError("bind", syscall.EADDRINUSE))
	}
	l := &listener{network: n, addr: a, dialled: make(chan net.Conn), closed: make(chan struct{})}
	n.listeners[a] = l
	return l, nil
}

// DialContext connects to the listener at addr. Where there is none, or it closes before it accepts, the connection is
// refused: errors.Is finds syscall.ECONNREFUSED. The second argument, the kind of network, is ignored: it makes
// DialContext fit where net.Dialer's does.
func (n *Network) DialContext(ctx context.Context, _, addr string) (net.Conn, error) {
	a := Addr(addr)
	_, c := n.find(a)
	if err := c.wait(ctx); err != nil {
		return nil, failure("dial", a, err)
	}
	l, _ := n.find(a) // who listens now
	if l == nil {
		return nil, failure("dial", a, os.NewSyscallError("connect", syscall.ECONNREFUSED))
	}
	near, far := newPair(a, c)
	var err error
	select {
	case l.dialled <- far:
		return near, nil
	case <-l.closed:
		err = os.NewSyscallError("connect", syscall.ECONNREFUSED)
	case <-ctx.Done():
		err = ctx.Err()
	}
	near.Close()
	far.Close()
	return nil, failure("dial", a, err)
}

// Partition cuts the connections to addr off, or heals the cut. While it lasts, what either side sends is not received
// by the other, not even that it closed, and dials wait; deadlines and contexts go on. Healed, everything arrives.
func (n *Network) Partition(addr string, cutOff bool) {
	_, c := n.find(Addr(addr))
	c.set(cutOff)
}

func (n *Network) find(a Addr) (*listener, *cut) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cuts[a] == nil {
		n.cuts[a] = newCut()
	}
	return n.listeners[a], n.cuts[a]
}

func (n *Network) remove(l *listener) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners[l.addr] == l {
		delete(n.listeners, l.addr)
	}
}

type listener struct {
	network *Network
	addr    Addr
	dialled chan net.Conn
	once    sync.Once
	closed  chan struct{}
}

// Accept waits for the next dial.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.closed: // also where somebody dials at this moment
		return nil, failure("accept", l.addr, net.ErrClosed)
	default:
	}
	select {
	case conn := <-l.dialled:
		return conn, nil
	case <-l.closed:
		return nil, failure("accept", l.addr, net.ErrClosed)
	}
}

// Close stops listening: a waiting Accept and waiting dials fail, accepted connections stay.
func (l *listener) Close() error {
	err := failure("close", l.addr, net.ErrClosed)
	l.once.Do(func() {
		l.network.remove(l)
		close(l.closed)
		err = nil
	})
	return err
}

// Addr returns the address that was listened at.
func (l *listener) Addr() net.Addr { return l.addr }

func failure(op string, a Addr, err error) error {
	return &net.OpError{Op: op, Net: a.Network(), Addr: a, Err: err}
}
