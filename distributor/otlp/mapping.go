package otlp

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/pprof"
)

const (
	serviceAttribute    = "service.name"
	executableAttribute = "process.executable.name"
	buildIDAttribute    = "process.executable.build_id.gnu"
	unknownService      = "unknown_service"
)

// malformed is an error of what was sent.
func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %w", pprof.ErrMalformed, fmt.Errorf(format, args...))
}

// origin is where a profile stands in a request.
type origin struct{ resource, scope, profile int }

func (o origin) String() string {
	return fmt.Sprintf("resource %d scope %d profile %d", o.resource, o.scope, o.profile)
}

// header is what a profile says of itself.
type header struct {
	sample, period        profile.SampleType
	id                    profile.ID
	time, duration, every int64
}

// kind is what a profile is stored as: its __name__, and what its values mean.
type kind struct {
	name           string
	sample, period profile.SampleType
	// factor by which each value is multiplied.
	factor int64
}

// kindOf returns the kind of a profile. Samples that are counted at intervals of CPU time become that time: it is what
// profilers of other protocols send, so that they can be compared.
func kindOf(h header) kind {
	k := kind{name: h.period.Type, sample: h.sample, period: h.period, factor: 1}
	cpu := profile.SampleType{Type: "cpu", Unit: "nanoseconds"}
	switch {
	case h.sample == (profile.SampleType{Type: "off_cpu", Unit: "nanoseconds"}):
		k.name = "off_cpu"
	case h.sample == (profile.SampleType{Type: "samples", Unit: "count"}) && h.period == cpu:
		k.name = "process_cpu"
		if h.every > 0 { // else nobody knows what a sample stands for
			k.sample, k.factor = cpu, h.every
		}
	case k.name == "":
		k.name = "process_cpu"
	}
	return k
}

// multiply returns v times factor, which is positive.
func multiply(v, factor int64) (int64, error) {
	if v > math.MaxInt64/factor || v < math.MinInt64/factor {
		return 0, malformed("its value %d times the period %d overflows", v, factor)
	}
	return v * factor, nil
}

// serviceOf returns the service of samples that do not name theirs.
func serviceOf(attributes labels.Labels) string {
	if s := first(attributes, serviceAttribute); s != "" {
		return s
	}
	if s := first(attributes, executableAttribute); s != "" {
		return unknownService + ":" + s
	}
	return unknownService
}

func first(attributes labels.Labels, name string) string {
	for _, a := range attributes {
		if a.Name == name {
			return a.Value
		}
	}
	return ""
}

// seriesOf returns the labels of a series: the attributes, of equal names the first, and what we say ourselves. Names
// between double underscores are ours.
func seriesOf(attributes labels.Labels, service, name string) labels.Labels {
	series := make(labels.Labels, 0, len(attributes)+4)
	for _, a := range attributes {
		if a.Name != serviceAttribute && a.Name != labels.ServiceName && !strings.HasPrefix(a.Name, "__") {
			series = append(series, a)
		}
	}
	series = append(series,
		labels.Label{Name: labels.Name, Value: name},
		labels.Label{Name: labels.ServiceName, Value: service},
		labels.Label{Name: labels.Delta, Value: "false"}, // values are of the capture, not since the program began
		labels.Label{Name: "__otel__", Value: "true"},
	)
	slices.SortStableFunc(series, func(a, b labels.Label) int { return strings.Compare(a.Name, b.Name) })
	return slices.CompactFunc(series, func(a, b labels.Label) bool { return a.Name == b.Name })
}

// identities gives each profile that is stored an id, the same whenever the same request is sent. Two that would be
// taken for copies of each other, for one time and series, get different ones.
type identities struct {
	body []byte
	// digest is that of the body, once it is needed.
	digest []byte
	taken  map[identity]int
}

// identity is what tells stored profiles apart, but for the time.
type identity struct {
	id             profile.ID
	series         uint64
	sample, period profile.SampleType
}

// of returns the id of a profile that the sender gave this one, or none.
func (x *identities) of(id profile.ID, o origin, series labels.Labels, k kind) profile.ID {
	if id == (profile.ID{}) {
		if x.digest == nil {
			sum := sha256.Sum256(x.body)
			x.digest = sum[:]
		}
		id = derive(x.digest, o.resource, o.scope, o.profile)
	}
	key := identity{id, series.Hash(), k.sample, k.period}
	n := x.taken[key]
	if x.taken == nil {
		x.taken = map[identity]int{}
	}
	x.taken[key]++
	if n > 0 {
		id = derive(id[:], n)
	}
	return id
}

// derive returns an id that follows from bytes and numbers: a UUID of version 8.
func derive(from []byte, numbers ...int) profile.ID {
	b := slices.Clone(from)
	for _, n := range numbers {
		b = binary.LittleEndian.AppendUint64(b, uint64(n))
	}
	sum := sha256.Sum256(b)
	id := profile.ID(sum[:16])
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80
	return id
}
