package distributor

import (
	"context"
	"errors"
	"slices"

	"github.com/kilndb/kiln/distributor/relabel"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/tenant"
)

// errDropped is returned when rules drop a profile, which is a success for whoever sent it.
var errDropped = errors.New("dropped by relabel rules")

// piece is what rules made of some columns of a profile.
type piece struct {
	series  labels.Labels
	profile *profile.Profile
}

// rules returns the rules of a tenant.
func (d *Distributor) rules(t tenant.ID) *relabel.Rules {
	if d.cfg.Rules == nil {
		return nil
	}
	return d.cfg.Rules(t)
}

// relabel gives a normalised profile the labels under which it is stored, and checks them. Where rules tell columns apart,
// p keeps those of the first label set; the others become u.pieces.
func (r *request) relabel(u *upload, series labels.Labels, p *profile.Profile) (labels.Labels, error) {
	if !r.rules.Touch(series) {
		if u.kind != nil { // that of a push is checked already, once for all its profiles
			series = stored(series)
			if err := checkSeries(series, r.limits); err != nil {
				return nil, err
			}
		}
		return series, checkTypes(p)
	}
	types := p.Kind("").SampleTypes
	parts := r.rules.Apply(series, types)
	if len(parts) == 0 {
		return nil, errDropped
	}
	pieces := []piece{{profile: p}}
	for range parts[1:] {
		pieces = append(pieces, piece{profile: p.Clone()})
	}
	for i, part := range parts {
		keepColumns(pieces[i].profile, types, part.Columns)
		pieces[i].series = stored(part.Series)
		if err := checkSeries(pieces[i].series, r.limits); err != nil {
			return nil, err
		}
		if err := checkTypes(pieces[i].profile); err != nil {
			return nil, err
		}
	}
	u.pieces = pieces[1:]
	return pieces[0].series, nil
}

// keepColumns leaves the columns of a part. One that is the profile as it came stays so to the byte.
func keepColumns(p *profile.Profile, types []profile.SampleType, columns []relabel.Column) {
	numbers, names := make([]int, len(columns)), make([]profile.SampleType, len(columns))
	same := len(columns) == len(types)
	for i, c := range columns {
		numbers[i], names[i] = c.Number, c.Name
		same = same && c.Name == types[i]
	}
	if !same {
		p.KeepColumns(numbers, names)
	}
}

// stored returns the labels under which a profile is stored, those that were sent or what rules made of them.
func stored(series labels.Labels) labels.Labels {
	series = withoutNotes(series)
	if !series.Has(labels.ServiceName) {
		series = series.With(labels.ServiceName, unknownService)
	}
	return series
}

// withoutNotes cuts off notes between programs about the way of a profile, so that they decide neither its shard nor how
// many labels it has. What is left of __delta__ is that counters are cumulative.
func withoutNotes(series labels.Labels) labels.Labels {
	if !slices.ContainsFunc(series, note) {
		return series
	}
	return slices.DeleteFunc(slices.Clone(series), note)
}

func note(l labels.Label) bool {
	switch l.Name {
	case labels.SessionID, relabel.NameReplaced:
		return true
	case labels.Delta:
		return l.Value != "true"
	}
	return false
}

// appendPieces hands over what rules cut off a profile, and waits for all of it.
func (d *Distributor) appendPieces(ctx context.Context, t tenant.ID, u *upload, id profile.ID, first func(context.Context) error) (wait func(context.Context) error) {
	waits := []func(context.Context) error{first}
	for _, p := range u.pieces {
		wait, err := d.writer.Append(ctx, t, d.shard(t, p.series), p.series, id, p.profile)
		if err != nil {
			wait = func(context.Context) error { return err }
		}
		waits = append(waits, wait)
	}
	return func(ctx context.Context) error {
		var errs []error
		for _, wait := range waits {
			errs = append(errs, wait(ctx)) // each must be called
		}
		for _, err := range errs {
			if err != nil {
				return err
			}
		}
		return nil
	}
}
