package node

import (
	"math"
	"strings"
	"testing"
)

func TestPutsHaveABudget(t *testing.T) {
	of := func(puts float64) *float64 { return &puts }
	for _, c := range []struct {
		bucket string
		puts   *float64
		want   float64
	}{
		{"", nil, 0}, {"file:///data", nil, 0}, {"s3://profiles", nil, 4},
		{"", of(0.5), 0.5}, {"s3://profiles", of(0.5), 0.5}, {"s3://profiles", of(0), 0},
	} {
		cfg := DefaultConfig()
		cfg.Bucket, cfg.PutsPerSecond = c.bucket, c.puts
		if err := cfg.Validate(); err != nil {
			t.Error(err)
		}
		n := &Node{cfg: cfg}
		if got := n.segmentWriterConfig().PutsPerSecond; got != c.want {
			t.Errorf("bucket %q: %g puts a second, want %g", c.bucket, got, c.want)
		}
	}
	for _, puts := range []float64{-1, math.Inf(1), math.NaN(), 1e9} {
		cfg := DefaultConfig()
		cfg.PutsPerSecond = &puts
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "--puts-per-second") {
			t.Errorf("%g puts a second: %v", puts, err)
		}
	}
}
