package block

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/corpus"
)

// merge merges objects into one of a tenant and returns its bytes.
func merge(t testing.TB, tenant string, level uint32, objects ...[]byte) []byte {
	t.Helper()
	var readers []*Reader
	for _, b := range objects {
		readers = append(readers, open(t, b))
	}
	var out bytes.Buffer
	w := NewWriter(&out, Header{ID: fmt.Sprintf("01BLOCK%d", level), Tenant: tenant, Shard: 3, Level: level, Writer: "node-2"})
	if err := Merge(t.Context(), tenant, readers, w); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// corpusSegments spreads the corpus over n segments of two tenants.
func corpusSegments(t testing.TB, n int) [][]byte {
	t.Helper()
	heads := make([]head, n)
	for i, f := range corpus.All() {
		tenant := "acme"
		if i%7 == 0 {
			tenant = "other"
		}
		heads[i%n].push(tenant, decode(t, f), int64(5000+i), profile.ID{byte(i), 7}, labels.FromStrings("pod", fmt.Sprint(i%3)))
	}
	var all [][]byte
	for i := range heads {
		all = append(all, heads[i].segment(t, fmt.Sprintf("01SEGMENT%d", i)))
	}
	return all
}

func TestMergeKeepsEverySumInAnyOrder(t *testing.T) {
	segments := corpusSegments(t, 5)
	var readers []*Reader
	for _, b := range segments {
		readers = append(readers, open(t, b))
	}
	want := content(t, readers, "acme")
	if len(want) < 10000 {
		t.Fatalf("only %d rows to compare", len(want))
	}
	straight := merge(t, "acme", 1, segments...)
	sameContent(t, "all at once", content(t, []*Reader{open(t, straight)}, "acme"), want)
	checkSorted(t, open(t, straight))

	shuffled := slices.Clone(segments)
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	left := merge(t, "acme", 1, shuffled[:2]...)
	right := merge(t, "acme", 1, shuffled[2:]...)
	stepwise := merge(t, "acme", 2, left, right)
	sameContent(t, "in two steps", content(t, []*Reader{open(t, stepwise)}, "acme"), want)
	checkSorted(t, open(t, stepwise))
	mixed := merge(t, "acme", 2, left, shuffled[2], shuffled[3], shuffled[4])
	sameContent(t, "block and segments", content(t, []*Reader{open(t, mixed)}, "acme"), want)
	checkSorted(t, open(t, mixed))
}

// checkSorted checks what sorted groups promise: names sorted and distinct, siblings in the total order, nodes in
// preorder, every node used.
func checkSorted(t testing.TB, r *Reader) {
	t.Helper()
	for _, d := range r.Datasets() {
		sym, err := d.Symbols(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i := 1; i < len(sym.Strings); i++ {
			if bytes.Compare(sym.String(uint32(i-1)), sym.String(uint32(i))) >= 0 {
				t.Fatalf("string %d %q is not after %q", i, sym.String(uint32(i)), sym.String(uint32(i-1)))
			}
		}
		for i := 1; i < len(sym.Locations); i++ {
			if compareContent(sym, uint32(i-1), sym, uint32(i)) >= 0 {
				t.Fatalf("location %d is not after the one before it", i)
			}
		}
		series, err := d.Series(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i := 1; i < len(series); i++ {
			if labels.Compare(series[i-1], series[i]) >= 0 {
				t.Fatalf("series %d is not after the one before it", i)
			}
		}
		for _, rows := range d.Rows {
			checkTrees(t, d, rows, sym)
		}
	}
}

// compareContent is the total order, written down a second time on texts: names root first, files, address,
// lines, columns, system names, start lines, mapping, folded.
func compareContent(a *profile.Symbols, i uint32, b *profile.Symbols, j uint32) int {
	x, y := orderKey(a, i), orderKey(b, j)
	return slices.Compare(x, y)
}

func orderKey(s *profile.Symbols, i uint32) []string {
	l := s.Locations[i]
	var names, files, lines, columns, rest []string
	ls := slices.Clone(s.LinesOf(i))
	slices.Reverse(ls)
	for _, ln := range ls {
		f := s.Functions[ln.Function]
		// A leading 1 lets a longer list come after its prefix, whose list ends with 0.
		names = append(names, "1"+string(s.String(f.Name)))
		files = append(files, "1"+string(s.String(f.File)))
		lines = append(lines, fmt.Sprintf("1%020d", ln.Line))
		columns = append(columns, fmt.Sprintf("1%020d", ln.Column))
		rest = append(rest, "1"+string(s.String(f.SystemName))+fmt.Sprintf("\x00%020d", f.StartLine))
	}
	if len(ls) == 0 {
		names = append(names, fmt.Sprintf("10x%x", l.Address))
	}
	m := s.Mappings[l.Mapping]
	var key []string
	for _, part := range [][]string{names, files, {fmt.Sprintf("%020d", l.Address)}, lines, columns, rest} {
		key = append(append(key, part...), "0")
	}
	return append(key, string(s.String(m.File)), string(s.String(m.BuildID)), fmt.Sprintf("%020d %020d %020d %t", m.Start, m.Limit, m.Offset, l.Folded))
}

func checkTrees(t testing.TB, d *Dataset, rows *Rows, sym *profile.Symbols) {
	t.Helper()
	stack, call, err := rows.Trees(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	checkPreorder(t, stack.Parents, stack.Locations)
	checkPreorder(t, call.Parents, call.Names)
	ps, err := rows.Profiles(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ss, err := rows.Samples(t.Context(), ps)
	if err != nil {
		t.Fatal(err)
	}
	used := make([]bool, len(stack.Parents))
	for i := range ps.Len() {
		nodes, _, err := ss.Profile(i)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range nodes {
			used[n] = true
		}
	}
	for n := len(used) - 1; n > 0; n-- {
		if !used[n] {
			t.Fatalf("%s %s: stack node %d is not used", d.Service, rows.Kind.Name, n)
		}
		used[stack.Parents[n]] = true
		// The call node of a stack node spells the names of its location below the call node of its parent.
		at := call.OfStack[n]
		lines := sym.LinesOf(stack.Locations[n])
		if len(lines) == 0 {
			want := fmt.Sprintf("0x%x", sym.Locations[stack.Locations[n]].Address)
			if got := string(sym.String(call.Names[at])); got != want {
				t.Fatalf("call node of a bare address is %q, want %q", got, want)
			}
			at = call.Parents[at]
		}
		for _, ln := range lines {
			if call.Names[at] != sym.Functions[ln.Function].Name {
				t.Fatalf("call node %d has another name than line", at)
			}
			at = call.Parents[at]
		}
		if at != call.OfStack[stack.Parents[n]] {
			t.Fatalf("call node of stack node %d hangs below %d, want %d", n, at, call.OfStack[stack.Parents[n]])
		}
	}
}

// checkPreorder checks that nodes are numbered depth first and siblings ascend.
func checkPreorder(t testing.TB, parents, carries []uint32) {
	t.Helper()
	last := make([]int64, len(parents)) // what the last child of each node carries
	for i := range last {
		last[i] = -1
	}
	for i := 1; i < len(parents); i++ {
		p := parents[i]
		for at := uint32(i - 1); at != p; at = parents[at] {
			if at == 0 {
				t.Fatalf("node %d with parent %d is not in preorder", i, p)
			}
		}
		if int64(carries[i]) <= last[p] {
			t.Fatalf("node %d carries %d after %d", i, carries[i], last[p])
		}
		last[p] = int64(carries[i])
	}
}

func TestMergeIntoOwnAndSharedGroups(t *testing.T) {
	segments := corpusSegments(t, 4)
	var tiny head
	for i := range 50 {
		service := fmt.Sprintf("tiny-%02d", i)
		tiny.push("acme", simple(service, int64(i+1), "main", fmt.Sprintf("work%d", i%5), service), int64(100+i), profile.ID{byte(i)}, noLabels)
	}
	segments = append(segments, tiny.segment(t, "TINY"))
	for _, level := range []uint32{1, 2} {
		b := merge(t, "acme", level, segments...)
		r := open(t, b)
		checkSorted(t, r)
		checkGroups(t, r)
		segments = [][]byte{b}
	}
}

// checkGroups checks that tiny services share one group and large ones do not.
func checkGroups(t *testing.T, r *Reader) {
	t.Helper()
	services := map[uint32][]string{}
	for i, d := range r.Meta().Datasets {
		services[d.Group] = append(services[d.Group], r.Datasets()[i].Service)
	}
	shared := 0
	for _, names := range services {
		if len(names) > 1 {
			shared++
			if !slices.Contains(names, "tiny-07") || slices.Contains(names, "compiler") {
				t.Errorf("a group of %v", names)
			}
		}
	}
	if shared != 1 || len(services) < 3 {
		t.Errorf("%d groups, %d of them shared, want several and one", len(services), shared)
	}
	for _, g := range r.Meta().Groups {
		if !g.Sorted {
			t.Error("a group of a block is not sorted")
		}
	}
}
