package query

import (
	"encoding/binary"
	"fmt"
	"slices"

	queryv1 "github.com/kilndb/kiln/api/kiln/query/v1"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
)

// SeriesLabels returns the labels that clients see of a stored series and one sample type of its kind: those
// stored, and seven more that say what the values are.
func SeriesLabels(base labels.Labels, k profile.Kind, i int) labels.Labels {
	all := slices.Grow(slices.Clone(base), 7)
	for _, name := range []string{
		labels.Name, labels.ProfileType, labels.Type, labels.Unit, labels.PeriodType, labels.PeriodUnit,
	} {
		value, _ := k.Label(name, i)
		all = append(all, labels.Label{Name: name, Value: value})
	}
	all = append(all, labels.Label{Name: labels.PrivateServiceName, Value: base.Get(labels.ServiceName)})
	return labels.New(all...)
}

// LabelsToProto returns ls as a report has them.
func LabelsToProto(ls labels.Labels) []*queryv1.Label {
	memory := make([]queryv1.Label, len(ls))
	out := make([]*queryv1.Label, len(ls))
	for i, l := range ls {
		memory[i].Name, memory[i].Value = l.Name, l.Value
		out[i] = &memory[i]
	}
	return out
}

// LabelsFromProto returns the labels of a report. It returns ErrReport if they are not a sorted set.
func LabelsFromProto(ls []*queryv1.Label) (labels.Labels, error) {
	out := make(labels.Labels, len(ls))
	for i, l := range ls {
		out[i] = labels.Label{Name: l.GetName(), Value: l.GetValue()}
		if i > 0 && out[i-1].Name >= out[i].Name {
			return nil, fmt.Errorf("%w: label %q after %q", ErrReport, out[i].Name, out[i-1].Name)
		}
	}
	return out, nil
}

// labelsKey is the same for equal sets only.
func labelsKey(ls labels.Labels) string {
	var b []byte
	for _, l := range ls {
		b = binary.AppendUvarint(b, uint64(len(l.Name)))
		b = append(b, l.Name...)
		b = binary.AppendUvarint(b, uint64(len(l.Value)))
		b = append(b, l.Value...)
	}
	return string(b)
}
