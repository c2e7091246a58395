package inspect

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/labels"
)

// maxFilterPairs is where a dataset has no filter any more.
const maxFilterPairs = 4096

// pairsOf returns the labels of the series that are used, each once and without the service.
func pairsOf(series []labels.Labels, used map[uint32]bool) []labels.Label {
	seen := map[labels.Label]bool{}
	var pairs []labels.Label
	for id := range used {
		for _, l := range series[id] {
			if l.Name != labels.ServiceName && !seen[l] {
				seen[l] = true
				pairs = append(pairs, l)
			}
		}
	}
	slices.SortFunc(pairs, func(a, b labels.Label) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Value, b.Value)) })
	return pairs
}

// checkFilter checks that a label filter is of the size for those pairs, lets each of them pass, and has no other bits.
// Like the total order, its bits are computed here a second time on purpose.
func checkFilter(filter []byte, pairs []labels.Label, sorted bool) error {
	size := (10*len(pairs) + 7) / 8
	if !sorted || len(pairs) > maxFilterPairs {
		size = 0
	}
	if len(filter) != size {
		return fmt.Errorf("%w: a label filter of %d bytes, want %d", block.ErrCorrupt, len(filter), size)
	}
	if size == 0 {
		return nil
	}
	want := make([]byte, size)
	for _, l := range pairs {
		h := xxhash.Sum64String(l.Name + "\xff" + l.Value)
		low, high := h&0xffffffff, h>>32|1
		for k := range uint64(5) {
			bit := (low + k*high) % uint64(8*size)
			if want[bit/8] |= 1 << (bit % 8); filter[bit/8]&(1<<(bit%8)) == 0 {
				return fmt.Errorf("%w: the label filter denies %s=%q, which a series has", block.ErrCorrupt, l.Name, l.Value)
			}
		}
	}
	if !slices.Equal(filter, want) {
		return fmt.Errorf("%w: the label filter has bits that no label sets", block.ErrCorrupt)
	}
	return nil
}
