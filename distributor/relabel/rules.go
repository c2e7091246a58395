package relabel

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	promlabels "github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"

	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
)

// NameReplaced holds the kind that a default rule replaced.
const NameReplaced = "__name_replaced__"

// deltaPrefix is what agents leave in front of a kind when its deltas were taken in the program already.
const deltaPrefix = "godeltaprof_"

// Position says when the default rules run.
type Position string

// The default rules run before the series rules of a tenant, after them, or not at all.
const (
	First    Position = "first"
	Last     Position = "last"
	Disabled Position = "disabled"
)

// Config is the rules of a tenant as they are written down.
type Config struct {
	// DefaultRules says when they run; empty means First.
	DefaultRules Position
	// Series and SampleTypes are lists of rules, which run in order.
	Series, SampleTypes []*relabel.Config
}

// Rules are checked and ready. A nil Rules is the default rules alone.
type Rules struct {
	series, sampleTypes []*relabel.Config
	defaultsOnly        bool
	// byColumn tells whether the series rules look at a column.
	byColumn bool
}

// Part is the columns of a profile that have the same labels.
type Part struct {
	Series labels.Labels
	// Columns are never none, and in order.
	Columns []Column
}

// Column is a column of values: its number in the profile, and its name from now on.
type Column struct {
	Number int
	Name   profile.SampleType
}

var defaults = mustNew(Config{})

func mustNew(c Config) *Rules {
	r, err := New(c)
	if err != nil {
		panic(err)
	}
	return r
}

// New checks rules. The error names every rule that is wrong.
func New(c Config) (*Rules, error) {
	r := &Rules{defaultsOnly: len(c.Series)+len(c.SampleTypes) == 0 && c.DefaultRules != Disabled}
	var errs []error
	series, err := checked("series", c.Series)
	errs = append(errs, err)
	r.sampleTypes, err = checked("sample_types", c.SampleTypes)
	errs = append(errs, err)
	switch c.DefaultRules {
	case "", First:
		r.series = append(defaultRules(), series...)
	case Last:
		r.series = append(series, defaultRules()...)
	case Disabled:
		r.series = series
	default:
		errs = append(errs, fmt.Errorf("default_rules: %q is not first, last or disabled", string(c.DefaultRules)))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	r.byColumn = slices.ContainsFunc(r.series, looksAtColumn)
	return r, nil
}

// checked returns copies of rules, for checking completes them.
func checked(list string, rules []*relabel.Config) ([]*relabel.Config, error) {
	var all []*relabel.Config
	var errs []error
	for i, given := range rules {
		if given == nil {
			errs = append(errs, fmt.Errorf("%s: rule %d is empty", list, i+1))
			continue
		}
		rule := *given
		if rule.Regex.Regexp == nil {
			rule.Regex = relabel.DefaultRelabelConfig.Regex
		}
		if !slices.Contains(actions, rule.Action) {
			errs = append(errs, fmt.Errorf("%s: rule %d: there is no action %q", list, i+1, string(rule.Action)))
		} else if err := rule.Validate(model.UTF8Validation); err != nil {
			errs = append(errs, fmt.Errorf("%s: rule %d: %w", list, i+1, err))
		}
		all = append(all, &rule)
	}
	return all, errors.Join(errs...)
}

var actions = []relabel.Action{
	relabel.Replace, relabel.Keep, relabel.Drop, relabel.KeepEqual, relabel.DropEqual, relabel.HashMod,
	relabel.LabelMap, relabel.LabelDrop, relabel.LabelKeep, relabel.Lowercase, relabel.Uppercase,
}

// defaultRules are those of the package comment.
func defaultRules() []*relabel.Config {
	rule := func(sources model.LabelNames, regex, target, replacement string) *relabel.Config {
		return &relabel.Config{
			SourceLabels: sources, Separator: ";", Regex: relabel.MustNewRegexp(regex), Action: relabel.Replace,
			TargetLabel: target, Replacement: replacement, NameValidationScheme: model.UTF8Validation,
		}
	}
	name, column := model.LabelNames{labels.Name}, model.LabelNames{labels.Name, labels.Type}
	return []*relabel.Config{
		rule(name, deltaPrefix+".+", NameReplaced, "$0"),
		rule(name, deltaPrefix+".+", labels.Delta, "false"),
		rule(name, deltaPrefix+"(.+)", labels.Name, "$1"),
		rule(column, "wall;cpu", NameReplaced, "wall"),
		rule(column, "wall;cpu", labels.Name, "process_cpu"),
	}
}

// looksAtColumn tells whether what a rule does may depend on the column.
func looksAtColumn(rule *relabel.Config) bool {
	for _, name := range []string{labels.Type, labels.Unit} {
		if slices.Contains(rule.SourceLabels, model.LabelName(name)) {
			return true
		}
		switch rule.Action {
		case relabel.KeepEqual, relabel.DropEqual:
			if rule.TargetLabel == name {
				return true
			}
		case relabel.LabelMap:
			if rule.Regex.MatchString(name) {
				return true
			}
		}
	}
	return false
}

// Touch tells whether the rules may do anything to a series. It costs next to nothing for those who have no rules of
// their own.
func (r *Rules) Touch(series labels.Labels) bool {
	if r == nil || r.defaultsOnly {
		kind := series.Get(labels.Name)
		return kind == "wall" || strings.HasPrefix(kind, deltaPrefix)
	}
	return len(r.series)+len(r.sampleTypes) > 0
}

// Apply returns what the rules make of a profile with the labels series and the columns types: no part if it is dropped.
func (r *Rules) Apply(series labels.Labels, types []profile.SampleType) []Part {
	if r == nil {
		r = defaults
	}
	var parts []Part
	last := -1 // the part of the column before; without looking at columns there is no other
	for i, name := range types {
		name, keep := r.rename(series, name)
		if !keep {
			continue
		}
		if last < 0 || r.byColumn {
			became, keep := r.relabel(series, name)
			if !keep {
				if r.byColumn {
					continue
				}
				return nil
			}
			last = slices.IndexFunc(parts, func(p Part) bool { return labels.Compare(p.Series, became) == 0 })
			if last < 0 {
				last = len(parts)
				parts = append(parts, Part{Series: became})
			}
		}
		parts[last].Columns = append(parts[last].Columns, Column{i, name})
	}
	return parts
}

// rename runs the rules for sample types. It returns false if the column is dropped.
func (r *Rules) rename(series labels.Labels, name profile.SampleType) (profile.SampleType, bool) {
	if len(r.sampleTypes) == 0 {
		return name, true
	}
	b := builder(series, name)
	if !relabel.ProcessBuilder(b, r.sampleTypes...) {
		return name, false
	}
	return profile.SampleType{Type: b.Get(labels.Type), Unit: b.Get(labels.Unit)}, true
}

// relabel runs the rules for series. It returns false if the series is dropped.
func (r *Rules) relabel(series labels.Labels, name profile.SampleType) (labels.Labels, bool) {
	b := builder(series, name)
	if !relabel.ProcessBuilder(b, r.series...) {
		return nil, false
	}
	became := make(labels.Labels, 0, len(series)+2)
	b.Del(labels.Type, labels.Unit).Labels().Range(func(l promlabels.Label) {
		became = append(became, labels.Label{Name: l.Name, Value: l.Value})
	})
	// Names are sorted already, by bytes as ours.
	return became, true
}

func builder(series labels.Labels, name profile.SampleType) *promlabels.Builder {
	b := promlabels.NewBuilder(promlabels.EmptyLabels())
	for _, l := range series {
		b.Set(l.Name, l.Value)
	}
	return b.Set(labels.Type, name.Type).Set(labels.Unit, name.Unit)
}
