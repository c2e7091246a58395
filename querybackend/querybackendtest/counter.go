package querybackendtest

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// Counter returns the sum of the counters of a name that have a label, or of all of them if none is named.
func Counter(t testing.TB, reg prometheus.Gatherer, name string, label ...string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, metric := range family.GetMetric() {
			has := len(label) == 0
			for _, l := range metric.GetLabel() {
				has = has || l.GetName() == label[0] && l.GetValue() == label[1]
			}
			if has {
				sum += metric.GetCounter().GetValue()
			}
		}
	}
	return sum
}
