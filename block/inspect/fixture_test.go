package inspect

import (
	"bytes"
	"fmt"
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
	for _, name := range []string{"segment", "block"} {
		b, err := os.ReadFile("../testdata/v1-" + name + ".kiln")
		if err != nil {
			t.Fatal(err)
		}
		all["golden "+name] = b
	}
	return all
}
