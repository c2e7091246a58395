package ingest

import (
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

const (
	formatPprof = "pprof"
	// defaultSampleRate is what SDKs mean when they do not say: 100 samples a second.
	defaultSampleRate = 100
)

// otherFormats are those that SDKs may send and that are not read here.
var otherFormats = []string{"jfr", "speedscope", "tree", "trie", "lines", "groups"}

// params is what the query and the headers of a request say of its profile.
type params struct {
	labels      labels.Labels
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
	p := params{sampleRate: defaultSampleRate, units: query.Get("units"), aggregation: query.Get("aggregationType")}
	var err error
	if p.labels, err = parseName(query.Get("name"), query.Get("spyName")); err != nil {
		return p, fmt.Errorf("parameter name: %w", err)
	}
	if p.from, err = parseMoment(query.Get("from"), now); err != nil {
		return p, fmt.Errorf("parameter from: %w", err)
	}
	if p.until, err = parseMoment(query.Get("until"), now); err != nil {
		return p, fmt.Errorf("parameter until: %w", err)
	}
	if p.until.Before(p.from) {
		return p, fmt.Errorf("parameter until: %s is before from, %s", p.until.UTC().Format(time.RFC3339), p.from.UTC().Format(time.RFC3339))
	}
	// SDKs send 0, and some worse, for profiles that have no rate.
	if n, err := strconv.Atoi(query.Get("sampleRate")); err == nil && n > 0 {
		p.sampleRate = n
	}
	switch p.aggregation {
	case "", "sum", "average", "avg":
	default:
		return p, fmt.Errorf("parameter aggregationType: %.40q is neither sum nor average", p.aggregation)
	}
	return p, p.parseFormat(query.Get("format"), contentType)
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
	if format == "" {
		p.format = formatOf(contentType, p.form)
	}
	if p.format == formatPprof {
		return nil
	}
	for _, other := range otherFormats {
		if p.format == other {
			return fmt.Errorf("format %s is not supported: send pprof (format=pprof, or multipart/form-data with a part named profile)", p.format)
		}
	}
	return fmt.Errorf("parameter format: %.40q is not a known format; supported is pprof", p.format)
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

// parseName reads app{label=value,...} and returns the labels of the series but for the kind: service_name is the
// label of that name, else the app; where both are given the app is kept as app_name.
func parseName(name, spy string) (labels.Labels, error) {
	if name == "" {
		return nil, fmt.Errorf("missing: want the program's name, with labels if any, such as checkout{region=eu}")
	}
	key, err := labelset.Parse(name)
	if err != nil {
		return nil, fmt.Errorf("%.200q: %w", name, err)
	}
	var ls []labels.Label
	for name, value := range key.Labels() {
		if value != "" && (!private(name) || name == labels.SessionID) {
			ls = append(ls, labels.Label{Name: name, Value: value})
		}
	}
	app := key.ServiceName()
	if key.Labels()[labels.ServiceName] == "" {
		ls = append(ls, labels.Label{Name: labels.ServiceName, Value: app})
	} else {
		ls = append(ls, labels.Label{Name: "app_name", Value: app})
	}
	if spy != "" {
		ls = append(ls, labels.Label{Name: "pyroscope_spy", Value: spy})
	}
	// What SDKs send are deltas already.
	ls = append(ls, labels.Label{Name: labels.Delta, Value: "false"})
	return labels.New(ls...), nil
}

// private tells whether a label is a note between programs and not a property of what was profiled.
func private(name string) bool {
	return len(name) > 4 && strings.HasPrefix(name, "__") && strings.HasSuffix(name, "__")
}
