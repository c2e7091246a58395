package block

import (
	"math"
	"strings"

	"github.com/cespare/xxhash/v2"

	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/labels"
)

// A label filter is a Bloom filter over the (name, value) pairs of the labels of a dataset's series: one bit in
// filterBits per pair, filterHashes bits set by each.
const (
	// 10 bits and 5 hashes let one pair in a hundred through that is not there.
	filterBits   = 10
	filterHashes = 5
	// maxFilterPairs bounds what one dataset adds to the index, to 5 KiB: above there is no filter.
	maxFilterPairs = 4096
)

// MayMatch tells whether a dataset of a block may have a series with that label. False is certain. It knows labels as
// they are stored: of names that begin with __, which depend on the kind, and of an empty value, which says that there
// is no such label, it says true.
func MayMatch(m *storagev1.BlockMeta, d *storagev1.Dataset, name, value string) bool {
	switch {
	case value == "" || strings.HasPrefix(name, "__"):
		return true
	case name == labels.ServiceName:
		i := d.GetService()
		return int64(i) >= int64(len(m.GetStrings())) || m.GetStrings()[i] == value
	case len(d.GetLabelFilter()) == 0:
		return true
	}
	filter := d.GetLabelFilter()
	for _, bit := range filterPositions(name, value, len(filter)) {
		if filter[bit/8]&(1<<(bit%8)) == 0 {
			return false
		}
	}
	return true
}

// filterPositions are the bits of a pair in a filter of that many bytes. The second half of the hash is made odd, so
// that the positions differ.
func filterPositions(name, value string, bytes int) (bits [filterHashes]uint64) {
	h := xxhash.New()
	_, _ = h.WriteString(name)
	_, _ = h.Write([]byte{0xff}) // in no UTF-8 text
	_, _ = h.WriteString(value)
	sum := h.Sum64()
	at, step := sum&math.MaxUint32, sum>>32|1
	for i := range bits {
		bits[i] = (at + uint64(i)*step) % uint64(8*bytes)
	}
	return bits
}

// labelFilter makes the filter of label sets; nil if they have no pair besides the service or too many.
func labelFilter(sets []labels.Labels) []byte {
	pairs := map[labels.Label]bool{}
	for _, ls := range sets {
		for _, l := range ls {
			if l.Name != labels.ServiceName {
				pairs[l] = true
			}
		}
		if len(pairs) > maxFilterPairs {
			return nil
		}
	}
	if len(pairs) == 0 {
		return nil
	}
	filter := make([]byte, (filterBits*len(pairs)+7)/8)
	for l := range pairs {
		for _, bit := range filterPositions(l.Name, l.Value, len(filter)) {
			filter[bit/8] |= 1 << (bit % 8)
		}
	}
	return filter
}
