package ingest

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/tenant"
)

// stacksOf returns the first value of each stack of a profile: function names, root first, joined by semicolons.
func stacksOf(p *profile.Profile) map[string]int64 {
	all := map[string]int64{}
	for i := range p.Samples() {
		var names []string
		for _, l := range p.Stack(i) {
			for _, line := range p.LinesOf(l) {
				names = append(names, string(p.String(p.Functions[line.Function].Name)))
			}
		}
		slices.Reverse(names)
		all[strings.Join(names, ";")] += p.Row(i)[0]
	}
	return all
}

// typesOf returns the type of a profile as the API writes it.
func typesOf(kind string, p *profile.Profile) string { return p.Kind(kind).Type(0).String() }

// nodes writes a tree or a trie: what each node adds to its parent, its value, its children.
type nodes struct {
	name     string
	value    uint64
	children []nodes
}

func (n nodes) append(b []byte) []byte {
	b = append(binary.AppendUvarint(b, uint64(len(n.name))), n.name...)
	b = binary.AppendUvarint(binary.AppendUvarint(b, n.value), uint64(len(n.children)))
	for _, c := range n.children {
		b = c.append(b)
	}
	return b
}

func (n nodes) String() string { return string(n.append(nil)) }

const speedscopeHead = `{"$schema":"https://www.speedscope.app/file-format-schema.json","shared":{"frames":[{"name":"main"},{"name":"work","file":"w.go","line":7},{"name":"rest"}]},"profiles":`

func TestStacksInEveryFormat(t *testing.T) {
	tree := nodes{"", 0, []nodes{{"main", 3, []nodes{{"work", 12, nil}, {"rest", 1, nil}}}}}.String()
	trie := nodes{"", 0, []nodes{{"ma", 0, []nodes{{"in", 3, []nodes{{";", 0, []nodes{{"work", 12, nil}, {"re", 0, []nodes{{"st", 1, nil}}}}}}}}}}}.String()
	sampled := speedscopeHead + `[{"type":"sampled","unit":"none","startValue":0,"endValue":4,"samples":[[0,1],[0],[0,2],[ 0 , 1 ]],"weights":[10,3,1,2]}]}`
	evented := speedscopeHead + `[{"type":"evented","unit":"none","startValue":5,"endValue":21,"events":[
		{"type":"O","frame":0,"at":5},{"type":"O","frame":1,"at":7},{"type":"C","frame":1,"at":19},{"type":"O","frame":2,"at":20},{"type":"C","frame":2,"at":21},{"type":"C","frame":0,"at":21}]}]}`
	want := map[string]int64{"main": 3, "main;work": 12, "main;rest": 1}
	for _, c := range []struct{ name, query, contentType, body string }{
		{"folded", "", "", "main;work 10\nmain 3\n\nmain;rest 1\r\nmain;work 2"},
		{"groups", "&format=groups", "text/plain", "main;work 12\nmain 3\nmain;rest 1\n"},
		{"collapsed", "&format=collapsed", "", "main;work 12\nmain 3\nmain;rest 1\n"},
		{"lines", "&format=lines", "", strings.Repeat("main;work\n", 12) + strings.Repeat("main\n", 3) + "main;rest"},
		{"tree", "&format=tree", "", tree},
		{"tree by its type", "", "binary/octet-stream+tree", tree},
		{"trie", "&format=trie", "", trie},
		{"trie by its type", "", "binary/octet-stream+trie", trie},
		{"speedscope sampled", "&format=speedscope", "application/json", sampled},
		{"speedscope evented", "&format=speedscope", "", evented},
	} {
		for _, body := range []string{c.body, gzipOf(c.body)} {
			store := &shelf{}
			if w := send(t, store, "name=checkout{region=eu}&sampleRate=0"+c.query, c.contentType, body); w.Code != http.StatusOK {
				t.Errorf("%s: answer %d %s", c.name, w.Code, w.Body)
				continue
			}
			if got := stacksOf(store.profiles[0]); !maps.Equal(got, want) {
				t.Errorf("%s: %v, want %v", c.name, got, want)
			}
			wantLabels := labels.FromStrings("__delta__", "false", "region", "eu", "service_name", "checkout")
			if got := store.uploads[0].Labels; labels.Compare(got, wantLabels) != 0 {
				t.Errorf("%s: labels %s, want %s", c.name, got, wantLabels)
			}
			if got := typesOf(store.kinds[0], store.profiles[0]); got != "process_cpu:samples:count::" {
				t.Errorf("%s: type %s", c.name, got)
			}
		}
	}
}

func TestTheNameSaysWhatStacksCount(t *testing.T) {
	for name, want := range map[string]string{
		"app":                            "app process_cpu:cpu:nanoseconds:cpu:nanoseconds 30000000",
		"app.cpu":                        "app process_cpu:cpu:nanoseconds:cpu:nanoseconds 30000000",
		"app.cpu&sampleRate=1000":        "app process_cpu:cpu:nanoseconds:cpu:nanoseconds 3000000",
		"app.cpu&sampleRate=-5":          "app process_cpu:cpu:nanoseconds:cpu:nanoseconds 30000000",
		"app.cpu&sampleRate=0":           "app process_cpu:samples:count:: 3",
		"my.app.itimer":                  "my.app process_cpu:cpu:nanoseconds:cpu:nanoseconds 30000000",
		"app.wall":                       "app wall:wall:nanoseconds:cpu:nanoseconds 30000000",
		"app.milliseconds&sampleRate=0":  "app wall:samples:count:: 3",
		"app.inuse_objects":              "app memory:inuse_objects:count:: 3",
		"app.inuse_space":                "app memory:inuse_space:bytes:: 3",
		"app.alloc_objects":              "app memory:alloc_objects:count:: 3",
		"app.alloc_space":                "app memory:alloc_space:bytes:: 3",
		"app.alloc_in_new_tlab_objects":  "app memory:alloc_in_new_tlab_objects:count:: 3",
		"app.alloc_in_new_tlab_bytes":    "app memory:alloc_in_new_tlab_bytes:bytes:: 3",
		"app.alloc_outside_tlab_objects": "app memory:alloc_outside_tlab_objects:count:: 3",
		"app.alloc_outside_tlab_bytes":   "app memory:alloc_outside_tlab_bytes:bytes:: 3",
		"app.live":                       "app memory:live:count:: 3",
		"app.bytes":                      "app memory:samples:bytes:: 3",
		"app.goroutines":                 "app goroutine:goroutines:count:: 3",
		"app.mutex_count":                "app mutex:contentions:count:: 3",
		"app.mutex_duration":             "app mutex:delay:nanoseconds:: 3",
		"app.block_count":                "app block:contentions:count:: 3",
		"app.lock_duration":              "app block:delay:nanoseconds:: 3",
		"app.exceptions":                 "app exceptions:samples:count:: 3",
	} {
		store := &shelf{}
		if w := send(t, store, "name="+name, "", "main 3\n"); w.Code != http.StatusOK {
			t.Errorf("%s: answer %d %s", name, w.Code, w.Body)
			continue
		}
		got := fmt.Sprint(store.uploads[0].Labels.Get(labels.ServiceName), " ", typesOf(store.kinds[0], store.profiles[0]), " ", stacksOf(store.profiles[0])["main"])
		if got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	store := &shelf{}
	send(t, store, "name=app.cpu{service_name=shop}", "", "main 3\n")
	if got := store.uploads[0].Labels; got.Get(labels.ServiceName) != "shop" || got.Get("app_name") != "app" {
		t.Errorf("labels %s", got)
	}
}

func TestUnitsOfSpeedscope(t *testing.T) {
	// A profile of one sample main of this weight.
	one := func(unit, weight string) string {
		return fmt.Sprintf(`{"type":"sampled","unit":%q,"startValue":0,"endValue":1,"samples":[[0]],"weights":[%s]}`, unit, weight)
	}
	file := func(profiles ...string) string { return speedscopeHead + "[" + strings.Join(profiles, ",") + "]}" }
	for name, c := range map[string]struct {
		query, body string
		want        []string
	}{
		"counts":              {"name=a", file(one("none", "3")), []string{"a process_cpu:cpu:nanoseconds:cpu:nanoseconds 30000000"}},
		"several threads":     {"name=a", file(one("none", "3"), one("none", "4")), []string{"a process_cpu:cpu:nanoseconds:cpu:nanoseconds 70000000"}},
		"seconds":             {"name=a", file(one("seconds", "1.5")), []string{"a process_cpu:cpu:nanoseconds:cpu:nanoseconds 1500000000"}},
		"microseconds":        {"name=a.wall", file(one("microseconds", "0.25")), []string{"a wall:wall:nanoseconds:cpu:nanoseconds 250"}},
		"delays":              {"name=a.mutex_duration", file(one("milliseconds", "2")), []string{"a mutex:delay:nanoseconds:: 2000000"}},
		"bytes":               {"name=a", file(one("bytes", "3")), []string{"a memory:samples:bytes:: 3"}},
		"bytes of allocation": {"name=a.alloc_space", file(one("bytes", "3")), []string{"a memory:alloc_space:bytes:: 3"}},
		"two units": {"name=a", file(one("bytes", "3"), one("milliseconds", "4"), one("bytes", "5")),
			[]string{"a memory:samples:bytes:: 8", "a wall:wall:nanoseconds:cpu:nanoseconds 4000000"}},
	} {
		store := &shelf{}
		if w := send(t, store, c.query+"&format=speedscope", "", c.body); w.Code != http.StatusOK {
			t.Errorf("%s: answer %d %s", name, w.Code, w.Body)
			continue
		}
		var got []string
		for i, p := range store.profiles {
			got = append(got, fmt.Sprint(store.uploads[i].Labels.Get(labels.ServiceName), " ", typesOf(store.kinds[i], p), " ", stacksOf(p)["main"]))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestMomentsOfSpeedscopeLoseNothing(t *testing.T) {
	// Ten events, each 0.3 ns after the other, and a frame that the end closes.
	var events []string
	for i := range 10 {
		events = append(events, fmt.Sprintf(`{"type":%q,"frame":0,"at":%g}`, "OC"[i%2:i%2+1], float64(i)*0.3))
	}
	body := speedscopeHead + `[{"type":"evented","unit":"nanoseconds","startValue":0,"endValue":10,"events":[` +
		strings.Join(events[:9], ",") + `]}]}`
	store := &shelf{}
	if w := send(t, store, "name=a&format=speedscope", "", body); w.Code != http.StatusOK {
		t.Fatalf("answer %d %s", w.Code, w.Body)
	}
	// Open from 0 to 0.3, 0.6 to 0.9, 1.2 to 1.5, 1.8 to 2.1 and 2.4 to 10, rounded: 0-0, 1-1, 1-2, 2-2, 2-10.
	if got := stacksOf(store.profiles[0])["main"]; got != 9 {
		t.Errorf("%d ns, want 9", got)
	}
	if l := store.profiles[0].Lines[0]; l.Line != 0 {
		t.Errorf("line %v", l)
	}
}

func TestBadStacksAreNamed(t *testing.T) {
	deep := nodes{}
	for range maxDepth + 1 {
		deep = nodes{"", 0, []nodes{deep}}
	}
	tree := func(b ...byte) string { return string(b) }
	profiles := func(p string) string { return speedscopeHead + "[" + p + "]}" }
	sampled := func(rest string) string { return profiles(`{"type":"sampled","unit":"none",` + rest + `}`) }
	evented := func(events string) string {
		return profiles(`{"type":"evented","unit":"none","startValue":2,"events":[` + events + `]}`)
	}
	for _, c := range []struct{ query, body, says string }{
		{"name=a", "main;work", `line 1: \"main;work\" has no count`},
		{"name=a", "main 1\nwork x\n", `line 2: the count \"x\"`},
		{"name=a", "main -1", `count \"-1\"`},
		{"name=a", "main 1.5", `count \"1.5\"`},
		{"name=a", "main 99999999999999999999", "count"},
		{"name=a", "main 9223372036854775807", "overflows"},
		{"name=a.alloc_space", "main 9223372036854775807\nmain 1", "line 2: sum of values overflows"},
		{"name=my.app", "main 1", `ends in \"app\"`},
		{"name=.cpu", "main 1", "names no program"},
		{"name=a.", "main 1", `ends in \"\"`},
		{"name=a&format=tree", tree(5), "node at byte 0: its name has 5 bytes"},
		{"name=a&format=tree", tree(0x80), "the length of its name is cut off"},
		{"name=a&format=tree", tree(0, 1), "the number of its children is cut off"},
		{"name=a&format=tree", tree(0, 1, 9), "9 children do not fit"},
		{"name=a&format=tree", tree(0, 0, 1, 0, 0), "children do not fit"},
		{"name=a&format=tree", tree(0, 1, 0, 7), "1 bytes follow its last node"},
		{"name=a&format=tree", "\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00", "larger than an int64"},
		{"name=a&format=tree", deep.String(), "more than 65536 deep"},
		{"name=a&format=trie", deep.String(), "more than 65536 deep"},
		{"name=a&format=speedscope", "hello", "invalid character"},
		{"name=a&format=speedscope", "{}", `$schema is \"\"`},
		{"name=a&format=speedscope", `{"$schema":"https://www.speedscope.app/file-format-schema.json","profiles":7}`, "not an array"},
		{"name=a&format=speedscope", profiles(strings.Repeat(`{"type":"x"},`, maxSpeedscopeProfiles) + `{"type":"x"}`), "more than 1024 elements"},
		{"name=a&format=speedscope", gzipOf(`{"shared":{"frames":[` + strings.Repeat(`{"name":"x"},`, maxSpeedscopeFrames/4) + `{"file":"x"}]}}`), "element 65536 of an array has no name"},
		{"name=a&format=speedscope", evented("{}"), "element 0 of an array has no name or no type"},
		{"name=a&format=speedscope", strings.Repeat(`{"shared":`, 20_000), "exceeded max depth"},
		{"name=a&format=speedscope", profiles(`{"type":"other","unit":"none"}`), `type \"other\"`},
		{"name=a&format=speedscope", profiles(`{"type":"sampled","unit":"parsecs"}`), `unit \"parsecs\"`},
		{"name=a.x&format=speedscope", profiles(`{"type":"sampled","unit":"none"}`), `ends in \"x\"`},
		{"name=a&format=speedscope", sampled(`"samples":[[0]],"weights":[]`), "1 samples have 0 weights"},
		{"name=a&format=speedscope", sampled(`"samples":[[3]],"weights":[1]`), "sample 0: frame 3 of 3"},
		{"name=a&format=speedscope", sampled(`"samples":[[0]],"weights":[-1]`), "negative"},
		{"name=a&format=speedscope", sampled(`"samples":[[0]],"weights":[1e300]`), "larger than an int64"},
		{"name=a&format=speedscope", sampled(`"samples":[[-1]],"weights":[1]`), "not the number of a frame"},
		{"name=a&format=speedscope", sampled(`"samples":[[[0]]],"weights":[1]`), "not the number of a frame"},
		{"name=a&format=speedscope", sampled(`"samples":[0],"weights":[1]`), "not an array of numbers"},
		{"name=a&format=speedscope", evented(`{"type":"C","frame":0,"at":3}`), "event 0: it closes frame 0"},
		{"name=a&format=speedscope", evented(`{"type":"O","frame":9,"at":3}`), "frame 9 of 3"},
		{"name=a&format=speedscope", evented(`{"type":"O","frame":-1,"at":3}`), "frame -1 of 3"},
		{"name=a&format=speedscope", evented(`{"type":"O","frame":0,"at":1}`), "negative"},
		{"name=a&format=speedscope", evented(`{"type":"O","frame":0,"at":4},{"type":"O","frame":1,"at":3}`), "event 1: it is before"},
		{"name=a&format=speedscope", evented(`{"type":"X","frame":0,"at":4}`), "neither O nor C"},
		{"name=a&format=speedscope", evented(`{"type":"O","frame":0,"at":4},{"type":"O","frame":1,"at":4},{"type":"C","frame":0,"at":4}`), "not the one that was opened last"},
		{"name=a&format=jfr", "FLR", "malformed recording"},
		{"name=a&format=jfr", gzipOf("FLR"), "malformed recording"},
	} {
		store := &shelf{}
		w := send(t, store, c.query, "", c.body)
		if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), c.says) || len(store.uploads) > 0 {
			t.Errorf("%s %.60q: answer %d %s, want one that says %q", c.query, c.body, w.Code, w.Body, c.says)
		}
		if store.refused != 1 {
			t.Errorf("%s %.60q: %d requests are counted as refused", c.query, c.body, store.refused)
		}
	}
}

// TestSmallBodiesThatStandForMuch are trees and events that say once what their stacks have in common.
func TestSmallBodiesThatStandForMuch(t *testing.T) {
	limits := tenant.DefaultLimits()
	limits.MaxRequestBytes, limits.MaxProfileBytes = 1<<20, 1<<18
	long := strings.Repeat("x", 1000)
	var siblings []nodes
	for range 2000 {
		siblings = append(siblings, nodes{"y", 1, nil})
	}
	var chain []byte
	for range 2000 {
		chain = append(chain, nodes{"z", 1, nil}.append(nil)[:3]...)
		chain = append(chain, 1)
	}
	chain = append(chain, 0, 0, 0)
	var opens []string
	for i := range 2000 {
		opens = append(opens, fmt.Sprintf(`{"type":"O","frame":0,"at":%d}`, i))
	}
	evented := speedscopeHead + `[{"type":"evented","unit":"none","events":[` + strings.Join(opens, ",") + `]}]}`
	for name, parse := range map[string]func(*stacks) error{
		"a trie of one long name":  func(s *stacks) error { return parseTrie(s, nodes{long, 0, siblings}.append(nil)) },
		"a tree of one long chain": func(s *stacks) error { return parseTree(s, chain) },
		"a trie of many names": func(s *stacks) error {
			var children []nodes
			for i := range 500 {
				children = append(children, nodes{fmt.Sprintf("%d;", i), 1, nil})
			}
			return parseTrie(s, nodes{long, 0, children}.append(nil))
		},
	} {
		s := newStacks(profile.NewBuilder(), limits)
		s.AddSampleType("samples", "count")
		if err := parse(s); err == nil || !strings.Contains(err.Error(), "bytes") {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if _, err := parseSpeedscope(make([]byte, 1<<20+1), "a", 100, limits); err == nil || !strings.Contains(err.Error(), "more than 1048576 bytes of JSON") {
		t.Errorf("a file that is too large: error %v", err)
	}
	if _, err := parseSpeedscope([]byte(evented), "a", 100, limits); err == nil || !strings.Contains(err.Error(), "bytes") {
		t.Errorf("events that open and never close: error %v", err)
	}
}

func TestDeepStacksLeaveOneFrameToCut(t *testing.T) {
	limits := tenant.DefaultLimits()
	limits.MaxStackDepth = 10
	s := newStacks(profile.NewBuilder(), limits)
	s.AddSampleType("samples", "count")
	if err := parseFolded(s, []byte(strings.Repeat("f;", 5000)+"f 1")); err != nil {
		t.Fatal(err)
	}
	var p profile.Profile
	p.Reset()
	s.Fill(&p)
	report, err := p.Normalise(profile.Limits{MaxStackDepth: 10, MaxSymbolLength: 100})
	if err != nil || report.TruncatedStacks != 1 || len(p.Stack(0)) != 10 {
		t.Errorf("%d stacks were cut, %d frames are left, %v", report.TruncatedStacks, len(p.Stack(0)), err)
	}
}

func TestListsOfNumbers(t *testing.T) {
	for text, want := range map[string]numberLists{
		"[]":              {[]uint32{}, []uint32{}},
		"[[]]":            {[]uint32{}, []uint32{0}},
		"[[1,22],[],[3]]": {[]uint32{1, 22, 3}, []uint32{2, 2, 3}},
	} {
		var l numberLists
		if err := json.Unmarshal([]byte(text), &l); err != nil || !reflect.DeepEqual(l, want) {
			t.Errorf("%s is %v, %v; want %v", text, l, err, want)
		}
	}
	for text, want := range map[string]numbers{"[]": {}, "[ 1 , 2.5e3 ]": {1, 2500}, "[-1]": {-1}} {
		var l numbers
		if err := json.Unmarshal([]byte(text), &l); err != nil || !slices.Equal(l, want) {
			t.Errorf("%s is %v, %v; want %v", text, l, err, want)
		}
	}
	for _, text := range []string{"{}", "null", `["1"]`, "[[1]]", "[{}]", "[1e999]", "[NaN]"} {
		if err := json.Unmarshal([]byte(text), new(numbers)); err == nil {
			t.Errorf("%s is taken for numbers", text)
		}
	}
}

func fuzzStacks(f *testing.F, parse func(*stacks, []byte) error, seeds ...string) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	limits := tenant.DefaultLimits()
	limits.MaxStackDepth = 100
	f.Fuzz(func(t *testing.T, body []byte) {
		s := newStacks(profile.NewBuilder(), limits)
		s.AddSampleType("samples", "count")
		if parse(s, body) == nil {
			checkReferences(t, s.Builder)
		}
	})
}

// checkReferences fails if what was built could not be stored.
func checkReferences(t *testing.T, b *profile.Builder) {
	var p profile.Profile
	p.Reset()
	b.Fill(&p)
	total := int64(0)
	for _, v := range stacksOf(&p) { // reads every reference
		total += v
	}
	if _, err := p.Normalise(profile.Limits{MaxStackDepth: 100, MaxSymbolLength: 1000}); err != nil && total > 0 {
		t.Fatal(err)
	}
}

func FuzzFolded(f *testing.F) {
	fuzzStacks(f, parseFolded, "main;work 12\nmain 3\n", ";;a 1", " 5", "a\t2 7\r\n")
}

func FuzzTree(f *testing.F) {
	fuzzStacks(f, parseTree, nodes{"", 0, []nodes{{"main", 3, []nodes{{"work", 12, nil}, {"rest", 1, nil}}}}}.String())
}

func FuzzTrie(f *testing.F) {
	fuzzStacks(f, parseTrie, nodes{"", 0, []nodes{{"ma", 0, []nodes{{"in", 3, []nodes{{";work", 12, nil}, {";re;st", 1, nil}}}}}}}.String())
}

func FuzzSpeedscope(f *testing.F) {
	f.Add([]byte(speedscopeHead + `[{"type":"sampled","unit":"none","samples":[[0,1],[0]],"weights":[10,3]},{"type":"evented","unit":"seconds","startValue":5,"endValue":21,"events":[{"type":"O","frame":0,"at":5},{"type":"C","frame":0,"at":21}]}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		builds, err := parseSpeedscope(body, "app", 100, tenant.DefaultLimits())
		if err != nil {
			return
		}
		for _, b := range builds {
			checkReferences(t, b.Builder)
		}
	})
}

func TestTreesThatSDKsOfOldWrote(t *testing.T) {
	// One node beside another, the root named: nothing says that it may not be.
	var s = newStacks(profile.NewBuilder(), tenant.DefaultLimits())
	s.AddSampleType("samples", "count")
	if err := parseTree(s, bytes.Clone([]byte(nodes{"total", 1, []nodes{{"a", 2, nil}, {"b", 0, []nodes{{"c", 3, nil}}}}}.String()))); err != nil {
		t.Fatal(err)
	}
	var p profile.Profile
	p.Reset()
	s.Fill(&p)
	if got, want := stacksOf(&p), map[string]int64{"total": 1, "total;a": 2, "total;b;c": 3}; !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
