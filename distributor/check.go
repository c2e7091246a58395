package distributor

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	typesv1 "github.com/grafana/pyroscope/api/gen/proto/go/types/v1"

	"github.com/kilndb/kiln/distributor/body"
	"github.com/kilndb/kiln/distributor/relabel"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/pprof"
	"github.com/kilndb/kiln/tenant"
)

// unknownService is the service of series that do not name theirs.
const unknownService = "unknown_service"

// readSeries returns the labels of a pushed series with their defaults, and checked unless rules will change them. Where
// it refuses them it returns the service all the same, for the message.
func readSeries(pairs []*typesv1.LabelPair, rules *relabel.Rules, lim tenant.Limits) (labels.Labels, error) {
	series := make(labels.Labels, 0, len(pairs)+1)
	for _, p := range pairs {
		if p.GetValue() != "" {
			series = append(series, labels.Label{Name: p.GetName(), Value: p.GetValue()})
		}
	}
	slices.SortStableFunc(series, func(a, b labels.Label) int { return strings.Compare(a.Name, b.Name) })
	for i := 1; i < len(series); i++ {
		if series[i].Name == series[i-1].Name {
			return series, refuse(reasonDuplicateLabel, "label %.80q occurs twice", series[i].Name)
		}
	}
	if !series.Has(labels.ServiceName) {
		series = series.With(labels.ServiceName, unknownService)
	}
	if rules.Touch(series) {
		return series, checkSize(series, lim)
	}
	series = withoutNotes(series)
	return series, checkSeries(series, lim)
}

// checkSize bounds labels that rules have still to change by what they may be afterwards, all together.
func checkSize(series labels.Labels, lim tenant.Limits) error {
	size := 0
	for _, l := range series {
		size += len(l.Name) + len(l.Value)
	}
	if limit := lim.MaxLabels * (lim.MaxLabelName + lim.MaxLabelValue); size > limit {
		return refuse(reasonLabelCount, "labels of %d bytes are more than %d labels may have, %d", size, lim.MaxLabels, limit)
	}
	return nil
}

// checkSeries checks labels that are complete.
func checkSeries(series labels.Labels, lim tenant.Limits) error {
	kind := series.Get(labels.Name)
	switch {
	case kind == "":
		return refuse(reasonMissingLabels, "label __name__ is missing: it says what kind of profile this is, such as process_cpu")
	case strings.Contains(kind, ":"):
		return refuse(reasonInvalidLabels, "label __name__: %.80q contains a colon", kind)
	}
	if err := checkCount(series, lim); err != nil {
		return err
	}
	return checkLabels(series, lim)
}

// checkCount refuses a series that has too many labels.
func checkCount(series labels.Labels, lim tenant.Limits) error {
	if len(series) > lim.MaxLabels {
		return refuse(reasonLabelCount, "%d labels are more than the limit of %d", len(series), lim.MaxLabels)
	}
	return nil
}

// checkLabels checks labels one by one.
func checkLabels(ls labels.Labels, lim tenant.Limits) error {
	for _, l := range ls {
		switch {
		case l.Name == "":
			return refuse(reasonInvalidLabels, "the label of value %.80q has no name", l.Value)
		case len(l.Name) > lim.MaxLabelName:
			return refuse(reasonLabelName, "the name of label %.80q... has %d bytes, more than the limit of %d", l.Name, len(l.Name), lim.MaxLabelName)
		case len(l.Value) > lim.MaxLabelValue:
			return refuse(reasonLabelValue, "the value of label %.80q has %d bytes, more than the limit of %d", l.Name, len(l.Value), lim.MaxLabelValue)
		case !utf8.ValidString(l.Name):
			return refuse(reasonInvalidLabels, "the name of label %.80q is not UTF-8", l.Name)
		case !utf8.ValidString(l.Value):
			return refuse(reasonInvalidLabels, "the value of label %.80q is not UTF-8: %.80q", l.Name, l.Value)
		}
	}
	return nil
}

// checkTypes refuses sample types that no query could name.
func checkTypes(p *profile.Profile) error {
	for i, t := range p.SampleTypes {
		name, unit := p.String(t.Type), p.String(t.Unit)
		if len(name) == 0 || len(unit) == 0 {
			return refuse(reasonMalformed, "sample type %d (%.80q, unit %.80q) has no name or no unit", i, name, unit)
		}
		if hasColon(name) || hasColon(unit) {
			return refuse(reasonMalformed, "sample type %d (%.80q, unit %.80q) contains a colon", i, name, unit)
		}
		for j, o := range p.SampleTypes[:i] {
			if string(p.String(o.Type)) == string(name) && string(p.String(o.Unit)) == string(unit) {
				return refuse(reasonMalformed, "sample types %d and %d are the same: %.80q, unit %.80q", j, i, name, unit)
			}
		}
	}
	if typ, unit := p.String(p.PeriodType.Type), p.String(p.PeriodType.Unit); hasColon(typ) || hasColon(unit) {
		return refuse(reasonMalformed, "the period type (%.80q, unit %.80q) contains a colon", typ, unit)
	}
	return nil
}

func hasColon(b []byte) bool { return slices.Contains(b, ':') }

// checkTime gives a profile without a time the one that its request names, or ours, and refuses what lies outside of
// the time that is accepted.
func checkTime(p *profile.Profile, start int64, now time.Time, lim tenant.Limits) error {
	const year = int64(365 * 24 * time.Hour)
	// Where a request names a time, one within 1970 is a clock that was never set.
	if p.TimeNanos == 0 || start != 0 && p.TimeNanos < year {
		p.TimeNanos = start
	}
	if p.TimeNanos == 0 {
		p.TimeNanos = now.UnixNano()
	}
	t := time.Unix(0, p.TimeNanos).UTC()
	switch {
	case t.After(now.Add(lim.MaxFuture)):
		return refuse(reasonWindow, "its time %s is more than %s ahead of ours, %s", t.Format(time.RFC3339), lim.MaxFuture, now.UTC().Format(time.RFC3339))
	case p.TimeNanos < 0:
		return refuse(reasonWindow, "its time %s is before 1970", t.Format(time.RFC3339))
	case lim.MaxAge > 0 && t.Before(now.Add(-lim.MaxAge)):
		return refuse(reasonWindow, "its time %s is more than %s ago", t.Format(time.RFC3339), lim.MaxAge)
	}
	return nil
}

// checkKept refuses a profile that is older than its service is kept: it would be deleted at once.
func (d *Distributor) checkKept(r *request, series labels.Labels, p *profile.Profile) error {
	keep, service := r.limits.Retention, series.Get(labels.ServiceName)
	if d.cfg.Retention != nil {
		keep = d.cfg.Retention(r.tenant, service)
	}
	if t := time.Unix(0, p.TimeNanos); keep > 0 && t.Before(d.cfg.Now().Add(-keep)) {
		return refuse(reasonWindow, "its time %s is more than %s ago, which is how long service %.80q is kept (retention)", t.UTC().Format(time.RFC3339), keep, service)
	}
	return nil
}

// checkFilled holds a profile that was not decoded to what the decoder would have refused. Its references are valid.
func checkFilled(p *profile.Profile, lim tenant.Limits) error {
	limits := pprof.LimitsOf(lim)
	switch n := len(p.SampleTypes); {
	case n == 0:
		return refuse(reasonMalformed, "the profile has no sample types")
	case n > limits.MaxSampleTypes && limits.MaxSampleTypes > 0:
		return &pprof.LimitError{What: "sample types", Limit: limits.MaxSampleTypes}
	}
	if err := limits.Check(p.Samples(), p.Size()); err != nil {
		return err
	}
	for i := range p.Samples() {
		if n := len(p.LabelsOf(i)); n > limits.MaxSampleLabels && limits.MaxSampleLabels > 0 {
			return &pprof.LimitError{What: "labels of a sample", Limit: limits.MaxSampleLabels}
		}
	}
	for i := range p.Strings {
		if s := p.String(uint32(i)); !utf8.Valid(s) {
			return refuse(reasonMalformed, "the name %.80q is not UTF-8", s)
		}
	}
	return nil
}

// refuseDecode names the reason of an error of a decoder, or of a body that was to be decoded.
func refuseDecode(err error) error {
	limit, ofBody := new(pprof.LimitError), new(body.Error)
	switch {
	case errors.As(err, new(*refusal)):
		return err
	case errors.As(err, &ofBody) && ofBody.Status == http.StatusRequestEntityTooLarge:
		return &refusal{reasonBody, err}
	case !errors.As(err, &limit):
		return &refusal{reasonMalformed, err}
	case limit.What == "samples":
		return &refusal{reasonSamples, err}
	case limit.What == "labels of a sample":
		return &refusal{reasonSampleLabels, err}
	default:
		return &refusal{reasonProfileSize, err}
	}
}
