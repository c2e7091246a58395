package raftnode

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
)

// A stream of Raft begins with who sends it:
//
//	"KRFT" version u8 · length u16, big endian · protobuf kiln.metastore.v1.StreamPreface
//
// Everything else that comes in at the port is a call of PeerService, HTTP/2 from its first byte on.
const (
	streamMagic   = "KRFT"
	streamVersion = 1

	// prefaceTimeout is far above what a member takes to say who it is.
	prefaceTimeout = 5 * time.Second
)

// port is the address for members. It tells Raft's streams from calls, and refuses streams of another cluster.
type port struct {
	net.Listener
	log     *slog.Logger
	self    func() *metastorev1.Peer
	met     func(*metastorev1.Peer) // is told who has called
	streams entrance
	calls   entrance

	mu     sync.Mutex
	open   map[net.Conn]struct{} // connections in and out that are not closed; nil when the port is closed
	reads  sync.WaitGroup
	closed chan struct{}
}

func newPort(l net.Listener, log *slog.Logger, self func() *metastorev1.Peer, met func(*metastorev1.Peer)) *port {
	p := &port{Listener: l, log: log, self: self, met: met, open: map[net.Conn]struct{}{}, closed: make(chan struct{})}
	p.streams, p.calls = entrance{p, make(chan net.Conn)}, entrance{p, make(chan net.Conn)}
	p.reads.Go(p.acceptLoop)
	return p
}

// acceptLoop takes connections until the port is closed.
func (p *port) acceptLoop() {
	for {
		c, err := p.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				p.log.Error("port for members of the metastore failed", "err", err)
			}
			return
		}
		if in, ok := p.keep(c); ok {
			p.reads.Go(func() { p.admit(in) })
		}
	}
}

// errShut is returned when the port has been closed.
var errShut = errors.New("port for members is closed")

// connection is one that the port may close.
type connection struct {
	net.Conn
	port *port
	r    io.Reader // what is left to read
}

// Read reads what was looked at before, and then what comes.
func (c *connection) Read(b []byte) (int, error) { return c.r.Read(b) }

// Close closes the connection.
func (c *connection) Close() error {
	c.port.mu.Lock()
	delete(c.port.open, c.Conn)
	c.port.mu.Unlock()
	return c.Conn.Close()
}

func (p *port) keep(c net.Conn) (*connection, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open == nil {
		_ = c.Close()
		return nil, false
	}
	p.open[c] = struct{}{}
	return &connection{Conn: c, port: p, r: c}, true
}

// admit reads how a connection begins and passes it on.
func (p *port) admit(c *connection) {
	to, err := p.sort(c)
	if err != nil {
		p.log.Warn("connection to the port for members refused", "from", c.RemoteAddr(), "err", err)
		_ = c.Close()
		return
	}
	select {
	case to.accepted <- c:
	case <-p.closed:
		_ = c.Close()
	}
}

// sort says which entrance a connection is for.
func (p *port) sort(c *connection) (to entrance, err error) {
	if err := c.SetReadDeadline(time.Now().Add(prefaceTimeout)); err != nil {
		return to, err
	}
	var start [len(streamMagic)]byte
	if _, err := io.ReadFull(c.Conn, start[:]); err != nil {
		return to, err
	}
	if string(start[:]) != streamMagic {
		c.r = io.MultiReader(bytes.NewReader(start[:]), c.Conn)
		return p.calls, c.SetReadDeadline(time.Time{})
	}
	head, err := readPreface(c.Conn)
	if err != nil {
		return to, err
	}
	self := p.self()
	if err := sameCluster(self.GetCluster(), head.GetFrom().GetCluster()); err != nil {
		return to, err
	}
	if head.GetTo() != self.GetId() {
		return to, fmt.Errorf("stream is for %s, this is %s", head.GetTo(), self.GetId())
	}
	p.met(head.GetFrom())
	return p.streams, c.SetReadDeadline(time.Time{})
}

// ErrCluster is returned when members of two clusters meet.
var ErrCluster = errors.New("it is of another cluster")

// sameCluster compares the names of clusters of two members, either of which may not know it yet.
func sameCluster(mine, theirs string) error {
	if mine != "" && theirs != "" && mine != theirs {
		return fmt.Errorf("%w: %s, this one is %s", ErrCluster, theirs, mine)
	}
	return nil
}

// readPreface reads what follows the magic.
func readPreface(r io.Reader) (*metastorev1.StreamPreface, error) {
	var head [3]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	if head[0] != streamVersion {
		return nil, fmt.Errorf("stream has version %d, this build knows %d", head[0], streamVersion)
	}
	b := make([]byte, binary.BigEndian.Uint16(head[1:]))
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	p := &metastorev1.StreamPreface{}
	if err := proto.Unmarshal(b, p); err != nil {
		return nil, fmt.Errorf("stream begins with no member: %w", err)
	}
	return p, nil
}

// preface is the mirror of readPreface, magic included.
func preface(p *metastorev1.StreamPreface) ([]byte, error) {
	body, err := proto.Marshal(p)
	if err != nil {
		return nil, err
	}
	b := append([]byte(streamMagic), streamVersion)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body))) // addresses and ids: far below the limit
	return append(b, body...), nil
}

// shut closes the port and all connections, those that were dialled too. It waits for the port's goroutines.
func (p *port) shut() error {
	p.mu.Lock()
	if p.open == nil {
		p.mu.Unlock()
		return nil
	}
	conns := p.open
	p.open = nil
	close(p.closed)
	p.mu.Unlock()
	err := p.Listener.Close()
	for c := range conns {
		_ = c.Close() // whoever uses it sees that
	}
	p.reads.Wait()
	return err
}

// entrance is the port as a listener for one of its uses.
type entrance struct {
	*port
	accepted chan net.Conn
}

// Accept returns the next connection for this use.
func (e entrance) Accept() (net.Conn, error) {
	select {
	case c := <-e.accepted:
		return c, nil
	case <-e.closed:
		return nil, net.ErrClosed
	}
}

// Close does nothing: the port is closed as a whole.
func (e entrance) Close() error { return nil }

// streamLayer carries Raft's own messages.
type streamLayer struct {
	entrance
	network Network
	address string // by which others know this member
}

// Addr returns the address that the member is known by.
func (s streamLayer) Addr() net.Addr { return name(s.address) }

// Dial opens a stream to another member, whose address is as targetOf returns it.
func (s streamLayer) Dial(target raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	id, address, _ := strings.Cut(string(target), "@")
	head, err := preface(&metastorev1.StreamPreface{From: s.self(), To: id})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), min(timeout, dialTimeout))
	defer cancel()
	dialled, err := s.network.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	c, ok := s.keep(dialled)
	if !ok {
		return nil, errShut
	}
	err = c.SetWriteDeadline(time.Now().Add(prefaceTimeout))
	if err == nil {
		_, err = c.Write(head)
	}
	if err = errors.Join(err, c.SetWriteDeadline(time.Time{})); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// name is an address that is looked up whenever it is dialled.
type name string

// Network returns "tcp".
func (name) Network() string { return "tcp" }

// String returns the address.
func (n name) String() string { return string(n) }
