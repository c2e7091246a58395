package jfr

// event is a kind of event that becomes samples of a profile.
type event uint8

const (
	eventCPU event = iota
	eventWall
	eventInTLAB
	eventOutsideTLAB
	eventAllocSample
	eventMalloc
	eventLive
	eventMonitor
	eventPark
	events
)

// kind is the profile that events of a kind become.
type kind struct {
	name                   string
	types                  [][2]string // name and unit
	periodType, periodUnit string
	timed                  bool // an event stands for a period of time
	weight                 slot // of the second sample type
}

var kinds = [events]kind{
	eventCPU:  {name: "process_cpu", types: [][2]string{{"cpu", "nanoseconds"}}, periodType: "cpu", periodUnit: "nanoseconds", timed: true},
	eventWall: {name: "wall", types: [][2]string{{"wall", "nanoseconds"}}, periodType: "wall", periodUnit: "nanoseconds", timed: true},
	eventInTLAB: {name: "memory", types: [][2]string{{"alloc_in_new_tlab_objects", "count"}, {"alloc_in_new_tlab_bytes", "bytes"}},
		periodType: "space", periodUnit: "bytes", weight: slotTlabSize},
	eventOutsideTLAB: {name: "memory", types: [][2]string{{"alloc_outside_tlab_objects", "count"}, {"alloc_outside_tlab_bytes", "bytes"}},
		periodType: "space", periodUnit: "bytes", weight: slotAllocationSize},
	eventAllocSample: {name: "memory", types: [][2]string{{"alloc_sample_objects", "count"}, {"alloc_sample_bytes", "bytes"}},
		periodType: "space", periodUnit: "bytes", weight: slotWeight},
	eventMalloc: {name: "memory", types: [][2]string{{"malloc_objects", "count"}, {"malloc_bytes", "bytes"}}, weight: slotSize},
	eventLive:   {name: "memory", types: [][2]string{{"live", "count"}}, periodType: "objects", periodUnit: "count"},
	eventMonitor: {name: "mutex", types: [][2]string{{"contentions", "count"}, {"delay", "nanoseconds"}},
		periodType: "mutex", periodUnit: "count", weight: slotDuration},
	eventPark: {name: "block", types: [][2]string{{"contentions", "count"}, {"delay", "nanoseconds"}},
		periodType: "block", periodUnit: "count", weight: slotDuration},
}
