package main

import (
	"bytes"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"syscall"
	"unsafe"
)

// arena is what Go's heap grows by at most, and where it begins a multiple of.
const arena = 64 << 20

// heap is the part of the address space that Go's heap takes up, of which Linux was asked to use huge pages for what is mapped.
type heap struct {
	begin uintptr
	asked uint64 // bytes from begin on
}

// useHugePages asks Linux to back the heap with huge pages, now and whenever it has grown, where the system leaves that to programs: see
// decision 29.
func useHugePages() {
	if !leftToPrograms() {
		return
	}
	h := &heap{}
	h.begin = uintptr(unsafe.Pointer(h)) &^ (arena - 1)
	grow()
	h.ask()
}

// leftToPrograms says whether the system uses huge pages where a program asks for them, and only there.
func leftToPrograms() bool {
	mode, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled")
	return err == nil && bytes.Contains(mode, []byte("[madvise]"))
}

// grow has the heap take up an arena that it need not ask for later. No memory is touched.
func grow() {
	runtime.KeepAlive(make([]byte, arena))
	debug.FreeOSMemory()
}

// ask asks for what has been mapped since it last did, and does so again after the next collection: the heap has grown by then, or not.
func (h *heap) ask() {
	if n := mapped(); n > h.asked {
		// With room for what is not counted, such as the rest of the last arena. Where nothing is mapped nothing happens.
		_, _, _ = syscall.RawSyscall(syscall.SYS_MADVISE, h.begin, uintptr(n+arena)&^(arena-1), syscall.MADV_HUGEPAGE)
		h.asked = n
	}
	collected := &struct{ *heap }{h} // by the next collection
	runtime.AddCleanup(collected, (*heap).ask, h)
}

// mapped returns how many bytes the heap takes up, used or not.
func mapped() (n uint64) {
	classes := []metrics.Sample{
		{Name: "/memory/classes/heap/free:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/released:bytes"},
		{Name: "/memory/classes/heap/stacks:bytes"}, {Name: "/memory/classes/heap/unused:bytes"},
	}
	metrics.Read(classes)
	for _, c := range classes {
		n += c.Value.Uint64()
	}
	return n
}
