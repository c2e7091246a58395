package block

// pagePool keeps the memory of pages that a merge has no use for at the moment.
type pagePool struct {
	idle   []*page
	memory *ledger
}

// begin makes the pool that of a merge with that ledger.
func (p *pagePool) begin(l *ledger) {
	p.memory = l
	for _, idle := range p.idle {
		idle.ledger, idle.held = l, 0
		if idle.account(0) != nil {
			p.drop()
			return
		}
	}
}

// take returns a page for a section of that many columns.
func (p *pagePool) take(columns int) *page {
	if n := len(p.idle); n > 0 {
		page := p.idle[n-1]
		p.idle = p.idle[:n-1]
		page.reset(columns)
		return page
	}
	page := newPage(columns)
	page.ledger = p.memory
	return page
}

// give takes the memory of a page, which may go on to be used and will then have new.
func (p *pagePool) give(from *page) {
	p.idle = append(p.idle, &page{number: -1, memory: from.memory, ledger: from.ledger, held: from.held})
	from.memory, from.held = make([][]byte, len(from.memory)), 0
	from.reset(len(from.loaded))
}

// drop lets go of all memory.
func (p *pagePool) drop() {
	for _, idle := range p.idle {
		_ = p.memory.set(&idle.held, 0)
	}
	p.idle = nil
}

// size is the memory in the pool.
func (p *pagePool) size() (n int64) {
	for _, idle := range p.idle {
		n += idle.held
	}
	return n
}
