package index

// pile is memory for the elements of slices, which is used again after each reset. The zero value gives every slice memory
// of its own.
type pile[E any] struct {
	all          []E
	used, wanted int // since the last reset; less is used than is wanted where there was not enough
}

// take returns n zero elements; nil if that is none.
func (p *pile[E]) take(n int) []E {
	p.wanted += n
	switch {
	case n == 0:
		return nil
	case n > len(p.all)-p.used:
		return make([]E, n)
	}
	p.used += n
	return p.all[p.used-n : p.used : p.used]
}

// reset takes back all that was taken, and makes room for as much the next time.
func (p *pile[E]) reset() {
	if p.wanted > len(p.all) {
		p.all = make([]E, p.wanted)
	} else {
		clear(p.all[:p.used])
	}
	p.used, p.wanted = 0, 0
}

// messages is memory for messages, and for the lists that hold them.
type messages[M any] struct {
	messages pile[M]
	lists    pile[*M]
}

// list returns n empty messages; nil if that is none.
func (p *messages[M]) list(n int) []*M {
	all, list := p.messages.take(n), p.lists.take(n)
	for i := range all {
		list[i] = &all[i]
	}
	return list
}

func (p *messages[M]) reset() {
	p.messages.reset()
	p.lists.reset()
}
