package relabel_test

import (
	"fmt"
	"strings"
	"testing"

	promrelabel "github.com/prometheus/prometheus/model/relabel"
	"go.yaml.in/yaml/v3"

	"github.com/kilndb/kiln/distributor/relabel"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/tenant"
)

func parse(t testing.TB, text string) *relabel.Rules {
	t.Helper()
	r, err := relabel.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// types are columns as name:unit.
func types(all ...string) (types []profile.SampleType) {
	for _, s := range all {
		name, unit, _ := strings.Cut(s, ":")
		types = append(types, profile.SampleType{Type: name, Unit: unit})
	}
	return types
}

// applied writes down parts: labels, then the columns that have them.
func applied(r *relabel.Rules, series labels.Labels, columns ...string) string {
	var lines []string
	for _, p := range r.Apply(series, types(columns...)) {
		line := p.Series.String()
		for _, c := range p.Columns {
			line += fmt.Sprintf(" %d=%s:%s", c.Number, c.Name.Type, c.Name.Unit)
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

func TestDefaultRules(t *testing.T) {
	for _, c := range []struct {
		series  labels.Labels
		columns []string
		touch   bool
		want    string
	}{
		{labels.FromStrings("__name__", "process_cpu", "pod", "a"), []string{"cpu:nanoseconds"}, false, `{__name__="process_cpu", pod="a"} 0=cpu:nanoseconds`},
		{
			labels.FromStrings("__name__", "godeltaprof_memory", "__delta__", "true"), []string{"alloc_space:bytes"}, true,
			`{__delta__="false", __name__="memory", __name_replaced__="godeltaprof_memory"} 0=alloc_space:bytes`,
		},
		{labels.FromStrings("__name__", "godeltaprof_"), []string{"x:y"}, true, `{__name__="godeltaprof_"} 0=x:y`},
		{labels.FromStrings("__name__", "wall"), []string{"wall:nanoseconds"}, true, `{__name__="wall"} 0=wall:nanoseconds`},
		{
			labels.FromStrings("__name__", "wall", "z", "1"), []string{"sample:count", "cpu:nanoseconds", "wall:nanoseconds"}, true,
			`{__name__="wall", z="1"} 0=sample:count 2=wall:nanoseconds` + "\n" + `{__name__="process_cpu", __name_replaced__="wall", z="1"} 1=cpu:nanoseconds`,
		},
	} {
		for name, r := range map[string]*relabel.Rules{"none": nil, "empty": parse(t, "")} {
			if got := applied(r, c.series, c.columns...); got != c.want {
				t.Errorf("%s: %s became\n%s\nwant\n%s", name, c.series, got, c.want)
			}
			if got := r.Touch(c.series); got != c.touch {
				t.Errorf("%s: touch %s: %v", name, c.series, got)
			}
		}
		off := parse(t, "default_rules: disabled")
		if off.Touch(c.series) {
			t.Errorf("no rules at all touch %s", c.series)
		}
	}
}

func TestRulesOfATenant(t *testing.T) {
	heap := []string{"alloc_objects:count", "alloc_space:bytes", "inuse_space:bytes"}
	pod := labels.FromStrings("__name__", "memory", "namespace", "prod", "pod", "web-7", "service_name", "web")
	for _, c := range []struct {
		text   string
		series labels.Labels
		want   string
	}{
		{`series: [{action: labeldrop, regex: pod|name.*}]`, pod, `{__name__="memory", service_name="web"} 0=alloc_objects:count 1=alloc_space:bytes 2=inuse_space:bytes`},
		{`series: [{source_labels: [namespace], regex: prod, action: drop}]`, pod, ``},
		{`series: [{source_labels: [namespace], regex: dev, action: keep}]`, pod, ``},
		{
			`series: [{source_labels: [namespace, pod], separator: /, regex: '(\w+)/(\w+)-\d+', target_label: "service_name", replacement: '$1.$2'}, {action: labelkeep, regex: service_name|__name__}]`,
			pod, `{__name__="memory", service_name="prod.web"} 0=alloc_objects:count 1=alloc_space:bytes 2=inuse_space:bytes`,
		},
		{`series: [{target_label: pod, replacement: ""}, {target_label: a, replacement: b}, {action: labelkeep, regex: a|pod}]`, pod, `{a="b"} 0=alloc_objects:count 1=alloc_space:bytes 2=inuse_space:bytes`},
		{`sample_types: [{source_labels: [__type__], regex: alloc_.*, action: drop}]`, pod, pod.String() + ` 2=inuse_space:bytes`},
		{`sample_types: [{source_labels: [__type__, service_name], regex: 'alloc_.*;cart', action: drop}]`, pod, pod.String() + ` 0=alloc_objects:count 1=alloc_space:bytes 2=inuse_space:bytes`},
		{`sample_types: [{source_labels: [__unit__], regex: bytes, action: keep}, {source_labels: [__type__], regex: '(\w+)_space', target_label: __type__, replacement: $1}, {target_label: pod, replacement: x}]`, pod, pod.String() + ` 1=alloc:bytes 2=inuse:bytes`},
		{`sample_types: [{source_labels: [__type__], regex: .*, action: drop}]`, pod, ``},
		{
			`series: [{source_labels: [__type__], regex: '(\w+)_.*', target_label: part}, {source_labels: [part], regex: inuse, action: drop}, {action: labelkeep, regex: part}]`,
			pod, `{part="alloc"} 0=alloc_objects:count 1=alloc_space:bytes`,
		},
		{
			// The rule sees the name that the sample type rules gave.
			`{sample_types: [{source_labels: [__type__], regex: inuse_space, target_label: __type__, replacement: live}], series: [{source_labels: [__type__], regex: (live), target_label: a}, {action: labelkeep, regex: a}]}`,
			pod, `{} 0=alloc_objects:count 1=alloc_space:bytes` + "\n" + `{a="live"} 2=live:bytes`,
		},
		{
			`series: [{action: labelmap, regex: __(unit)__}, {action: labelkeep, regex: unit}]`, pod,
			`{unit="count"} 0=alloc_objects:count` + "\n" + `{unit="bytes"} 1=alloc_space:bytes 2=inuse_space:bytes`,
		},
		{`series: [{source_labels: [__unit__], target_label: __unit__, action: dropequal}]`, pod, ``},
		{`series: [{target_label: __type__, replacement: x}, {target_label: __tmp__, replacement: y}, {action: labelkeep, regex: __tmp__}]`, pod, `{__tmp__="y"} 0=alloc_objects:count 1=alloc_space:bytes 2=inuse_space:bytes`},
		{
			`{default_rules: last, series: [{source_labels: [__name__], regex: heap, target_label: __name__, replacement: godeltaprof_heap}]}`,
			labels.FromStrings("__name__", "heap"), `{__delta__="false", __name__="heap", __name_replaced__="godeltaprof_heap"} 0=alloc_objects:count 1=alloc_space:bytes 2=inuse_space:bytes`,
		},
		{
			`{default_rules: first, series: [{source_labels: [__name_replaced__], regex: 'godeltaprof_.*', action: drop}]}`,
			labels.FromStrings("__name__", "godeltaprof_heap"), ``,
		},
		{
			`{default_rules: disabled, series: [{source_labels: [__name__], target_label: kind}]}`,
			labels.FromStrings("__name__", "godeltaprof_heap"), `{__name__="godeltaprof_heap", kind="godeltaprof_heap"} 0=alloc_objects:count 1=alloc_space:bytes 2=inuse_space:bytes`,
		},
	} {
		r := parse(t, c.text)
		before := c.series.String()
		if got := applied(r, c.series, heap...); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.text, got, c.want)
		}
		if !r.Touch(c.series) || c.series.String() != before {
			t.Errorf("%s: touch %v, the labels that were sent are now %s", c.text, r.Touch(c.series), c.series)
		}
	}
}

func TestMistakesAreNamed(t *testing.T) {
	for text, want := range map[string]string{
		"serie: []":                                                 `line 1: there is no key "serie"`,
		"default_rules: middle":                                     `line 1: default_rules: "middle" is not first, last or disabled`,
		"default_rules:":                                            `not first, last or disabled`,
		"series:\n- source_label: [a]":                              `series: line 2: there is no key "source_label"`,
		"series:\n- {action: drop, action: keep}":                   `"action" is there twice`,
		"series:\n- action: explode":                                `unknown relabel action "explode"`,
		"series:\n- regex: '('":                                     `missing closing )`,
		"series:\n- regex: a":                                       `series: rule 1: relabel configuration for replace action requires 'target_label'`,
		"series:\n- {action: hashmod, target_label: a}":             `series: rule 1: relabel configuration for hashmod requires non-zero modulus`,
		"sample_types:\n- action: labeldrop\n- regex: a":            `sample_types: rule 2: relabel`,
		"series:\n- {action: labeldrop, regex: a, target_label: b}": `requires only 'regex'`,
		"series:\n-":                                                `series: rule 1 is empty`,
		"series: drop":                                              `series: line 1: not a list of rules`,
		"series: [a]":                                               `series: line 1: not a mapping`,
		"- a":                                                       `line 1: not a mapping`,
		"a: [":                                                      `yaml`,
	} {
		if _, err := relabel.Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", text, err, want)
		}
	}
	// Rules that are not read from a text lack what reading adds.
	if _, err := relabel.New(relabel.Config{Series: []*promrelabel.Config{nil, {}, {Action: "x", TargetLabel: "a"}}}); err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("error %v", err)
	}
	r, err := relabel.New(relabel.Config{Series: []*promrelabel.Config{{Action: promrelabel.Drop}}})
	if err != nil || applied(r, labels.FromStrings("__name__", "x"), "a:b") != "" {
		t.Errorf("a rule without a regex: %v", err)
	}
}

func TestTenants(t *testing.T) {
	var n yaml.Node
	if err := yaml.Unmarshal([]byte(`
defaults: &drop
  series: [{action: drop}]
tenants:
  acme: {default_rules: disabled}
  globex:
  initech: *drop
`), &n); err != nil {
		t.Fatal(err)
	}
	all, err := relabel.ParseTenants(n.Content[0])
	if err != nil {
		t.Fatal(err)
	}
	series := labels.FromStrings("__name__", "godeltaprof_x")
	for id, want := range map[string]string{
		"nobody": "", "initech": "", "acme": `{__name__="godeltaprof_x"} 0=a:b`,
		"globex": `{__delta__="false", __name__="x", __name_replaced__="godeltaprof_x"} 0=a:b`,
	} {
		if got := applied(all.Rules(tenant.ID(id)), series, "a:b"); got != want {
			t.Errorf("%s: %s, want %s", id, got, want)
		}
	}
	empty, err := relabel.ParseTenants(nil)
	if err != nil || empty.Rules("acme").Touch(labels.FromStrings("__name__", "memory")) || !empty.Rules("acme").Touch(series) {
		t.Errorf("no section: %v", err)
	}
	if (*relabel.Tenants)(nil).Rules("acme") != nil {
		t.Error("no tenants have rules")
	}
	for text, want := range map[string]string{
		"tenant: {}":                    `line 1: there is no key "tenant"`,
		"defaults: 1":                   "defaults: line 1: not a mapping",
		"tenants:\n  a/b: {}":           "tenants: a/b: invalid tenant id",
		"tenants:\n  acme: {serie: []}": `tenants: acme: line 2: there is no key "serie"`,
		"tenants: {acme: {series: [{action: x}]}, b: {sample_types: [{}]}}": "b: line 1: sample_types: rule 1",
	} {
		if err := yaml.Unmarshal([]byte(text), &n); err != nil {
			t.Fatal(err)
		}
		if _, err := relabel.ParseTenants(n.Content[0]); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", text, err, want)
		}
	}
}

// Who has no rules pays nothing for those who have.
func TestNoRulesCostNothing(t *testing.T) {
	series := labels.FromStrings("__name__", "process_cpu", "pod", "a", "service_name", "checkout")
	r := parse(t, "")
	if n := testing.AllocsPerRun(100, func() { _ = r.Touch(series) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
