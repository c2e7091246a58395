package inspect

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/kilndb/kiln/block/inspect/inspecttest"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/oracle"
)

// segment holds every third corpus file of two tenants.
func segment(t testing.TB) inspecttest.Object {
	t.Helper()
	var pushes []inspecttest.Push
	for i, f := range corpus.All() {
		if i%3 == 0 {
			pushes = append(pushes, push(f, []string{"acme", "other"}[i%2], i))
		}
	}
	return inspecttest.Segment(t, pushes...)
}

// small holds little, so that every byte of it can be tried.
func small(t testing.TB) inspecttest.Object {
	t.Helper()
	return inspecttest.Segment(t,
		push(corpus.Get("regexp-mutex-0"), "acme", 1), push(corpus.Get("regexp-mutex-1"), "acme", 2),
		push(corpus.Get("regexp-mutex-1"), "other", 3))
}

// spanned is a segment of which some samples have spans, traces and times.
func spanned(t testing.TB) inspecttest.Object {
	t.Helper()
	pushes := []inspecttest.Push{push(corpus.Get("regexp-mutex-0"), "acme", 1), push(corpus.Get("regexp-cpu-0"), "acme", 2), push(corpus.Get("regexp-mutex-1"), "acme", 3)}
	for i := range 2 {
		var out bytes.Buffer
		p := oracle.Parse(pushes[i].Body)
		for j, s := range p.Sample {
			s.Label = map[string][]string{"span_id": {fmt.Sprintf("%016x", j%5+1)}}
			if j%3 == 0 {
				s.Label = map[string][]string{"trace_id": {fmt.Sprintf("%032x", j+1)}}
			}
			pushes[i].Times = append(pushes[i].Times, []int64{int64(j), int64(j * j)}[:j%3])
		}
		if err := p.WriteUncompressed(&out); err != nil {
			t.Fatal(err)
		}
		pushes[i].Body = out.Bytes()
	}
	return inspecttest.Segment(t, pushes...)
}

func push(f corpus.File, tenant string, i int) inspecttest.Push {
	return inspecttest.Push{
		Tenant: tenant, Service: f.Service(), Kind: f.Kind(), Time: 1_700_000_000_000_000_000 + int64(i)*1e9, ID: profile.ID{byte(i)},
		Labels: labels.FromStrings("file", f.Name), Body: f.Gzipped,
	}
}

// objects are good objects of every sort.
func objects(t testing.TB) map[string]inspecttest.Object {
	t.Helper()
	s := segment(t)
	all := map[string]inspecttest.Object{"segment": s, "small segment": small(t), "empty segment": inspecttest.Segment(t), "spans": spanned(t)}
	all["spans in a block"] = inspecttest.Merge(t, "acme", 2, all["spans"], small(t))
	for level := range uint32(2) {
		all[fmt.Sprintf("block of level %d", 1+level)] = inspecttest.Merge(t, "acme", 1+level, s, small(t))
	}
	all["block with rollups"] = withRollups(t)
	for _, name := range []string{"segment", "block", "rollup", "series"} {
		b, err := os.ReadFile("../testdata/v1-" + name + ".kiln")
		if err != nil {
			t.Fatal(err)
		}
		all["golden "+name] = b
	}
	return all
}

// withRollups holds a morning of two pods, so that every sort of rollup pays, and CPU samples, so that nanoseconds are
// multiples of counts.
func withRollups(t testing.TB) inspecttest.Object {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	var pushes []inspecttest.Push
	for i := range 200 {
		f := corpus.Get([]string{"regexp-mutex-0", "regexp-cpu-1"}[i%2])
		p := oracle.Parse(f.Gzipped)
		for _, s := range p.Sample {
			factor := 1 + random.Int64N(1000)
			for c := range s.Value {
				s.Value[c] *= factor
			}
		}
		var body bytes.Buffer
		if err := p.Write(&body); err != nil {
			t.Fatal(err)
		}
		pushes = append(pushes, inspecttest.Push{
			Tenant: "acme", Service: f.Service(), Kind: f.Kind(), Time: 1_700_000_000_000_000_000 + int64(i/100)*3600e9 + int64(i)*1e9,
			ID: profile.ID{byte(i), byte(i >> 8)}, Labels: labels.FromStrings("pod", fmt.Sprint(i/2%2)), Body: body.Bytes(),
		})
	}
	return inspecttest.Merge(t, "acme", 4, inspecttest.Segment(t, pushes...))
}
