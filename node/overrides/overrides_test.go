package overrides_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"go.yaml.in/yaml/v3"

	"github.com/kilndb/kiln/node/overrides"
	"github.com/kilndb/kiln/tenant"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTenantsOverDefaultsOverBase(t *testing.T) {
	set, err := overrides.Parse([]byte(`
# what everybody gets
defaults: &everybody
  rate: 8MiB
  max_age: 30d
  max_samples: 20_000
tenants:
  acme:
    rate: 0
    burst: 1.5MB
    max_query_length: 36h
  globex:
  initech: *everybody
`), tenant.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	defaults := tenant.DefaultLimits()
	defaults.Rate, defaults.MaxAge, defaults.MaxSamples = 8<<20, 30*24*time.Hour, 20_000
	acme := defaults
	acme.Rate, acme.Burst, acme.MaxQueryLength = 0, 1_500_000, 36*time.Hour
	for id, want := range map[tenant.ID]tenant.Limits{"nobody": defaults, "acme": acme, "globex": defaults, "initech": defaults} {
		if got := set.Limits(id); got != want {
			t.Errorf("%s: %+v, want %+v", id, got, want)
		}
	}
	for _, empty := range []string{"", "# nothing\n", "---\n", "defaults:\ntenants:\n"} {
		set, err := overrides.Parse([]byte(empty), defaults)
		if err != nil || set.Limits("acme") != defaults {
			t.Errorf("%q: %v", empty, err)
		}
	}
}

func TestMistakesAreNamed(t *testing.T) {
	for text, want := range map[string]string{
		"defaults:\n  rates: 1":                              "line 2: defaults.rates: there is no such limit",
		"default:\n  rate: 1":                                "line 2: default: there is no such section",
		"defaults:\n  rate: fast":                            `line 2: defaults.rate: "fast" is not a size, such as 4194304 or 4MiB`,
		"defaults:\n  rate: 4mib":                            `line 2: defaults.rate: "4mib" is not a size, such as 4194304 or 4MiB`,
		"defaults:\n  rate: 0.3":                             `line 2: defaults.rate: "0.3" is not a size, such as 4194304 or 4MiB`,
		"defaults:\n  rate: -1":                              `line 2: defaults.rate: "-1" is not between 0 and 2147483647`,
		"defaults:\n  burst: 0":                              `line 2: defaults.burst: "0" is not between 1 and 2147483647`,
		"defaults:\n  max_body: 2GiB":                        `line 2: defaults.max_body: "2GiB" is not between 1 and 1073741824`,
		"defaults:\n  max_ratio: 0":                          `line 2: defaults.max_ratio: "0" is not between 1 and 2147483647`,
		"defaults:\n  max_labels: 4KiB":                      `line 2: defaults.max_labels: "4KiB" is not a whole number`,
		"defaults:\n  max_age: 10":                           `line 2: defaults.max_age: "10" is not a time, such as 10m, 36h or 30d`,
		"defaults:\n  max_age: 1000000d":                     `line 2: defaults.max_age: "1000000d" is not a time, such as 10m, 36h or 30d`,
		"defaults:\n  max_future: -1m":                       `line 2: defaults.max_future: "-1m" is less than 1ns`,
		"defaults:\n  rate:\n    - 1":                        "line 3: defaults.rate: not a single value",
		"defaults:\n  rate:":                                 "line 2: defaults.rate: not a single value",
		"defaults: 7":                                        "line 1: defaults: not a mapping of keys to values",
		"- 1":                                                "line 1: the file: not a mapping of keys to values",
		"defaults:\n  rate: 1\n  rate: 2":                    `line 3: defaults: "rate" is there twice`,
		"tenants:\n  a:\n    rate: 1\n  a:\n    rate: 2":     `line 4: tenants: "a" is there twice`,
		"tenants:\n  ..:\n    rate: 1":                       `line 3: tenants: invalid tenant id: ".."`,
		"tenants:\n  acme:\n    max_request_bytes: 1MiB":     "line 3: tenants.acme: max_profile_bytes (4194304) is more than max_request_bytes (1048576)",
		"tenants:\n  acme:\n    default_nodes: 2000000":      "line 3: tenants.acme: default_nodes (2000000) is more than max_nodes (1048576)",
		"tenants:\n  acme:\n    rate: x\n    burst: y":       "line 4: tenants.acme.burst",
		"tenants:\n  acme:\n    rate: x\n  b:\n    burst: y": "line 3: tenants.acme.rate",
		"defaults: {rate: 1}\n---\ndefaults: {rate: 2}":      "more than one document",
		"defaults:\n\trate: 1":                               "line 2",
		"defaults: {":                                        "line 1",
	} {
		if _, err := overrides.Parse([]byte(text), tenant.DefaultLimits()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", text, err, want)
		}
	}
}

// Every limit has a key, which is its name in snake case, sets it alone, and is shown.
func TestEveryLimitHasAKey(t *testing.T) {
	fields := reflect.TypeFor[tenant.Limits]()
	for i := range fields.NumField() {
		f := fields.Field(i)
		var name strings.Builder
		for j, r := range f.Name {
			if unicode.IsUpper(r) && j > 0 {
				name.WriteByte('_')
			}
			name.WriteRune(unicode.ToLower(r))
		}
		text, want := "7", int64(7)
		if f.Type == reflect.TypeFor[time.Duration]() {
			text, want = "7m", int64(7*time.Minute)
		}
		base := tenant.Limits{MaxRequestBytes: 1 << 20, MaxNodes: 1 << 20}
		set, err := overrides.Parse(fmt.Appendf(nil, "tenants:\n  acme:\n    %s: %s\n", name.String(), text), base)
		if err != nil {
			t.Errorf("%s: %v", f.Name, err)
			continue
		}
		reflect.ValueOf(&base).Elem().Field(i).SetInt(want)
		if got := set.Limits("acme"); got != base {
			t.Errorf("%s became %+v", name.String(), got)
		}
	}
	o, err := overrides.Open(overrides.Config{Base: tenant.DefaultLimits()}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "/api/v1/tenant_limits", nil)
	o.ServeHTTP(w, r.WithContext(tenant.NewContext(t.Context(), "acme")))
	var shown map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &shown); err != nil || len(shown) != fields.NumField() || shown["rate"] != float64(4<<20) || shown["max_future"] != "10m0s" {
		t.Errorf("%d of %d limits are shown: %s, %v", len(shown), fields.NumField(), w.Body, err)
	}
	w = httptest.NewRecorder()
	if o.ServeHTTP(w, r); w.Code != http.StatusUnauthorized {
		t.Errorf("without a tenant: %d", w.Code)
	}
}

// watched is a file that is watched by hand.
type watched struct {
	*overrides.Overrides
	t     *testing.T
	path  string
	ticks chan time.Time
	hup   chan os.Signal
	log   *bytes.Buffer
	reg   *prometheus.Registry
}

func watch(t *testing.T, text string, sections ...overrides.Section) *watched {
	t.Helper()
	w := &watched{t: t, path: filepath.Join(t.TempDir(), "limits.yaml"), ticks: make(chan time.Time), hup: make(chan os.Signal), log: new(bytes.Buffer), reg: prometheus.NewRegistry()}
	w.write(text)
	var err error
	w.Overrides, err = overrides.Open(overrides.Config{Path: w.path, Base: tenant.DefaultLimits(), Ticks: w.ticks, Hangups: w.hup, Sections: sections},
		slog.New(slog.NewTextHandler(w.log, nil)), w.reg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *watched) write(text string) {
	w.t.Helper()
	if err := os.WriteFile(w.path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// look waits until the watcher has looked at the file twice: it takes a tick once it is done with the one before.
func (w *watched) look() {
	for range 3 {
		w.ticks <- time.Time{}
	}
}

func (w *watched) wantRate(want int) {
	w.t.Helper()
	if got := w.Limits("acme").Rate; got != want {
		w.t.Errorf("the rate is %d, want %d", got, want)
	}
}

func (w *watched) wantGood(want float64) {
	w.t.Helper()
	err := testutil.GatherAndCompare(w.reg, strings.NewReader(fmt.Sprintf(
		"# HELP kiln_limits_file_good Whether the limits file is good as it is now: 0 when an older version is in use.\n# TYPE kiln_limits_file_good gauge\nkiln_limits_file_good %v\n", want)), "kiln_limits_file_good")
	if err != nil {
		w.t.Error(err)
	}
}

func TestANewVersionIsTakenAndABrokenOneRefused(t *testing.T) {
	w := watch(t, "defaults: {rate: 1MiB}")
	w.wantRate(1 << 20)
	w.write("defaults: {rate: 2MiB}") // as long as before
	w.look()
	w.wantRate(2 << 20)
	w.wantGood(1)
	w.write("defaults: {rate: 3MiB}\ntenants: {acme: {burst: none}}")
	w.look()
	w.look()
	w.wantRate(2 << 20)
	w.wantGood(0)
	if err := os.Remove(w.path); err != nil {
		t.Fatal(err)
	}
	w.look()
	w.look()
	w.wantRate(2 << 20)
	w.write("tenants: {acme: {rate: 4MiB}}")
	w.look()
	w.wantRate(4 << 20)
	w.wantGood(1)
	if got := strings.Count(w.log.String(), "refused"); got != 2 {
		t.Errorf("a broken version and a missing file are told %d times:\n%s", got, w.log)
	}
	if !strings.Contains(w.log.String(), `tenants.acme.burst: \"none\"`) && !strings.Contains(w.log.String(), `tenants.acme.burst: \\\"none\\\"`) {
		t.Errorf("the log does not say what is wrong:\n%s", w.log)
	}
}

func TestASignalIsHeardAtOnce(t *testing.T) {
	w := watch(t, "defaults: {rate: 1MiB}")
	w.write("defaults: {rate: 2MiB}")
	w.hup <- os.Interrupt
	w.ticks <- time.Time{} // it is done with the signal
	w.wantRate(2 << 20)
}

func TestABadFileIsRefusedAtTheStart(t *testing.T) {
	for path, text := range map[string]string{"bad.yaml": "tenants: 1", "missing.yaml": ""} {
		path = filepath.Join(t.TempDir(), path)
		if text != "" {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := overrides.Open(overrides.Config{Path: path, Base: tenant.DefaultLimits()}, slog.New(slog.DiscardHandler), prometheus.NewRegistry()); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// Other sections are published with the limits or not at all.
func TestSectionsGoTogether(t *testing.T) {
	var rules []string
	section := overrides.Section{Key: "relabel", Parse: func(n *yaml.Node) (func(), error) {
		var next []string
		if n != nil {
			if err := n.Decode(&next); err != nil {
				return nil, err
			}
		}
		if len(next) > 2 {
			return nil, errors.New("too many")
		}
		return func() { rules = next }, nil
	}}
	w := watch(t, "relabel: [a]\ndefaults: {rate: 1}", section)
	for text, want := range map[string]string{
		"relabel: [b, c]\ndefaults: {rate: -1}":   "[a] 1",
		"relabel: [1, 2, 3]\ndefaults: {rate: 5}": "[a] 1",
	} {
		w.write(text)
		w.look()
		if got := fmt.Sprint(rules, w.Limits("acme").Rate); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
	w.write("defaults: {rate: 2}")
	w.look()
	if got := fmt.Sprint(rules, w.Limits("acme").Rate); got != "[] 2" {
		t.Errorf("without the section: %s", got)
	}
}
