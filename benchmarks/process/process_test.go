package process

import (
	"os"
	"path/filepath"
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
		a := c.saturate(128, span, messages(b, "anonymous", profiles))
		a.check(b)
		cost(b, s, before, a.raw, yardstick)
		reportAcks(b, a, span)
	}
}

// BenchmarkTwentyProfilesASecond: nothing that a flush costs by itself may dwarf the data. The second yardstick is a process that only
// gunzips the same bytes at the same pace beside it: what comes one at a time is dear for everybody.
func BenchmarkTwentyProfilesASecond(b *testing.B) {
	profiles := lowProfiles()
	yardstick := gunzip(b, profiles)
	for b.Loop() {
		s := start(b)
		c := newClients(b, s, 128)
		before := s.cpu(b)
		s.profile(b, lowSpan)
		paced := startPaced(b)
		a := c.pace(lowRate, lowSpan, messages(b, "anonymous", profiles))
		a.check(b)
		b.ReportMetric(paced()/yardstick, "paced-x-gunzip")
		cost(b, s, before, a.raw, yardstick)
		reportAcks(b, a, lowSpan)
	}
}

// BenchmarkIdle: nobody asks for anything.
func BenchmarkIdle(b *testing.B) {
	for b.Loop() {
		s := start(b)
		time.Sleep(5 * time.Second) // it has begun by then
		const span = 20 * time.Second
		before := s.cpu(b)
		time.Sleep(span)
		b.ReportMetric(float64((s.cpu(b)-before).Milliseconds())/span.Seconds(), "cpu-ms/s")
		b.ReportMetric(s.peak(b)/(1<<20), "peak-MiB")
	}
}

// BenchmarkIdleAck: one push at a time, on a local directory.
func BenchmarkIdleAck(b *testing.B) {
	profiles := messages(b, "anonymous", workload.Perturbed(60))
	for b.Loop() {
		s := start(b)
		c := newClients(b, s, 1)
		const span = 20 * time.Second
		a := c.pace(3, span, profiles)
		a.check(b)
		reportAcks(b, a, span)
	}
}

// BenchmarkRemoteAck: fifty pushes a second into a bucket that takes 60 ms for a put, with the linger of remote buckets.
func BenchmarkRemoteAck(b *testing.B) {
	profiles := messages(b, "anonymous", workload.Perturbed(1000))
	for b.Loop() {
		s := start(b, "--bucket", remoteBucket(b, 60*time.Millisecond))
		c := newClients(b, s, 128)
		const span = 20 * time.Second
		a := c.pace(50, span, profiles)
		a.check(b)
		reportAcks(b, a, span)
		b.ReportMetric(s.metric(b, "kiln_segment_writer_puts_total")/span.Seconds(), "puts/s")
	}
}

// BenchmarkManyServices: 10,000 services of each of three tenants push once each within twenty seconds.
func BenchmarkManyServices(b *testing.B) {
	small := workload.Small(10_000)
	yardstick := gunzip(b, small)
	limits := filepath.Join(b.TempDir(), "limits.yaml")
	if err := os.WriteFile(limits, []byte("defaults: {rate: 0}\n"), 0o600); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s := start(b, "--multi-tenant", "--limits-file", limits)
		c := newClients(b, s, 128)
		var all []message
		of := [3][]message{messages(b, "acme", small), messages(b, "globex", small), messages(b, "initech", small)}
		for i := range small {
			all = append(all, of[0][i], of[1][i], of[2][i])
		}
		const span = 20 * time.Second
		before := s.cpu(b)
		s.profile(b, span)
		a := c.pace(float64(len(all))/span.Seconds(), span, all)
		a.check(b)
		b.ReportMetric(s.metric(b, "kiln_segment_writer_puts_total")/span.Seconds(), "puts/s")
		cost(b, s, before, a.raw, yardstick)
		reportAcks(b, a, span)
	}
}

// BenchmarkOverload: first as much as 128 connections can send, then three times as many pushes a second, on up to 400.
func BenchmarkOverload(b *testing.B) {
	overload(b, func(c *clients, capacity float64, span time.Duration, profiles []message) *answers {
		return c.press(3*capacity, span, profiles)
	})
}

// BenchmarkImpatience: instead of three times as many pushes, four hundred connections that send again at once what is refused.
func BenchmarkImpatience(b *testing.B) {
	overload(b, func(c *clients, _ float64, span time.Duration, profiles []message) *answers {
		return c.saturate(400, span, profiles)
	})
}

// overload reports what becomes of more pushes than the server can take. Those who send them take a part of the same cores, which is
// reported as well.
func overload(b *testing.B, send func(c *clients, capacity float64, span time.Duration, profiles []message) *answers) {
	profiles := messages(b, "anonymous", workload.Perturbed(1000))
	for b.Loop() {
		s := start(b)
		c := newClients(b, s, 400)
		const span = 20 * time.Second
		full := c.saturate(128, span, profiles)
		full.check(b)
		s.profile(b, span)
		senders, server := workload.CPU(), s.cpu(b)
		a := send(c, float64(len(full.accepted))/span.Seconds(), span, profiles)
		b.ReportMetric((workload.CPU()-senders).Seconds()/span.Seconds(), "senders-cores")
		b.ReportMetric((s.cpu(b)-server).Seconds()/span.Seconds(), "server-cores")
		a.check(b)
		b.ReportMetric(float64(len(a.accepted)+len(a.refused))/float64(len(full.accepted)), "x-capacity")
		b.ReportMetric(float64(len(full.accepted))/span.Seconds(), "capacity/s")
		b.ReportMetric(quantile(full.accepted, 0.99), "full-p99-ms")
		b.ReportMetric(quantile(a.accepted, 0.99)/quantile(full.accepted, 0.99), "x-full-p99")
		b.ReportMetric(quantile(a.refused, 0.5), "refused-p50-ms")
		b.ReportMetric(quantile(a.refused, 0.99), "refused-p99-ms")
		b.ReportMetric(s.peak(b)/(1<<20), "peak-MiB")
		reportAcks(b, a, span)
	}
}
