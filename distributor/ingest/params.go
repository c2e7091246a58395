package ingest

import (
	"cmp"
	"fmt"
	"math"
	"mime"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/grafana/pyroscope/api/model/labelset"

	"github.com/kilndb/kiln/labels"
)

// The formats, as the query names them.
const (
	formatPprof      = "pprof"
	formatJFR        = "jfr"
	formatSpeedscope = "speedscope"
	formatTree       = "tree"
	formatTrie       = "trie"
	formatLines      = "lines"
	formatGroups     = "groups"
)

const (
	// defaultSampleRate is what SDKs mean when they do not say: 100 samples a second.
	defaultSampleRate = 100
	// maxSampleRate is one a nanosecond: more have no period that could be stored.
	maxSampleRate = 1_000_000_000
)

// params is what the query and the headers of a request say of its profile.
type params struct {
	app         string            // the program
	labels      map[string]string // of its profiles
	spy         string            // the SDK
	from, until time.Time
	format      string
	form        bool   // the body is multipart/form-data
	boundary    string // of the form
	sampleRate  int
	units       string
	aggregation string
}

// parseParams reads the query and the content type. It names the parameter that it cannot read.
func parseParams(query url.Values, contentType string, now time.Time) (params, error) {
	p := params{
		spy: query.Get("spyName"), sampleRate: defaultSampleRate,
		units: query.Get("units"), aggregation: query.Get("aggregationType"),
	}
	var err error
	if p.app, p.labels, err = parseName(query.Get("name")); err != nil {
		return p, fmt.Errorf("parameter name: %w", err)
	}
	if p.from, p.until, err = parseCapture(query.Get("from"), query.Get("until"), now); err != nil {
		return p, err
	}
	// SDKs send 0 for profiles that have no rate, and some worse.
	if n, err := strconv.Atoi(query.Get("sampleRate")); err == nil && n >= 0 && n <= maxSampleRate {
		p.sampleRate = n
	}
	switch p.aggregation {
	case "", "sum", "average", "avg":
	default:
		return p, fmt.Errorf("parameter aggregationType: %.40q is neither sum nor average", p.aggregation)
	}
	return p, p.parseFormat(query.Get("format"), contentType)
}

// parseCapture reads when a capture began and ended. If only one of them is known it took no time; a clock that is ahead of ours makes
// no mistake of that.
func parseCapture(from, until string, now time.Time) (begin, end time.Time, err error) {
	if begin, err = parseMoment(from, now); err != nil {
		return begin, end, fmt.Errorf("parameter from: %w", err)
	}
	if end, err = parseMoment(until, now); err != nil {
		return begin, end, fmt.Errorf("parameter until: %w", err)
	}
	switch {
	case from == "":
		begin = end
	case !end.Before(begin):
	case until == "":
		end = begin
	default:
		err = fmt.Errorf("parameter until: %s is before from, %s", end.UTC().Format(time.RFC3339), begin.UTC().Format(time.RFC3339))
	}
	return begin, end, err
}

// parseMoment reads a time that nanoseconds since 1970 can express.
func parseMoment(s string, now time.Time) (time.Time, error) {
	t, err := ParseTime(s, now)
	if err == nil && (t.Unix() < 0 || t.Unix() > math.MaxInt64/int64(time.Second)-1) {
		err = fmt.Errorf("time %.40q is not between the years 1970 and 2262", s)
	}
	return t, err
}

func (p *params) parseFormat(format, contentType string) error {
	mediaType, attributes, err := mime.ParseMediaType(contentType)
	p.form = err == nil && mediaType == "multipart/form-data"
	if p.form {
		if p.boundary = attributes["boundary"]; p.boundary == "" {
			return fmt.Errorf("header Content-Type: %.80q has no boundary", contentType)
		}
	}
	p.format = format
	switch format {
	case "":
		p.format = formatOf(contentType, p.form)
	case formatPprof, formatJFR, formatSpeedscope, formatTree, formatTrie, formatLines, formatGroups:
	case "folded", "collapsed":
		p.format = formatGroups
	default:
		return fmt.Errorf("parameter format: %.40q is not a known format: those are pprof, jfr, speedscope, tree, trie, lines and groups", format)
	}
	return nil
}

// formatOf is the format of a request that does not name one.
func formatOf(contentType string, form bool) string {
	switch {
	case strings.HasPrefix(contentType, "binary/octet-stream+trie"):
		return "trie"
	case strings.HasPrefix(contentType, "binary/octet-stream+tree"):
		return "tree"
	case form:
		return formatPprof
	}
	return "groups"
}

// parseName reads app{label=value,...}.
func parseName(name string) (app string, ls map[string]string, err error) {
	if name == "" {
		return "", nil, fmt.Errorf("missing: want the program's name, with labels if any, such as checkout{region=eu}")
	}
	key, err := labelset.Parse(name)
	if err != nil {
		return "", nil, fmt.Errorf("%.200q: %w", name, err)
	}
	return key.ServiceName(), key.Labels(), nil
}

// series returns the labels of the series of a program but for the kind: service_name is the label of that name, else
// the program; where both are given the program is kept as app_name.
func (p *params) series(app string) labels.Labels {
	var ls []labels.Label
	add := func(name, value string) { ls = append(ls, labels.Label{Name: name, Value: value}) }
	for name, value := range p.labels {
		if value != "" && (!private(name) || name == labels.SessionID) && name != spyLabel {
			add(name, value)
		}
	}
	if p.labels[labels.ServiceName] == "" {
		add(labels.ServiceName, app)
	} else if p.labels[appLabel] == "" {
		add(appLabel, app)
	}
	if spy := cmp.Or(p.spy, p.labels[spyLabel]); spy != "" {
		add(spyLabel, spy)
	}
	// What SDKs send are deltas already.
	add(labels.Delta, "false")
	return labels.New(ls...)
}

const (
	spyLabel = "pyroscope_spy"
	appLabel = "app_name"
)

// private tells whether a label is a note between programs and not a property of what was profiled.
func private(name string) bool {
	return len(name) > 4 && strings.HasPrefix(name, "__") && strings.HasSuffix(name, "__")
}
