package segmentwriter

import (
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	var p pace
	for range knownAfter - 1 {
		p.add(time.Second)
	}
	if got := p.slow(time.Millisecond); got != 0 {
		t.Errorf("after %d puts slow is %s: nobody can know", knownAfter-1, got)
	}
	for range paceOf {
		p.add(10 * time.Millisecond)
	}
	for least, want := range map[time.Duration]time.Duration{
		0: 0, time.Millisecond: 20 * time.Millisecond, time.Second: time.Second,
	} {
		if got := p.slow(least); got != want {
			t.Errorf("slow(%s) is %s, want %s", least, got, want)
		}
	}
	for range paceOf / 10 { // one put in ten: no longer an exception
		p.add(time.Second)
	}
	if got := p.slow(time.Millisecond); got != 2*time.Second {
		t.Errorf("where a tenth takes a second slow is %s, want two", got)
	}
}

func TestCredit(t *testing.T) {
	c := credit{most: 2, left: 1}
	if !c.take() || c.take() {
		t.Error("one is there to take")
	}
	for range 30 {
		c.earn(0.25)
	}
	taken := 0
	for c.take() {
		taken++
	}
	if taken != 2 {
		t.Errorf("%d were saved up, want no more than two", taken)
	}
}
