package index

import (
	"crypto/rand"
	"fmt"
	"math"
	mathrand "math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/labels"
)

// meta returns a segment with one dataset per service of each tenant, all of the same times.
func meta(id ulid.ULID, from, to int64, services map[string][]string) *storagev1.BlockMeta {
	m := &storagev1.BlockMeta{Id: id.String(), MinTime: from, MaxTime: to, Size: 10, Strings: []string{""}}
	ref := func(s string) uint32 {
		if i := slices.Index(m.Strings, s); i >= 0 {
			return uint32(i)
		}
		m.Strings = append(m.Strings, s)
		return uint32(len(m.Strings) - 1)
	}
	for _, tenant := range []string{"a", "b", "c"} {
		if len(services[tenant]) == 0 {
			continue
		}
		m.Groups = append(m.Groups, &storagev1.Group{Tenant: ref(tenant)})
		for _, service := range slices.Sorted(slices.Values(services[tenant])) {
			m.Datasets = append(m.Datasets, &storagev1.Dataset{
				Tenant: ref(tenant), Service: ref(service), Group: uint32(len(m.Groups) - 1), MinTime: from, MaxTime: to,
			})
		}
	}
	return m
}

// entryOf returns the entry of a message.
func entryOf(t require, m *storagev1.BlockMeta) *entry {
	encoded, err := encode(m)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return newEntry(ulid.MustParse(m.Id), encoded)
}

func selector(t require, s string) labels.Selector {
	sel, err := labels.ParseSelector(s)
	if err != nil {
		t.Fatalf("selector %s: %v", s, err)
	}
	return sel
}

type require interface{ Fatalf(string, ...any) }

// find is Find without an index.
func find(entries []*storagev1.BlockMeta, q Query) (found []*storagev1.BlockMeta) {
	for _, m := range entries {
		var ds []*storagev1.Dataset
		for _, d := range m.Datasets {
			anyTime := q.Start == 0 && q.End == 0
			if slices.Contains(q.Tenants, m.Strings[d.Tenant]) && (anyTime || d.MinTime < q.End && d.MaxTime >= q.Start) &&
				q.Selector.Matches(func(name string) string {
					if name != labels.ServiceName {
						panic("only the service decides: " + name)
					}
					return m.Strings[d.Service]
				}) {
				ds = append(ds, d)
			}
		}
		if len(ds) > 0 {
			c := proto.CloneOf(m)
			c.Datasets = ds
			found = append(found, c)
		}
	}
	slices.SortFunc(found, func(a, b *storagev1.BlockMeta) int { return ulid.MustParse(a.Id).Compare(ulid.MustParse(b.Id)) })
	return found
}

func TestFindIsASearchOfAll(t *testing.T) {
	selectors := []string{
		"{}", `{service_name="web"}`, `{service_name!="web"}`, `{service_name=~"w.*"}`, `{service_name=~"db|web"}`, `{service_name!~"w.*"}`,
		`{service_name="absent"}`, `{service_name=""}`, `{service_name="web",service_name=~"d.*"}`, `{service_name=~".*",service_name!="db"}`,
	}
	rapid.Check(t, func(t *rapid.T) {
		x := New()
		var live []*storagev1.BlockMeta
		times := rapid.Int64Range(-5, 20)
		names := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"web", "worker", "db", "x"}), 0, 3, rapid.ID)
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				from := times.Draw(t, "from")
				m := meta(ulid.MustNew(uint64(rapid.IntRange(1, 9).Draw(t, "ms")), rand.Reader), from, from+rapid.Int64Range(0, 10).Draw(t, "length"),
					map[string][]string{"a": names.Draw(t, "a"), "b": names.Draw(t, "b")})
				if len(m.Datasets) == 0 {
					return
				}
				live = append(live, m)
				x.next = x.next.with(entryOf(t, m), m)
			},
			"remove": func(t *rapid.T) {
				if len(live) == 0 {
					return
				}
				i := rapid.IntRange(0, len(live)-1).Draw(t, "i")
				m := proto.CloneOf(live[i]) // as it comes out of the file
				live = slices.Delete(live, i, i+1)
				x.next = x.next.without(&entry{id: ulid.MustParse(m.Id)}, m)
			},
			"": func(t *rapid.T) {
				x.Commit(x.View().Index() + 1)
				before := x.View()
				q := Query{
					Tenants: rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), 1, 3).Draw(t, "tenants"),
					Start:   times.Draw(t, "start"), Selector: selector(t, rapid.SampledFrom(selectors).Draw(t, "selector")),
				}
				q.End = q.Start + rapid.Int64Range(1, 10).Draw(t, "range")
				if rapid.Bool().Draw(t, "any time") {
					q.Start, q.End = 0, 0
				}
				if rapid.Bool().Draw(t, "after a restart") {
					var entries loading
					for _, m := range live {
						entries.add(entryOf(t, m), m)
					}
					before = entries.view(1)
				}
				got, want := before.Find(q), find(live, q)
				if !slices.EqualFunc(got, want, func(a, b *storagev1.BlockMeta) bool { return proto.Equal(a, b) }) {
					t.Fatalf("%+v: found %v, want %v", q, got, want)
				}
				size := uint64(0)
				for _, m := range live {
					size += m.Size
				}
				if l := before.Levels(); len(live) > 0 && (l[0] != Level{uint64(len(live)), size}) {
					t.Fatalf("level 0 is %v, want %d entries of %d bytes", l, len(live), size)
				}
			},
		})
		for _, m := range live {
			x.next = x.next.without(&entry{id: ulid.MustParse(m.Id)}, m)
		}
		if x.Commit(1); !x.View().tenants.empty() {
			t.Fatalf("an empty index has tenants")
		}
	})
}

func TestAnOldViewStaysAsItWas(t *testing.T) {
	x := New()
	for i := range 100 {
		m := meta(ulid.MustNew(uint64(i), rand.Reader), int64(i), int64(i), map[string][]string{"a": {"web"}})
		x.next = x.next.with(entryOf(t, m), m)
	}
	x.Commit(1)
	old := x.View()
	want := old.Find(Query{Tenants: []string{"a"}})
	for _, m := range want[:50] {
		x.next = x.next.without(&entry{id: ulid.MustParse(m.Id)}, m)
	}
	x.Commit(2)
	if got := old.Find(Query{Tenants: []string{"a"}}); !slices.Equal(got, want) {
		t.Errorf("the old view has %d entries, want %d", len(got), len(want))
	}
	if got := x.View().Find(Query{Tenants: []string{"a"}}); len(got) != 50 {
		t.Errorf("the new view has %d entries, want 50", len(got))
	}
}

func TestEdgesOfTime(t *testing.T) {
	x := New()
	m := meta(ulid.MustNew(1, rand.Reader), 10, 20, map[string][]string{"a": {"web"}})
	x.next = x.next.with(entryOf(t, m), m)
	x.Commit(1)
	for _, c := range []struct {
		start, end int64
		want       bool
	}{
		{0, 10, false}, {0, 11, true}, {20, 21, true}, {21, 30, false}, {12, 13, true}, {0, 0, true},
		{math.MinInt64, math.MaxInt64, true}, {math.MinInt64, 10, false}, {21, math.MaxInt64, false},
	} {
		if got := len(x.View().Find(Query{Tenants: []string{"a"}, Start: c.start, End: c.end})) == 1; got != c.want {
			t.Errorf("[%d, %d) finds it: %v, want %v", c.start, c.end, got, c.want)
		}
	}
}

// large returns an index of n entries, ten services in each, one every 15 s.
func large(b *testing.B, n int) *Index {
	var entries loading
	for i := range n {
		m := largeEntry(i)
		entries.add(entryOf(b, m), m)
	}
	x := New()
	x.publish(entries.view(1))
	return x
}

func largeEntry(i int) *storagev1.BlockMeta {
	from := int64(i) * int64(15*time.Second)
	services := make([]string, 10)
	for s := range services {
		services[s] = fmt.Sprintf("service-%d", (i+s*7)%100)
	}
	return meta(ulid.MustNew(uint64(i), rand.Reader), from, from+int64(30*time.Second), map[string][]string{"a": services})
}

func BenchmarkFind(b *testing.B) {
	const n = 100_000
	x := large(b, n)
	for name, sel := range map[string]string{"service": `{service_name="service-3"}`, "regex": `{service_name=~"service-3.*"}`, "all": "{}"} {
		b.Run(name, func(b *testing.B) {
			q := Query{Tenants: []string{"a"}, Selector: selector(b, sel)}
			found := 0
			for b.Loop() {
				q.Start = mathrand.Int64N(n) * int64(15*time.Second)
				q.End = q.Start + int64(time.Hour)
				found += len(x.View().Find(q))
			}
			b.ReportMetric(float64(found)/float64(b.N), "entries/op")
		})
	}
}

func BenchmarkAdd(b *testing.B) {
	const n = 100_000
	x := large(b, n)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		m := largeEntry(n + i)
		x.next = x.next.with(entryOf(b, m), m)
		x.Commit(1)
	}
}

func BenchmarkNewView(b *testing.B) {
	metas, all := make([]*storagev1.BlockMeta, 100_000), make([]*entry, 100_000)
	for i := range metas {
		metas[i] = largeEntry(i)
		all[i] = entryOf(b, metas[i])
	}
	for b.Loop() {
		var entries loading
		for i, e := range all {
			entries.add(e, metas[i])
		}
		entries.view(1)
	}
}

// A filter without a bit says that no series has any label, one with all bits that every pair may be there.
func TestFindSkipsWhatTheFilterExcludes(t *testing.T) {
	x := New()
	for i, filter := range [][]byte{{0, 0, 0}, {0xff, 0xff, 0xff}, nil} {
		m := meta(ulid.MustNew(uint64(i), rand.Reader), 1, 2, map[string][]string{"a": {"db", "web"}})
		m.Datasets[1].LabelFilter = filter
		x.next = x.next.with(entryOf(t, m), m)
	}
	x.Commit(1)
	for sel, want := range map[string]int{
		"{}": 6, `{namespace="x"}`: 5, `{service_name="web",namespace="x"}`: 2, `{service_name="db",namespace="x"}`: 3,
		`{namespace!="x"}`: 6, `{namespace=~"x|y"}`: 6, `{namespace=""}`: 6, `{__profile_type__="x"}`: 6, `{namespace="x",pod="y"}`: 5,
	} {
		got := 0
		for _, m := range x.View().Find(Query{Tenants: []string{"a"}, Selector: selector(t, sel)}) {
			got += len(m.GetDatasets())
		}
		if got != want {
			t.Errorf("%s finds %d datasets, want %d", sel, got, want)
		}
	}
}
