package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"
)

// askedFor are the mappings of a process of which huge pages are asked for.
func askedFor(t *testing.T, pid int) (all [][2]uintptr) {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		t.Skipf("this system does not show mappings: %v", err)
	}
	var m [2]uintptr
	for line := range strings.Lines(string(maps)) {
		if strings.HasPrefix(line, "VmFlags:") && strings.Contains(line, " hg") {
			all = append(all, m)
		}
		_, _ = fmt.Sscanf(line, "%x-%x ", &m[0], &m[1])
	}
	return all
}

func skipUnlessAsked(t *testing.T) {
	t.Helper()
	if !leftToPrograms() {
		t.Skip("this system does not leave huge pages to programs")
	}
}

func TestTheServerAsksForHugePages(t *testing.T) {
	skipUnlessAsked(t)
	p := serve(t, "--data-dir", t.TempDir())
	size := uintptr(0)
	for _, m := range askedFor(t, p.cmd.Process.Pid) {
		size += m[1] - m[0]
	}
	if size < arena {
		t.Errorf("huge pages are asked for %d bytes, want a heap with room to grow", size)
	}
}

// TestAHeapThatGrowsIsAskedForAgain has some of the heap mapped after the first time.
func TestAHeapThatGrowsIsAskedForAgain(t *testing.T) {
	skipUnlessAsked(t)
	useHugePages()
	grown := make([]byte, 4*arena)
	at := uintptr(unsafe.Pointer(&grown[len(grown)-1]))
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		runtime.GC()
		for _, m := range askedFor(t, os.Getpid()) {
			if m[0] <= at && at < m[1] {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("no huge pages are asked for what is at %x", at)
		}
	}
}
