package ingest

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/pprof"
	"github.com/kilndb/kiln/tenant"
)

// placed is a profile of stacks name@file:line, one frame each.
func placed(frames ...[3]any) *profile.Profile {
	b := profile.NewBuilder()
	b.AddSampleType("cpu", "nanoseconds")
	for _, f := range frames {
		location := b.Location(b.Function(b.String([]byte(f[0].(string))), b.String([]byte(f[1].(string)))), int64(f[2].(int)))
		if err := b.Add([]uint32{location}, nil, 1); err != nil {
			panic(err)
		}
	}
	p := new(profile.Profile)
	p.Reset()
	b.Fill(p)
	return p
}

func TestScriptsSayWhereTheirFunctionsAre(t *testing.T) {
	frames := [][3]any{{"call", "app.py", 3}, {"call", "app.py", 9}, {"call", "lib.py", 3}, {"call", "/usr/lib/x.py", 4}, {"native", "", 0}}
	relative := map[string]int64{"app.py:3 - call": 1, "app.py:9 - call": 1, "lib.py:3 - call": 1, "call": 1, "native": 1}
	absolute := maps.Clone(relative)
	delete(absolute, "call")
	absolute["/usr/lib/x.py:4 - call"] = 1
	for spy, want := range map[string]map[string]int64{"pyspy": relative, "rbspy": absolute, "scripting": absolute} {
		p := placed(frames...)
		if err := fixOf(spy, nil, 1<<20)(p); err != nil {
			t.Fatal(err)
		}
		if got := stacksOf(p); !maps.Equal(got, want) {
			t.Errorf("%s: %v, want %v", spy, got, want)
		}
	}
	if fixOf("gospy", nil, 1<<20) != nil {
		t.Error("profiles of Go need no fix")
	}
}

// TestAFixGoesWithTheProfile has a profile fixed that came as bytes, which are not what must be handed to another process then.
func TestAFixGoesWithTheProfile(t *testing.T) {
	sent := placed([3]any{"call", "app.rb", 3})
	sent.SampleTypes[0].Type = addString(sent, []byte("alloc-size"))
	for _, spy := range []string{"rbspy", "dotnetspy", "pyspy"} {
		p := new(profile.Profile)
		if err := pprof.NewDecoder().Decode(pprof.Append(nil, sent), pprof.Limits{MaxBytes: 1 << 20}, p); err != nil {
			t.Fatal(err)
		}
		if p.Wire == 0 {
			t.Fatal("a decoded profile is its bytes")
		}
		if err := fixOf(spy, nil, 1<<20)(p); err != nil {
			t.Fatal(err)
		}
		if p.Wire != 0 {
			t.Errorf("%s: the profile was fixed, and its bytes would be sent on", spy)
		}
	}
}

func TestNamesWithTheirFilesAreBounded(t *testing.T) {
	// One long file name and many lines: every line would repeat it.
	var frames [][3]any
	for i := range 1000 {
		frames = append(frames, [3]any{"f", strings.Repeat("x", 10_000), i})
	}
	err := fixOf("rbspy", nil, 1<<20)(placed(frames...))
	if e := new(pprof.LimitError); !errors.As(err, &e) || e.Limit != 2<<20 {
		t.Errorf("error %v", err)
	}
}

func TestHyphensInTypesAreUnderscores(t *testing.T) {
	hyphens := sampleTypes{"alloc-size": {}}
	for _, c := range []struct {
		spy    string
		config sampleTypes
		fixed  bool
	}{{"dotnetspy", nil, true}, {"", hyphens, true}, {"unknown", hyphens, true}, {"", nil, false}, {"gospy", hyphens, false}} {
		b := profile.NewBuilder()
		b.AddSampleType("alloc-size", "bytes")
		p := new(profile.Profile)
		p.Reset()
		b.Fill(p)
		fix, want := fixOf(c.spy, c.config, 1<<20), "alloc-size"
		if c.fixed {
			want = "alloc_size"
			if fix == nil {
				t.Errorf("%q %v is not fixed", c.spy, c.config)
				continue
			}
			if err := fix(p); err != nil {
				t.Fatal(err)
			}
		} else if fix != nil {
			t.Errorf("%q %v is fixed", c.spy, c.config)
		}
		if got := string(p.String(p.SampleTypes[0].Type)); got != want {
			t.Errorf("%q: type %s, want %s", c.spy, got, want)
		}
	}
}

func TestAPanicOfAReaderIsTheFaultOfTheBody(t *testing.T) {
	h := NewHandler(&shelf{}, func(tenant.ID) tenant.Limits { return tenant.DefaultLimits() }, time.Now, slog.New(slog.DiscardHandler))
	// No buffers: inflating panics.
	_, err := h.read(t.Context(), "acme", &params{format: formatJFR}, nil, []byte(gzipOf("x")), tenant.DefaultLimits())
	if status, code := statusOf(err); !errors.Is(err, ErrPanic) || status != http.StatusBadRequest || code != "invalid_argument" || strings.Contains(err.Error(), "goroutine") {
		t.Errorf("status %d %s: %v", status, code, err)
	}
}

func TestReadingWaitsForItsTurn(t *testing.T) {
	h := NewHandler(&shelf{}, func(tenant.ID) tenant.Limits { return tenant.DefaultLimits() }, time.Now, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := h.read(ctx, "acme", &params{format: formatGroups}, nil, []byte("main 1"), tenant.DefaultLimits())
	if status, _ := statusOf(err); status != http.StatusServiceUnavailable {
		t.Errorf("status %d: %v", status, err)
	}
}

func TestFormsOfRecordings(t *testing.T) {
	bomb := gzipOf(strings.Repeat("\x00", 5<<20))
	for name, c := range map[string]struct {
		parts  []part
		status int
		says   string
	}{
		"no recording":              {[]part{{"profile", "p", "x"}}, 400, "no part jfr"},
		"two recordings":            {[]part{{"jfr", "j", "x"}, {"jfr", "j", "x"}}, 400, "more than one part jfr"},
		"labels too large":          {[]part{{"jfr", "j", "x"}, {"labels", "l", strings.Repeat("x", 1<<20)}}, 413, "limit"},
		"labels that are none":      {[]part{{"jfr", "j", "x"}, {"labels", "l", "\x0a\x05"}}, 400, "labels"},
		"labels that inflate":       {[]part{{"jfr", "j", "x"}, {"labels", "l", bomb}}, 413, "part labels"},
		"a recording that inflates": {[]part{{"jfr", "j", bomb}}, 413, "inflates beyond"},
		"a name that climbs":        {[]part{{"jfr", "../../../../tmp/x", "x"}}, 400, "malformed recording"},
	} {
		body, contentType := form(c.parts...)
		store := &shelf{}
		w := send(t, store, "name=a&format=jfr", contentType, body)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.says) || len(store.uploads) > 0 || store.refused != 1 {
			t.Errorf("%s: answer %d %s, want %d and %q", name, w.Code, w.Body, c.status, c.says)
		}
	}
}
