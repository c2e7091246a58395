package jfr_test

import (
	"testing"
	"time"

	jfrparser "github.com/grafana/jfr-parser/pprof"

	"github.com/kilndb/kiln/distributor/ingest/jfr"
)

// BenchmarkParse reads recordings; per_other is the time as a share of what the parser of Grafana Labs takes.
func BenchmarkParse(b *testing.B) {
	for _, name := range []string{"busy", "dump2", "example"} {
		b.Run(name, func(b *testing.B) {
			data := gunzip(b, name+".jfr.gz")
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			var ours, other time.Duration
			for b.Loop() {
				start := time.Now()
				if _, err := jfr.Parse(data, jfr.Options{Period: 1, Limits: limits}); err != nil {
					b.Fatal(err)
				}
				ours += time.Since(start)
				b.StopTimer()
				start = time.Now()
				if _, err := jfrparser.ParseJFR(data, &jfrparser.ParseInput{StartTime: start, EndTime: start, SampleRate: 100}, nil); err != nil {
					b.Fatal(err)
				}
				other += time.Since(start)
				b.StartTimer()
			}
			b.ReportMetric(ours.Seconds()/other.Seconds(), "per_other")
		})
	}
}
