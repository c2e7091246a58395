package memnet

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// pipeCapacity is how much a writer may be ahead of its reader, in bytes: as much as a small TCP window, so that what
// would stall over TCP stalls here too.
const pipeCapacity = 64 << 10

// pipe is one direction of a connection: a bounded queue of bytes with one closer at each end.
type pipe struct {
	mu      sync.Mutex
	changed sync.Cond // of everything below, under mu

	queue       []byte // queue[read:] is on its way
	read        int
	cut         bool // the reader sees nothing of the queue, nor that the writer closed
	writeClosed bool
	readClosed  bool
	readLimit   deadline
	writeLimit  deadline
}

func newPipe() *pipe {
	p := new(pipe)
	p.changed.L = &p.mu
	return p
}

// Read waits for bytes and takes what there are, up to len(b).
func (p *pipe) Read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch waiting := len(p.queue) - p.read; {
		case p.readClosed:
			return 0, net.ErrClosed
		case p.readLimit.passed:
			return 0, os.ErrDeadlineExceeded
		case len(b) == 0:
			return 0, nil
		case !p.cut && waiting > 0:
			return p.take(b), nil
		case !p.cut && p.writeClosed:
			return 0, io.EOF
		}
		p.changed.Wait()
	}
}

// Write queues all of b, or returns how much it queued before something was in the way.
func (p *pipe) Write(b []byte) (written int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.writeClosed:
			return written, net.ErrClosed
		case p.writeLimit.passed:
			return written, os.ErrDeadlineExceeded
		case p.readClosed && !p.cut:
			return written, syscall.EPIPE
		case len(b) == 0:
			return written, nil
		}
		if n := p.append(b); n > 0 {
			written, b = written+n, b[n:]
			p.changed.Broadcast()
			continue
		}
		p.changed.Wait()
	}
}

func (p *pipe) take(b []byte) int {
	n := copy(b, p.queue[p.read:])
	p.read += n
	if p.read == len(p.queue) {
		p.queue, p.read = p.queue[:0], 0
	}
	p.changed.Broadcast()
	return n
}

func (p *pipe) append(b []byte) int {
	waiting := len(p.queue) - p.read
	n := min(len(b), pipeCapacity-waiting)
	if p.read > 0 && len(p.queue)+n > cap(p.queue) {
		p.queue, p.read = p.queue[:copy(p.queue, p.queue[p.read:])], 0
	}
	p.queue = append(p.queue, b[:n]...)
	return n
}

// closeWrite ends the stream: the reader gets what is queued and then io.EOF.
func (p *pipe) closeWrite() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.writeClosed = true
	p.writeLimit.stop()
	p.changed.Broadcast()
}

// closeRead drops what is queued, and has the writer told.
func (p *pipe) closeRead() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.readClosed = true
	p.queue, p.read = nil, 0
	p.readLimit.stop()
	p.changed.Broadcast()
}

func (p *pipe) isClosed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.writeClosed && p.readClosed
}

func (p *pipe) setCut(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = cut
	p.changed.Broadcast()
}

func (p *pipe) setReadLimit(t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.readClosed {
		p.readLimit.set(p, t)
	}
}

func (p *pipe) setWriteLimit(t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.writeClosed {
		p.writeLimit.set(p, t)
	}
}

// deadline is a moment after which one end of a pipe fails. It is guarded by the mutex of its pipe.
type deadline struct {
	passed bool
	timer  *time.Timer
}

// set moves the deadline to t; the zero time means none.
func (d *deadline) set(p *pipe, t time.Time) {
	d.stop()
	d.passed = false
	if left := time.Until(t); t.IsZero() {
		// no deadline
	} else if left <= 0 {
		d.passed = true
	} else {
		var timer *time.Timer
		timer = time.AfterFunc(left, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			if d.timer == timer { // and not one that was set since
				d.passed = true
				p.changed.Broadcast()
			}
		})
		d.timer = timer
	}
	p.changed.Broadcast()
}

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}
