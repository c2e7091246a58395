package rebuild

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
)

// seg is a segment with the tenants, a letter each.
func seg(id, tenants string) *storagev1.BlockMeta {
	m := &storagev1.BlockMeta{Id: id, Strings: []string{""}}
	for i, t := range strings.Split(tenants, "") {
		m.Strings = append(m.Strings, t)
		m.Datasets = append(m.Datasets, &storagev1.Dataset{Tenant: uint32(i + 1)})
	}
	return m
}

// blk is a block of one tenant.
func blk(id, tenant string, level uint32, sources ...string) *storagev1.BlockMeta {
	m := seg(id, tenant)
	m.Tenant, m.Level, m.Sources = 1, level, sources
	return m
}

func TestChoose(t *testing.T) {
	type metas = []*storagev1.BlockMeta
	for _, c := range []struct {
		name    string
		entries metas
		out     string // ids that the snapshot knows as replaced
		reduced string // ids of entries that had lost data
		sound   metas
		damaged string // ids of objects that are there and cannot be read
		want    string // ids of all entries
		plan    string // what else the plan says
	}{
		{name: "segments alone", sound: metas{seg("s1", "a"), seg("s2", "b")}, want: "s1 s2"},
		{name: "a complete job", sound: metas{seg("s1", "ab"), seg("s2", "b"), blk("x", "a", 1, "s1"), blk("y", "b", 1, "s1", "s2")}, want: "x y"},
		{name: "an incomplete job", sound: metas{seg("s1", "ab"), seg("s2", "b"), blk("y", "a", 1, "s1")}, want: "s1 s2"},
		{name: "two attempts", sound: metas{seg("s1", "a"), blk("x1", "a", 1, "s1"), blk("x2", "a", 1, "s1")}, want: "x1"},
		{
			name:  "two attempts, the second was merged further",
			sound: metas{seg("s1", "a"), seg("s2", "a"), blk("x1", "a", 1, "s1"), blk("x2", "a", 1, "s1"), blk("y", "a", 1, "s2"), blk("z", "a", 2, "x2", "y")},
			want:  "z",
		},
		{
			name:  "one of two outputs was merged further",
			sound: metas{seg("s1", "ab"), blk("xa", "a", 1, "s1"), blk("xb", "b", 1, "s1"), blk("za", "a", 2, "xa")},
			want:  "xb za",
		},
		{
			name:  "a job and its halves, of which one is incomplete",
			sound: metas{seg("s1", "ab"), seg("s2", "ab"), blk("f", "a", 1, "s1", "s2"), blk("ha", "a", 1, "s1"), blk("hb", "b", 1, "s1"), blk("ia", "a", 1, "s2")},
			want:  "ha hb s2",
		},
		{
			name:  "halves, one of them merged further",
			sound: metas{seg("s1", "a"), seg("s2", "a"), blk("f", "a", 1, "s1", "s2"), blk("h", "a", 1, "s1"), blk("i", "a", 1, "s2"), blk("z", "a", 2, "h")},
			want:  "i z",
		},
		{
			name: "an attempt that had lost before the snapshot", entries: metas{blk("x2", "a", 1, "s1")}, out: "s1",
			sound: metas{blk("x1", "a", 1, "s1")}, want: "x2",
		},
		{
			name: "what is out stays out", entries: metas{blk("x", "a", 1, "s1")}, out: "s1 s9",
			sound: metas{seg("s9", "a"), seg("s2", "a")}, want: "s2 x",
		},
		{
			name: "an entry that was replaced", entries: metas{seg("s1", "a"), seg("s2", "a")},
			sound: metas{blk("x", "a", 1, "s1")}, want: "s2 x", plan: "replaced s1",
		},
		{
			name: "an attempt that may know what was deleted since", entries: metas{seg("s1", "ab"), seg("s2", "a")}, reduced: "s1",
			sound: metas{blk("xa", "a", 1, "s1", "s2"), blk("xb", "b", 1, "s1")}, want: "s1 s2",
		},
		{
			name: "such an attempt, merged further", entries: metas{seg("s1", "a"), seg("s2", "a")}, reduced: "s1",
			sound: metas{blk("x", "a", 1, "s1"), blk("y", "a", 1, "s2"), blk("z", "a", 2, "x", "y")}, want: "s1 y", plan: "replaced s2",
		},
		{
			name: "such an attempt, of which a source is gone", entries: metas{seg("s1", "a")}, reduced: "s1",
			sound: metas{blk("x", "a", 1, "s1", "s2")}, want: "x", plan: "replaced s1, doubtful x",
		},
		{
			name:  "sources that are gone",
			sound: metas{blk("x", "a", 1, "s1", "s2"), seg("s2", "a")}, want: "x", plan: "doubtful x",
		},
		{
			name: "a source that is damaged", damaged: "s1",
			sound: metas{blk("x", "a", 1, "s1", "s2"), seg("s2", "a")}, want: "x",
		},
		{
			name:  "an output that is gone with a tenant",
			sound: metas{seg("s1", "ab"), blk("xa", "a", 1, "s1"), blk("z", "a", 2, "xa")}, want: "z", plan: "lost s1/b",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			past := Past{Entries: map[string]*storagev1.BlockMeta{}}
			present := strings.Fields(c.damaged)
			live := map[string]bool{}
			for _, m := range c.entries {
				past.Entries[m.GetId()] = m
				live[m.GetId()] = true
				present = append(present, m.GetId())
			}
			for _, m := range c.sound {
				present = append(present, m.GetId())
			}
			past.Reduced = func(id string) bool { return slices.Contains(strings.Fields(c.reduced), id) }
			past.Standing = func(id string) Standing {
				switch {
				case past.Entries[id] != nil:
					return Live
				case slices.Contains(strings.Fields(c.out), id):
					return Out
				}
				return Unknown
			}
			plan := Choose(past, Bucket{Sound: slices.Clone(c.sound), Present: func(id string) bool { return slices.Contains(present, id) }})
			for _, id := range plan.Replaced {
				delete(live, id)
			}
			for _, m := range plan.Add {
				live[m.GetId()] = true
			}
			var got []string
			for id := range live {
				got = append(got, id)
			}
			slices.Sort(got)
			if strings.Join(got, " ") != c.want {
				t.Errorf("the entries are %v, want %s", got, c.want)
			}
			var also []string
			if len(plan.Replaced) > 0 {
				also = append(also, "replaced "+strings.Join(plan.Replaced, " "))
			}
			if len(plan.Doubtful) > 0 {
				also = append(also, "doubtful "+strings.Join(plan.Doubtful, " "))
			}
			for _, l := range plan.Lost {
				also = append(also, fmt.Sprintf("lost %s/%s", l.ID, l.Tenant))
			}
			if strings.Join(also, ", ") != c.plan {
				t.Errorf("the plan says %q besides, want %q", also, c.plan)
			}
		})
	}
}
