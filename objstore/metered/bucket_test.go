package metered_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kilndb/kiln/objstore"
	"github.com/kilndb/kiln/objstore/memory"
	"github.com/kilndb/kiln/objstore/metered"
	"github.com/kilndb/kiln/objstore/objstoretest"
)

func TestBucket(t *testing.T) {
	objstoretest.Run(t, func(*testing.T) objstore.Bucket { return metered.New(memory.New(), prometheus.NewRegistry()) })
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	faulty := objstoretest.NewFaulty(memory.New())
	b := metered.New(faulty, reg)
	ctx := t.Context()
	cancelled, cancel := context.WithCancel(ctx)
	cancel()

	b.Put(ctx, "k", make([]byte, 100))
	b.PutFrom(ctx, "k2", strings.NewReader("0123456789"), 10)
	b.PutIfAbsent(ctx, "k3", make([]byte, 1))
	b.PutIfAbsent(ctx, "k", make([]byte, 1000))
	b.Get(ctx, "k")
	b.Get(ctx, "none")
	b.Get(cancelled, "k")
	b.GetRange(ctx, "k", 10, 20)
	b.GetRange(ctx, "k", 90, 20)
	b.Attributes(ctx, "k")
	b.List(ctx, "", func(objstore.Attributes) error { return nil })
	b.Delete(ctx, "k")
	faulty.Fail(objstoretest.AfterPut, errors.New("lost answer"), 1)
	b.Put(ctx, "k", make([]byte, 5000))

	want := map[string]float64{
		"kiln_bucket_operations_total put ok":               2,
		"kiln_bucket_operations_total put error":            1,
		"kiln_bucket_operations_total put_if_absent ok":     1,
		"kiln_bucket_operations_total put_if_absent exists": 1,
		"kiln_bucket_operations_total get ok":               1,
		"kiln_bucket_operations_total get not_found":        1,
		"kiln_bucket_operations_total get cancelled":        1,
		"kiln_bucket_operations_total get_range ok":         1,
		"kiln_bucket_operations_total get_range error":      1,
		"kiln_bucket_operations_total attributes ok":        1,
		"kiln_bucket_operations_total list ok":              1,
		"kiln_bucket_operations_total delete ok":            1,
		"kiln_bucket_operation_seconds put":                 3,
		"kiln_bucket_operation_seconds put_if_absent":       2,
		"kiln_bucket_operation_seconds get":                 3,
		"kiln_bucket_operation_seconds get_range":           2,
		"kiln_bucket_operation_seconds attributes":          1,
		"kiln_bucket_operation_seconds list":                1,
		"kiln_bucket_operation_seconds delete":              1,
		"kiln_bucket_bytes_total read":                      120,
		"kiln_bucket_bytes_total written":                   111,
	}
	if got := gather(t, reg); !maps.Equal(got, want) {
		t.Errorf("metrics: %v, want %v", got, want)
	}
}

// gather returns the value of every counter and the count of every histogram, by name and label values.
func gather(t *testing.T, reg prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			name := family.GetName()
			for _, label := range metric.GetLabel() {
				name += fmt.Sprint(" ", label.GetValue())
			}
			if histogram := metric.GetHistogram(); histogram != nil {
				all[name] = float64(histogram.GetSampleCount())
			} else {
				all[name] = metric.GetCounter().GetValue()
			}
		}
	}
	return all
}
