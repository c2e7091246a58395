// Package selfprofile lets kiln profile itself: it captures CPU and heap of the process it runs in and
// hands them to a push. A process can take one CPU profile at a time: while somebody else takes one over
// /debug/pprof, a capture is left out.
package selfprofile

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"runtime/pprof"
	"time"

	"connectrpc.com/connect"
	"github.com/grafana/pyroscope-go/godeltaprof"
	pushv1 "github.com/grafana/pyroscope/api/gen/proto/go/push/v1"
	typesv1 "github.com/grafana/pyroscope/api/gen/proto/go/types/v1"
)

// Pusher takes profiles, as push.v1.PusherService does.
type Pusher interface {
	Push(context.Context, *connect.Request[pushv1.PushRequest]) (*connect.Response[pushv1.PushResponse], error)
}

// Profiler captures one interval after the other.
type Profiler struct {
	push     Pusher
	interval time.Duration
	labels   []*typesv1.LabelPair
	log      *slog.Logger
	heap     *godeltaprof.HeapProfiler
}

// New returns a profiler that pushes as service "kiln" with the labels given as name, value, name, value.
func New(push Pusher, interval time.Duration, log *slog.Logger, nameValue ...string) *Profiler {
	p := &Profiler{push: push, interval: interval, log: log, heap: godeltaprof.NewHeapProfiler()}
	nameValue = append([]string{"service_name", "kiln"}, nameValue...)
	for i := 0; i+1 < len(nameValue); i += 2 {
		p.labels = append(p.labels, &typesv1.LabelPair{Name: nameValue[i], Value: nameValue[i+1]})
	}
	return p
}

// Run captures and pushes until ctx ends. A capture that fails is logged and forgotten.
func (p *Profiler) Run(ctx context.Context) error {
	if err := p.heap.Profile(&bytes.Buffer{}); err != nil { // the first one is the base of the deltas
		p.log.Warn("self-profiling has no heap profile", "error", err)
	}
	for ctx.Err() == nil {
		series, err := p.capture(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			p.log.Warn("self-profile was not captured", "error", err)
		}
		if len(series) == 0 {
			continue
		}
		if _, err := p.push.Push(ctx, connect.NewRequest(&pushv1.PushRequest{Series: series})); err != nil && ctx.Err() == nil {
			p.log.Warn("self-profile was not stored", "error", err)
		}
	}
	return nil
}

// capture takes one interval.
func (p *Profiler) capture(ctx context.Context) ([]*pushv1.RawProfileSeries, error) {
	var cpu, heap bytes.Buffer
	cpuErr := pprof.StartCPUProfile(&cpu)
	timer := time.NewTimer(p.interval)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
	if cpuErr == nil {
		pprof.StopCPUProfile()
	}
	heapErr := p.heap.Profile(&heap)
	var series []*pushv1.RawProfileSeries
	if cpuErr == nil {
		series = append(series, p.series("process_cpu", cpu.Bytes()))
	}
	if heapErr == nil {
		series = append(series, p.series("memory", heap.Bytes()))
	}
	return series, errors.Join(cpuErr, heapErr)
}

func (p *Profiler) series(name string, profile []byte) *pushv1.RawProfileSeries {
	return &pushv1.RawProfileSeries{
		Labels:  append([]*typesv1.LabelPair{{Name: "__name__", Value: name}}, p.labels...),
		Samples: []*pushv1.RawSample{{RawProfile: profile}},
	}
}
