//go:build unix

package workload

import (
	"syscall"
	"time"
)

// CPU returns the CPU time of the process so far, the garbage collector's included. Benchmarks report it because other work on the
// machine does not change it much.
func CPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
