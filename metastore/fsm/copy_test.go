package fsm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"path/filepath"
	"testing"
	"time"
)

// page is the unit in which disks lose and damage bytes.
const page = 4096

func TestEveryDamagedPageOfASnapshotIsFound(t *testing.T) {
	dir := t.TempDir()
	f, _ := open(t, filepath.Join(dir, "from.db"))
	f.Apply(entry(t, 1))
	random := rand.New(rand.NewSource(1))
	for i := range uint64(64) { // values that do not compress: many pages
		noise := make([]byte, 2*page)
		random.Read(noise)
		if err := f.Amend(Position{Index: i + 2, Term: 1, Time: int64(i + 2), Cluster: "c"}, func(tx *Tx) error {
			return tx.Bucket([]byte("counter")).Put([]byte(fmt.Sprint("noise ", i)), noise)
		}); err != nil {
			t.Fatal(err)
		}
	}
	var whole bytes.Buffer
	position, err := f.WriteSnapshot(&whole)
	if err != nil || position != f.Position() || position.Index != 65 {
		t.Fatalf("written at %+v (%v), the state is at %+v", position, err, f.Position())
	}
	if got, err := CheckSnapshot(bytes.NewReader(whole.Bytes())); err != nil || got != position {
		t.Fatalf("read back at %+v (%v)", got, err)
	}
	if whole.Len() < 100*page {
		t.Fatalf("the snapshot has %d bytes only", whole.Len())
	}
	to, _ := open(t, filepath.Join(dir, "to.db"))
	to.ApplyBatch([]*Log{entry(t, 1), entry(t, 2, "a")})
	kept := hashOf(t, to)
	damagedAt := func(at int, what string, b []byte) {
		t.Helper()
		if _, err := CheckSnapshot(bytes.NewReader(b)); !errors.Is(err, ErrSnapshot) {
			t.Errorf("%s at %d is not found: %v", what, at, err)
		}
		if at/page%16 != 0 { // writing files takes longer
			return
		}
		if err := to.Restore(io.NopCloser(bytes.NewReader(b))); !errors.Is(err, ErrSnapshot) {
			t.Errorf("%s at %d was restored: %v", what, at, err)
		}
		if hashOf(t, to) != kept {
			t.Fatalf("%s at %d has changed the state", what, at)
		}
	}
	for at := page; at < whole.Len(); at += page {
		flipped := bytes.Clone(whole.Bytes())
		flipped[at+random.Intn(min(page, len(flipped)-at))] ^= 1 << random.Intn(8)
		damagedAt(at, "a flipped bit", flipped)
		damagedAt(at, "a cut", whole.Bytes()[:at])
		zeroes := bytes.Clone(whole.Bytes())
		clear(zeroes[at:min(at+page, len(zeroes))])
		damagedAt(at, "a page of zeroes", zeroes)
	}
}

// gate is a place for a snapshot that takes nothing until it is opened.
type gate struct {
	sink
	reached, opened chan struct{}
}

func (g *gate) Write(p []byte) (int, error) {
	select {
	case g.reached <- struct{}{}:
	default:
	}
	<-g.opened
	return g.sink.Write(p)
}

func TestASnapshotThatIsBeingWrittenHoldsNothingUp(t *testing.T) {
	f, c := open(t, filepath.Join(t.TempDir(), "state.db"))
	f.ApplyBatch([]*Log{entry(t, 1), entry(t, 2, "a", "b")})
	before := hashOf(t, f)
	g := &gate{reached: make(chan struct{}, 1), opened: make(chan struct{})}
	done := make(chan error)
	go func() {
		_, err := f.WriteSnapshot(g)
		done <- err
	}()
	<-g.reached
	for i := range uint64(40) { // 40 MiB: the file grows many times
		begun := time.Now()
		if got := f.Apply(entry(t, 3+i, "big")); got != 3+i {
			t.Fatalf("entry %d: %v", 3+i, got)
		}
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("entry %d took %v beside a snapshot", 3+i, took)
		}
	}
	close(g.opened)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	to, restored := open(t, filepath.Join(t.TempDir(), "to.db"))
	if err := to.Restore(io.NopCloser(bytes.NewReader(g.Bytes()))); err != nil {
		t.Fatal(err)
	}
	if hashOf(t, to) != before || restored.published != 2 || c.published != 42 {
		t.Errorf("the snapshot has %d, the state %d", restored.published, c.published)
	}
}
