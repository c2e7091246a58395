package node_test

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/kilndb/kiln/distributor/otlp"
	"github.com/kilndb/kiln/node/nodetest"
)

// otlpWays are the doors for OpenTelemetry's protocol; what travels is a request.
func otlpWays() []way {
	return []way{
		{"OTLP", otlp.Path, "application/x-protobuf", "Content-Encoding", whole(bytes.Clone)},
		{"OTLP gRPC", otlp.Procedure, "application/grpc+proto", "Grpc-Encoding", envelope(bytes.Clone)},
	}
}

func otlpJSON() way {
	return way{"OTLP JSON", otlp.Path, "application/json", "Content-Encoding", whole(bytes.Clone)}
}

// field is a protobuf field of bytes.
func field(number protowire.Number, content []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), content)
}

// noise cannot be compressed: with it a bomb keeps to the ratio.
func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b)
	return b
}

// TestHostileOTLP sends many requests at once that are short and become long, inflated or decoded, through each door.
func TestHostileOTLP(t *testing.T) {
	n := hostile(t, nil)
	profile := func(content []byte) []byte { return field(1, field(2, field(2, content))) }
	// Within the limits of a message, which count for one request.
	text := func(size int) []byte { return field(2, field(5, append(make([]byte, size), noise(size/150)...))) }
	for name, body := range map[string]func() []byte{ // made when they are sent: what a test holds lets the heap grow
		"zeros":             func() []byte { return append(make([]byte, 60<<20), noise(400<<10)...) },
		"a bomb":            func() []byte { return make([]byte, 256<<20) },
		"a long text":       func() []byte { return text(28 << 20) },
		"hollow samples":    func() []byte { return profile(bytes.Repeat([]byte{0x12, 0}, 400_000)) },
		"hollow profiles":   func() []byte { return field(1, field(2, bytes.Repeat([]byte{0x12, 0}, 180_000))) },
		"hollow resources":  func() []byte { return bytes.Repeat([]byte{0x0a, 0}, 300_000) },
		"hollow attributes": func() []byte { return field(2, bytes.Repeat([]byte{0x32, 0}, 500_000)) },
		"packed moments":    func() []byte { return profile(field(2, field(5, make([]byte, 16<<20)))) },
		"a long length":     func() []byte { return []byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x07, 1, 2, 3} },
	} {
		t.Run(name, func(t *testing.T) { besides(t, n, flood(t, n, otlpWays(), body())) })
	}
	for name, body := range map[string]string{
		"a long text":    `{"dictionary":{"stringTable":["` + strings.Repeat("x", 28<<20) + `"]}}`,
		"hollow samples": `{"resourceProfiles":[{"scopeProfiles":[{"profiles":[{"samples":[` + strings.Repeat("{},", 150_000) + `{}]}]}]}]}`,
		"numbers":        `{"dictionary":{"stackTable":[{"locationIndices":[` + strings.Repeat("1,", 1_000_000) + `1]}]}}`,
		"deep":           `{"resourceProfiles":` + strings.Repeat(`[{"x":`, 1<<20),
		"an open text":   `{"resourceProfiles":"` + strings.Repeat(`\"`, 1<<20),
	} {
		t.Run("JSON "+name, func(t *testing.T) {
			attack := flood(t, n, []way{otlpJSON()}, append([]byte(body), noise(len(body)/150)...))
			besides(t, n, attack)
		})
	}
}

// flood returns an attack: a body through doors many times at once, gzipped. Whatever it is, its sender learns that it is bad, that
// there is no room now, or that all of nothing is stored.
func flood(t *testing.T, n *nodetest.Node, doors []way, body []byte) func() {
	zipped := make([][]byte, len(doors))
	for i, w := range doors {
		zipped[i] = w.wrap(body, true)
	}
	allowed := []string{connect.CodeInvalidArgument.String(), connect.CodeResourceExhausted.String(), "ok"}
	return func() {
		var group sync.WaitGroup
		for i, w := range doors {
			for range 16 {
				group.Go(func() {
					if got := outcome(n.HTTP().Do(w.request(n, "mallory", bytes.NewReader(zipped[i]), true))); !slices.Contains(allowed, got) {
						t.Errorf("%s: %s", w.name, got)
					}
				})
			}
		}
		group.Wait()
	}
}
