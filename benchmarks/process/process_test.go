package process

import (
	"testing"
	"time"

	"github.com/kilndb/kiln/benchmarks/workload"
)

// cost reports the server's CPU since start per raw byte that it took, in gunzips. Its compactions are waited for: they belong to
// what was pushed.
func cost(b *testing.B, s *server, start time.Duration, raw int, yardstick float64) {
	b.Helper()
	time.Sleep(15 * time.Second) // the oldest segment is compacted after ten
	b.ReportMetric(float64(s.cpu(b)-start)/float64(raw)/yardstick, "x-gunzip")
	b.ReportMetric(s.peak(b)/(1<<20), "peak-MiB")
}

func reportAcks(b *testing.B, a *answers, span time.Duration) {
	b.Helper()
	b.ReportMetric(float64(len(a.accepted))/span.Seconds(), "pushes/s")
	b.ReportMetric(float64(a.raw)/span.Seconds()/1e6, "raw-MB/s")
	b.ReportMetric(quantile(a.accepted, 0.5), "ack-p50-ms")
	b.ReportMetric(quantile(a.accepted, 0.99), "ack-p99-ms")
}

// BenchmarkSaturation: 128 connections push as fast as they are answered.
func BenchmarkSaturation(b *testing.B) {
	profiles := workload.Perturbed(1000)
	yardstick := gunzip(b, profiles)
	for b.Loop() {
		s := start(b)
		c := newClients(b, s, 128)
		const span = 20 * time.Second
		before := s.cpu(b)
		s.profile(b, span)
		a := c.saturate(128, span, messages(b, "", profiles))
		a.check(b)
		cost(b, s, before, a.raw, yardstick)
		reportAcks(b, a, span)
	}
}

// BenchmarkTwentyProfilesASecond: nothing that a flush costs by itself may dwarf the data.
func BenchmarkTwentyProfilesASecond(b *testing.B) {
	profiles := workload.Perturbed(600)
	yardstick := gunzip(b, profiles)
	for b.Loop() {
		s := start(b)
		c := newClients(b, s, 128)
		const span = 30 * time.Second
		before := s.cpu(b)
		s.profile(b, span)
		a := c.pace(20, span, messages(b, "", profiles))
		a.check(b)
		cost(b, s, before, a.raw, yardstick)
		reportAcks(b, a, span)
	}
}
