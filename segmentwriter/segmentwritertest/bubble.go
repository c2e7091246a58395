package segmentwritertest

import (
	"runtime"
	"testing"
	"testing/synctest"
)

// Bubble runs a test in a synctest bubble of its own, from which nothing is left in the pools of packages that compress: their
// encoders have channels, which no other bubble may use.
func Bubble(t *testing.T, test func(*testing.T)) {
	t.Helper()
	empty := func() {
		for range 2 { // the first collection keeps what was in a pool for a second chance
			runtime.GC()
		}
	}
	empty()
	defer empty()
	synctest.Test(t, test)
}
