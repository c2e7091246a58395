package spare_test

import (
	"runtime"
	"sync"
	"testing"

	"github.com/kilndb/kiln/internal/spare"
)

// counted returns a pool and how many values it has made.
func counted(keep int) (*spare.Pool[*[64]byte], *int) {
	made := new(int)
	return &spare.Pool[*[64]byte]{Keep: keep, New: func() *[64]byte { *made++; return new([64]byte) }}, made
}

func collect() {
	runtime.GC()
	runtime.GC() // what a sync.Pool holds survives one
}

func TestWhatIsKeptOutlivesTheCollector(t *testing.T) {
	p, made := counted(64)
	v := p.Get()
	p.Put(v, 64)
	collect()
	if p.Get() != v || *made != 1 {
		t.Errorf("the value did not come back: %d were made", *made)
	}
}

func TestTheLastIsTakenFirst(t *testing.T) {
	p, _ := counted(128)
	first, last := p.Get(), p.Get()
	p.Put(first, 64)
	p.Put(last, 64)
	if p.Get() != last || p.Get() != first {
		t.Error("values did not come back in the reverse order")
	}
}

func TestNoMoreIsKeptThanKeepSays(t *testing.T) {
	p, made := counted(100)
	values := []*[64]byte{p.Get(), p.Get()}
	for _, v := range values {
		p.Put(v, 64)
	}
	collect()
	if v := p.Get(); v != values[0] {
		t.Error("the value that fits was not kept")
	}
	if p.Get(); *made != 3 {
		t.Errorf("%d values were made, not 3: the one that does not fit should be gone", *made)
	}
}

func TestRoomComesBackWithGet(t *testing.T) {
	p, _ := counted(64)
	p.Put(new([64]byte), 64)
	p.Get()
	v := new([64]byte)
	p.Put(v, 64)
	collect()
	if p.Get() != v {
		t.Error("the value was not kept although there was room")
	}
}

func TestNobodySharesAValue(t *testing.T) {
	type flagged struct{ used bool }
	p := spare.Pool[*flagged]{Keep: 2, New: func() *flagged { return new(flagged) }}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 1000 {
				v := p.Get()
				if v.used {
					t.Error("two have the same value")
				}
				v.used = true
				runtime.Gosched()
				v.used = false
				p.Put(v, 1)
			}
		})
	}
	all.Wait()
}
