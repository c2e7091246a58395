package otlp

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/kilndb/kiln/distributor/otlp/otlptest"
)

// nested returns a message within messages, given the numbers of the fields from the outside in.
func nested(content []byte, path ...protowire.Number) []byte {
	for i := len(path) - 1; i >= 0; i-- {
		content = protowire.AppendBytes(protowire.AppendTag(nil, path[i], protowire.BytesType), content)
	}
	return content
}

// amplified are the requests that take most memory for their length: one kind of message each, as small as it can be.
func amplified(n int) map[string][]byte {
	many := func(path ...protowire.Number) []byte {
		last := len(path) - 1
		return nested(bytes.Repeat(nested(nil, path[last]), n), path[:last]...)
	}
	packed := func(path ...protowire.Number) []byte { return nested(make([]byte, n), path...) }
	unpacked := func(number protowire.Number, path ...protowire.Number) []byte {
		return nested(bytes.Repeat(protowire.AppendVarint(protowire.AppendTag(nil, number, protowire.VarintType), 0), n), path...)
	}
	return map[string][]byte{
		"resources": many(1), "scopes": many(1, 2), "profiles": many(1, 2, 2), "samples": many(1, 2, 2, 2),
		"resource attributes": many(1, 1, 1), "entities": many(1, 1, 3), "keys of entities": many(1, 1, 3, 3),
		"scope attributes": many(1, 2, 1, 3), "values of an attribute": many(1, 1, 1, 2, 1),
		"values of a list": many(1, 1, 1, 2, 5, 1), "values of a map": many(1, 1, 1, 2, 6, 1),
		"mappings": many(2, 1), "locations": many(2, 2), "functions": many(2, 3), "links": many(2, 4), "strings": many(2, 5),
		"attributes": many(2, 6), "stacks": many(2, 7), "lines": many(2, 2, 3),
		"texts": many(2, 6, 2, 1), "lists": many(2, 6, 2, 5),
		"packed values": packed(1, 2, 2, 2, 4), "packed attributes of samples": packed(1, 2, 2, 2, 2), "packed moments": packed(1, 2, 2, 2, 5),
		"packed attributes of profiles": packed(1, 2, 2, 11), "packed locations": packed(2, 7, 1), "packed attributes of mappings": packed(2, 1, 5),
		"packed attributes of locations": packed(2, 2, 4),
		"values":                         unpacked(4, 1, 2, 2, 2), "locations of a stack": unpacked(1, 2, 7),
	}
}

// What a request takes is never more than what the guard thinks, so that its limit is one.
func TestTheGuardKnowsWhatRequestsTake(t *testing.T) {
	s := newShape()
	for name, body := range amplified(20_000) {
		low, high := 0, 1<<30 // the smallest limit that lets it pass
		for low < high {
			if middle := (low + high) / 2; errOf(s.check(body, middle)) == nil {
				high = middle
			} else {
				low = middle + 1
			}
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := decodeExport(body, false)
		runtime.ReadMemStats(&after)
		if taken := after.TotalAlloc - before.TotalAlloc; taken > uint64(high)+64<<10 {
			t.Errorf("%s: %d bytes take %d, more than %d", name, len(body), taken, high)
		}
		_ = err // whether it is in order does not matter here
		if err := errOf(s.check(body, high/2)); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v, want it too large", name, err)
		}
	}
}

func TestTheGuardOfJSONKnowsWhatRequestsTake(t *testing.T) {
	const n = 20_000
	list := func(before, item, after string) string {
		return before + strings.TrimSuffix(strings.Repeat(item+",", n), ",") + after
	}
	for name, body := range map[string]string{
		"resources":  list(`{"resourceProfiles":[`, `{}`, `]}`),
		"scopes":     list(`{"resourceProfiles":[{"scopeProfiles":[`, `{}`, `]}]}`),
		"profiles":   list(`{"resourceProfiles":[{"scopeProfiles":[{"profiles":[`, `{}`, `]}]}]}`),
		"samples":    list(`{"resourceProfiles":[{"scopeProfiles":[{"profiles":[{"samples":[`, `{}`, `]}]}]}]}`),
		"values":     list(`{"resourceProfiles":[{"scopeProfiles":[{"profiles":[{"samples":[{"values":[`, `1`, `]}]}]}]}]}`),
		"attributes": list(`{"resourceProfiles":[{"resource":{"attributes":[`, `{"value":{"intValue":1}}`, `]}}]}`),
		"strings":    list(`{"dictionary":{"stringTable":[`, `""`, `]}}`),
		"links":      list(`{"dictionary":{"linkTable":[`, `{}`, `]}}`),
		"stacks":     list(`{"dictionary":{"stackTable":[`, `{"locationIndices":[1]}`, `]}}`),
	} {
		low, high := 0, 1<<30
		for low < high {
			if middle := (low + high) / 2; errOf(checkJSON([]byte(body), middle)) == nil {
				high = middle
			} else {
				low = middle + 1
			}
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := decodeExport([]byte(body), true); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		runtime.ReadMemStats(&after)
		if taken := after.TotalAlloc - before.TotalAlloc; taken > uint64(high)+64<<10 {
			t.Errorf("%s: %d bytes take %d, more than %d", name, len(body), taken, high)
		}
	}
}

func TestTheGuardLetsRealRequestsPass(t *testing.T) {
	s := newShape()
	for _, samples := range []int{1, 100, 16_000} {
		r := ebpf(samples)
		if err := errOf(s.check(r.Proto(), 32<<20)); err != nil {
			t.Errorf("%d samples: %v", samples, err)
		}
		if err := errOf(checkJSON(r.JSON(), 64<<20)); err != nil {
			t.Errorf("%d samples as JSON: %v", samples, err)
		}
	}
	if err := errOf(s.check(nil, 1<<20)); err != nil {
		t.Errorf("an empty request: %v", err)
	}
	r := otlptest.New()
	r.Resource("service.name", "a", "list", []any{[]any{[]any{"deep"}}}, "map", map[string]any{"a": map[string]any{"b": "c"}})
	if err := errOf(s.check(r.Proto(), 1<<20)); err != nil {
		t.Errorf("nested attributes: %v", err)
	}
}

// A decoder without a bound for its depth ends the process: its stack overflows, which nothing recovers from.
func TestDeepNestingIsRefused(t *testing.T) {
	const levels = 1_000_000
	var deep []byte
	for range 100 { // 5 is the list of a value, 1 the values of a list
		deep = nested(deep, 5, 1)
	}
	for name, body := range map[string][]byte{
		"of a resource":     nested(deep, 1, 1, 1, 2),
		"in the dictionary": nested(deep, 2, 6, 2),
	} {
		if err := errOf(newShape().check(body, 64<<20)); !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), "deep") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, open := range []string{`{"arrayValue":{"values":[`, `[`, `{"a":`} {
		body := fmt.Sprintf(`{"resourceProfiles":[{"resource":{"attributes":[{"value":%s`, strings.Repeat(open, levels))
		if err := errOf(checkJSON([]byte(body), 1<<40)); !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), "deep") {
			t.Errorf("JSON %s: %v", open, err)
		}
	}
	if err := errOf(checkJSON([]byte(`{"a":"{{{[[[\"{{{","b":"\\"}`+strings.Repeat(" ", 10)), 1<<20)); err != nil {
		t.Errorf("brackets in texts: %v", err)
	}
}

func errOf(_ int, err error) error { return err }
