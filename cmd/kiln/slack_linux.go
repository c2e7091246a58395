package main

import (
	"os"
	"runtime"
	"syscall"
	"time"
)

const (
	// timerSlack is how much later than it asked for a thread of the server may be woken from a sleep. Those of Go's monitor, which
	// looks after the others while anything runs, ask for 20 µs; no timer of ours needs to be exact to the millisecond.
	timerSlack = 500 * time.Microsecond
	// relaxed is the variable of the environment that says that relax has done what it can.
	relaxed = "KILN_RELAXED"
)

// relax starts this program anew, as the same process, with timers that may be late: see decision 21. Threads inherit the slack of their
// timers, and Go's monitor is the first that the runtime starts. It returns when nothing is to be done, or nothing can.
func relax() {
	if os.Getenv(relaxed) != "" {
		return
	}
	program, err := os.Executable()
	if err != nil {
		return
	}
	runtime.LockOSThread() // whose slack is set is who starts the program
	defer runtime.UnlockOSThread()
	slack, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_GET_TIMERSLACK, 0, 0)
	if errno != 0 || slack >= uintptr(timerSlack) {
		return
	}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_TIMERSLACK, uintptr(timerSlack), 0); errno != 0 {
		return
	}
	_ = syscall.Exec(program, os.Args, append(os.Environ(), relaxed+"=1")) // if it fails the server costs more, that is all
}
