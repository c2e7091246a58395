package otlp

import (
	"context"
	"errors"
	"testing"

	"connectrpc.com/connect"

	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/pprof"
	"github.com/kilndb/kiln/tenant"
)

// prober is a Store that does with profiles what the rest of the way does, and fails if it cannot.
type prober struct {
	t   *testing.T
	lim tenant.Limits
}

func (s prober) Store(_ context.Context, _ tenant.ID, _ int, uploads []Upload) []error {
	results := make([]error, len(uploads))
	for i, u := range uploads {
		p := &profile.Profile{}
		p.Reset()
		if results[i] = u.Fill(p); results[i] != nil {
			if !errors.Is(results[i], pprof.ErrMalformed) && !errors.Is(results[i], pprof.ErrTooLarge) {
				s.t.Errorf("fill: %v", results[i])
			}
			continue
		}
		s.probe(p)
	}
	return results
}

// probe wants what was filled to be a profile: the decoder of pprof checks every reference.
func (s prober) probe(p *profile.Profile) {
	count := p.Samples()
	for what, n := range map[string]int{"spans": len(p.Spans), "traces": len(p.Traces), "moments": len(p.TimeEnds)} {
		if n != 0 && n != count {
			s.t.Errorf("%d %s of %d samples", n, what, count)
		}
	}
	decode := func() {
		back := &profile.Profile{}
		if err := pprof.NewDecoder().Decode(pprof.Append(nil, p), pprof.Limits{MaxBytes: 64 << 20}, back); err != nil {
			s.t.Errorf("what was filled is refused: %v", err)
		}
	}
	decode()
	if _, err := p.Normalise(profile.Limits{MaxStackDepth: s.lim.MaxStackDepth, MaxSymbolLength: s.lim.MaxSymbolLength}); err == nil {
		decode()
	}
}

func (s prober) Check(ls labels.Labels, lim tenant.Limits) error { return (&keeper{}).Check(ls, lim) }
func (s prober) Discard(error, int)                              {}
func (s prober) Turn(context.Context, tenant.ID) (func(), error) { return func() {}, nil }
func (s prober) Hold(tenant.ID, int) (func(), error)             { return func() {}, nil }

func FuzzExport(f *testing.F) {
	for _, r := range []func() []byte{
		func() []byte { return whole().Proto() }, func() []byte { return three().Proto() }, func() []byte { return ebpf(20).Proto() },
	} {
		f.Add(r(), false)
	}
	f.Add(whole().JSON(), true)
	f.Add(three().JSON(), true)
	for _, body := range amplified(3) {
		f.Add(body, false)
	}
	f.Fuzz(func(t *testing.T, body []byte, isJSON bool) {
		lim := tenant.DefaultLimits()
		lim.MaxRequestBytes, lim.MaxProfileBytes = 8<<20, 1<<20
		x := newExporter(&keeper{}, func(l *tenant.Limits) { *l = lim })
		x.store = prober{t, lim}
		_, err := x.export(t.Context(), "acme", body, len(body), isJSON)
		if code := connect.CodeOf(err); err != nil && code != connect.CodeInvalidArgument {
			t.Errorf("%s: %v", code, err)
		}
	})
}
