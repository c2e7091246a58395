package index

import (
	"cmp"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// period is an element for tests; value tells one from another in its place.
type period struct {
	key      int
	from, to int64
	value    int
}

func (p period) compare(o period) int   { return cmp.Compare(p.key, o.key) }
func (p period) bounds() (int64, int64) { return p.from, p.to }

// checkTree fails unless the tree holds exactly want and is as its comments say. It returns the height.
func checkTree(t *rapid.T, tr tree[period], want []period) (height int) {
	if tr.empty() || len(want) == 0 {
		if !tr.empty() || len(want) > 0 {
			t.Fatalf("the tree is empty: %v, want %d elements", tr.empty(), len(want))
		}
		return 0
	}
	from, to := int64(math.MaxInt64), int64(math.MinInt64)
	for _, p := range want {
		from, to = min(from, p.from), max(to, p.to)
	}
	n := tr.node
	if size := len(n.items) + len(n.trees); size == 0 || size > width || cap(n.items) > width || cap(n.trees) > width {
		t.Fatalf("a node has %d items and %d trees", len(n.items), len(n.trees))
	}
	if tr.least != want[0] || tr.from != from || tr.to != to {
		t.Fatalf("the tree says that it has %v, %d to %d, want %v, %d to %d", tr.least, tr.from, tr.to, want[0], from, to)
	}
	if n.leaf() {
		if !slices.Equal(n.items, want) {
			t.Fatalf("a leaf has %v, want %v", n.items, want)
		}
		return 1
	}
	for i, below := range n.trees {
		end := len(want)
		if i+1 < len(n.trees) {
			end = slices.IndexFunc(want, func(p period) bool { return p.key >= n.trees[i+1].least.key })
		}
		h := checkTree(t, below, want[:max(end, 0)])
		if height != 0 && h != height {
			t.Fatalf("leaves at heights %d and %d", height, h)
		}
		height, want = h, want[max(end, 0):]
	}
	return height + 1
}

// A tree is what a sorted slice is, and every tree of an edit that has ended stays as it was then.
func TestTreeIsASortedSlice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type version struct {
			tree tree[period]
			want []period
		}
		var now version
		var before []version
		e := &edit{}
		next := 0
		keys := rapid.IntRange(0, rapid.SampledFrom([]int{10, 200, 5000}).Draw(t, "keys"))
		put := func(t *rapid.T, key int) {
			from := rapid.Int64Range(-20, 20).Draw(t, "from")
			next++
			p := period{key, from, from + rapid.Int64Range(0, 5).Draw(t, "length"), next}
			now.tree = now.tree.put(e, p)
			i, found := slices.BinarySearchFunc(now.want, p, period.compare)
			if found {
				now.want[i] = p
			} else {
				now.want = slices.Insert(now.want, i, p)
			}
		}
		remove := func(key int) {
			now.tree = now.tree.remove(e, period{key: key})
			now.want = slices.DeleteFunc(now.want, func(p period) bool { return p.key == key })
		}
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) { put(t, keys.Draw(t, "key")) },
			"put many in order": func(t *rapid.T) {
				for key, i := keys.Draw(t, "key"), 0; i < 3*width; i++ {
					put(t, key+i)
				}
			},
			"put many in reverse": func(t *rapid.T) {
				for key, i := keys.Draw(t, "key"), 0; i < 3*width; i++ {
					put(t, key-i)
				}
			},
			"remove": func(t *rapid.T) { remove(keys.Draw(t, "key")) },
			"remove many": func(t *rapid.T) {
				for key, i := keys.Draw(t, "key"), 0; i < 3*width; i++ {
					remove(key + i)
				}
			},
			"end the edit": func(t *rapid.T) {
				before = append(before, version{now.tree, slices.Clone(now.want)})
				e = rapid.SampledFrom([]*edit{nil, {}, {}}).Draw(t, "edit")
			},
			"roll back": func(t *rapid.T) {
				if len(before) > 0 {
					now = before[len(before)-1]
					now.want, e = slices.Clone(now.want), &edit{}
				}
			},
			"build": func(t *rapid.T) { now.tree, e = build(now.want), &edit{} },
			"": func(t *rapid.T) {
				checkTree(t, now.tree, now.want)
				for _, v := range before {
					checkTree(t, v.tree, v.want)
				}
				key := period{key: keys.Draw(t, "key")}
				got, ok := now.tree.get(key)
				if i, found := slices.BinarySearchFunc(now.want, key, period.compare); ok != found || found && got != now.want[i] {
					t.Fatalf("get %d: %v, %v; want %v", key.key, got, ok, found)
				}
				start := rapid.Int64Range(-25, 25).Draw(t, "start")
				end := start + rapid.Int64Range(0, 10).Draw(t, "range")
				var met, want []period
				now.tree.overlap(start, end, func(p period) { met = append(met, p) })
				for _, p := range now.want {
					if p.from < end && p.to >= start {
						want = append(want, p)
					}
				}
				if !slices.Equal(met, want) {
					t.Fatalf("[%d, %d) meets %v, want %v", start, end, met, want)
				}
				if all := slices.Collect(now.tree.all); !slices.Equal(all, now.want) {
					t.Fatalf("all are %v, want %v", all, now.want)
				}
			},
		})
	})
}

// shape returns how many leaves a tree has, and its height.
func (n *node[T]) shape() (leaves, height int) {
	if n.leaf() {
		return 1, 1
	}
	for _, below := range n.trees {
		l, h := below.node.shape()
		leaves, height = leaves+l, h+1
	}
	return leaves, height
}

// Data that arrives in order fills its nodes, and nodes that lose most of theirs become fewer.
func TestTreeIsAsLargeAsItMustBe(t *testing.T) {
	const n = 10 * width * width
	var tr tree[period]
	for i := range n {
		tr = tr.put(&edit{}, period{key: i}) // each in a transaction of its own
	}
	if leaves, height := tr.node.shape(); leaves != 10*width || height != 3 {
		t.Errorf("%d leaves, %d high; want %d, 3", leaves, height, 10*width)
	}
	for i := range n {
		if i%width != 0 {
			tr = tr.remove(&edit{}, period{key: i})
		}
	}
	if leaves, height := tr.node.shape(); leaves > 10*4 || height != 2 && height != 3 {
		t.Errorf("%d leaves, %d high, for %d elements", leaves, height, 10*width)
	}
}
