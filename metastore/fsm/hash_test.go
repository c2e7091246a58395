package fsm

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"testing/synctest"
)

func TestReplicasHaveEqualHashesAtAnIndex(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		one, _ := open(t, filepath.Join(dir, "one"))
		other, _ := open(t, filepath.Join(dir, "other"))
		type answer struct {
			at  uint64
			sum [32]byte
			err error
		}
		ask := func(f *FSM, index uint64) chan answer {
			c := make(chan answer, 1)
			go func() {
				var a answer
				a.at, a.sum, a.err = f.HashAt(t.Context(), index)
				c <- a
			}()
			synctest.Wait()
			return c
		}
		// 7 is an index that only Raft knows.
		logs := []*Log{entry(t, 1), entry(t, 2, "a"), entry(t, 3, "b"), entry(t, 4), entry(t, 5, "c"), entry(t, 6, "d", "e"), entry(t, 8, "f")}
		asked := map[*FSM]map[uint64]chan answer{one: {}, other: {}}
		for f, answers := range asked {
			for _, index := range []uint64{2, 3, 5, 6, 7, 8} {
				answers[index] = ask(f, index)
			}
		}
		one.ApplyBatch(logs)
		for _, l := range logs {
			other.Apply(l)
		}
		sums := map[[32]byte]uint64{}
		for index, c := range asked[one] {
			a, b := <-c, <-asked[other][index]
			if a != b || a.err != nil || a.at != index {
				t.Errorf("at %d: %+v and %+v", index, a, b)
			}
			if known, twice := sums[a.sum]; twice && index+known != 6+7 {
				t.Errorf("at %d the hash is that of %d", index, known)
			}
			sums[a.sum] = index
		}
		if at, sum, err := one.HashAt(t.Context(), 0); err != nil || at != 8 || sums[sum] != 8 {
			t.Errorf("now: %d, %v", at, err)
		}
		if _, _, err := one.HashAt(t.Context(), 5); !errors.Is(err, ErrPassed) {
			t.Errorf("of what has passed: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, _, err := one.HashAt(ctx, 9); !errors.Is(err, context.Canceled) {
			t.Errorf("of what nobody waits for: %v", err)
		}
		if len(one.wanted.at)+len(other.wanted.at) != 0 {
			t.Errorf("still wanted: %v, %v", one.wanted.at, other.wanted.at)
		}
	})
}

func TestTheNewestVersionInTheLogIsKnown(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	f, _ := open(t, path)
	if v := f.Position().Version; v != 1 {
		t.Errorf("version %d at first", v)
	}
	f.Apply(entry(t, 1))
	if v := f.Position().Version; v != Version { // entry writes what is newest
		t.Errorf("version %d", v)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if f, _ = open(t, path); f.Position().Version != Version {
		t.Errorf("version %d after a restart", f.Position().Version)
	}
}
