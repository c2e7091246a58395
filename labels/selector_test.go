package labels_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/kilndb/kiln/labels"
)

func TestParseSelector(t *testing.T) {
	api := labels.FromStrings(labels.Name, "process_cpu", labels.ServiceName, "api", "pod", "api-1", "k8s.node", `a"b`, "empty", "")
	for _, c := range []struct {
		selector string
		matches  bool
	}{
		{``, true},
		{"  \n", true},
		{`{}`, true},
		{`{service_name="api"}`, true},
		{`{service_name="api",}`, true},
		{`{service_name='api'}`, true},
		{"{service_name=`api`}", true},
		{`{service_name="web"}`, false},
		{`{service_name!="web"}`, true},
		{`{service_name!="api"}`, false},
		{`{service_name=~"a.*|b"}`, true},
		{`{service_name=~"a"}`, false}, // the whole value
		{`{service_name!~"a"}`, true},
		{`{service_name!~".+"}`, false},
		{`{service_name="api", pod=~"api-\\d"}`, true},
		{`{service_name="api", pod="api-2"}`, false},
		{`{pod=~"api-.", pod!="api-2"}`, true},
		{`{absent=""}`, true},
		{`{absent!=""}`, false},
		{`{empty=""}`, true},
		{`{absent=~".*"}`, true},
		{`{absent=~".+"}`, false},
		{`{"k8s.node"="a\"b"}`, true},
		{`process_cpu{pod="api-1"}`, true},
		{`memory{pod="api-1"}`, false},
		{`process_cpu`, true},
		{`{"process_cpu"}`, true},
		{`{service_name="api"} # and a remark`, true},
	} {
		s, err := labels.ParseSelector(c.selector)
		if err != nil {
			t.Errorf("ParseSelector(%s): %v", c.selector, err)
			continue
		}
		if got := s.MatchesLabels(api); got != c.matches {
			t.Errorf("%s matches: %v, want %v", c.selector, got, c.matches)
		}
		again, err := labels.ParseSelector(s.String())
		if err != nil || again.String() != s.String() || again.MatchesLabels(api) != c.matches {
			t.Errorf("%s printed as %s: %v", c.selector, s, err)
		}
	}
}

func TestParseSelectorRefuses(t *testing.T) {
	for _, c := range []struct{ selector, want string }{
		{`{`, "1:2"},
		{`{a}`, "unexpected"},
		{`{a="b"`, "unexpected end of input"},
		{`{a="b}`, "unterminated"},
		{`{a=b}`, "1:4"},
		{`{a="b" c="d"}`, `1:8`},
		{`{a=="b"}`, "1:4"},
		{`{a=~"("}`, "missing closing )"},
		{`{a=~"(?=x)"}`, "invalid or unsupported Perl syntax"},
		{`{a=~"b**"}`, "invalid nested repetition"},
		{`{1a="b"}`, "1:2"},
		{`{a="b"}}`, "1:8"},
		{`{a="b"} or {c="d"}`, "1:9"},
		{`rate(x[5m])`, "1:5"},
		{`{a="\xff"}`, "UTF-8"},
		{`{a="` + strings.Repeat("x", 4096) + `"}`, "limit of 4096"},
		{`{a=~"(a{1000}){1000}"}`, "invalid repeat count"},
		{`{a="b", c=~"` + strings.Repeat("x{900}", 100) + `"}`, "byte 11 is too large"},
		{`{a!~"(x{30}){30}(y{30}){30}(z{30}){30}(a{30}){30}(b{30}){30}"}`, "byte 4 is too large"},
	} {
		s, err := labels.ParseSelector(c.selector)
		if !errors.Is(err, labels.ErrSelector) {
			t.Errorf("ParseSelector(%.60s) = %v, %v, want ErrSelector", c.selector, s, err)
			continue
		}
		if !strings.Contains(err.Error(), c.want) {
			t.Errorf("ParseSelector(%.60s): %v, want %q in it", c.selector, err, c.want)
		}
	}
}

// The most expensive selectors that pass are still cheap, to parse and to match.
func TestSelectorCost(t *testing.T) {
	value := strings.Repeat("a", 2048)
	for _, re := range []string{
		strings.Repeat("(a*)*", 700),
		"(" + strings.Repeat("a|", 1500) + "a)+b",
		"(a?){500}a{500}",
		`(\\pL\\pN?){500}`,
		strings.Repeat("[^a]", 1000),
	} {
		start := time.Now()
		s, err := labels.ParseSelector(`{x=~"` + re + `"}`)
		if err != nil {
			t.Errorf("%.30s: %v", re, err)
			continue
		}
		s.Matches(func(string) string { return value })
		// 100 ms on a quiet machine; ten times that on one that is not.
		if took := time.Since(start); took > time.Second {
			t.Errorf("%.30s took %v", re, took)
		}
	}
}

func TestSelectorParts(t *testing.T) {
	s, err := labels.ParseSelector(`{a="1", b=~"2", a!="3", c="", c=~"4"}`)
	if err != nil {
		t.Fatal(err)
	}
	if v, ok := s.Equal("a"); !ok || v != "1" {
		t.Errorf("Equal(a) = %q, %v", v, ok)
	}
	for _, name := range []string{"b", "c", "d"} {
		if v, ok := s.Equal(name); ok {
			t.Errorf("Equal(%s) = %q", name, v)
		}
	}
	if got := s.On("a").String(); got != `{a="1", a!="3"}` {
		t.Errorf("On(a) = %s", got)
	}
	if got := s.On("d"); len(got) != 0 || !got.Matches(func(string) string { return "x" }) {
		t.Errorf("On(d) = %s", got)
	}
	if m := s[0]; m.Name() != "a" || m.Value() != "1" || !m.IsEqual() || !m.Matches("1") || m.Matches("2") {
		t.Errorf("matcher %s", m)
	}
	if s[1].IsEqual() || s[2].IsEqual() {
		t.Error("=~ or != is equal")
	}
}

// A set printed is a selector that matches the set.
func TestLabelsStringIsASelector(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ls := labels.New()
		for range rapid.IntRange(0, 4).Draw(t, "n") {
			// U+FFFD is what the lexer takes for the trace of bytes that are not UTF-8.
			name := rapid.StringN(1, 10, 40).Filter(func(s string) bool { return !strings.ContainsRune(s, utf8.RuneError) }).Draw(t, "name")
			value := rapid.String().Filter(func(s string) bool { return !strings.ContainsRune(s, utf8.RuneError) }).Draw(t, "value")
			ls = ls.With(name, value)
		}
		s, err := labels.ParseSelector(ls.String())
		if err != nil {
			t.Fatal(err)
		}
		if len(s) != len(ls) || !s.MatchesLabels(ls) {
			t.Fatalf("%s became %s", ls, s)
		}
		for _, l := range ls {
			if v, ok := s.Equal(l.Name); l.Value != "" && (!ok || v != l.Value) {
				t.Fatalf("%s: Equal(%q) = %q", s, l.Name, v)
			}
		}
	})
}

// FuzzParseSelector: no panic, errors of one kind, and what is accepted prints as the same selector.
func FuzzParseSelector(f *testing.F) {
	for _, s := range []string{``, `{}`, `{a="b"}`, `process_cpu{a!="b",c=~"d|e",f!~"g.*"}`, `{"a.b"="c\n"}`, `{a=~"(x{9}){9}"}`, `{a="b"`, "{a=`\\`}", `{a=~"["}`, `# remark`} {
		f.Add(s, "b")
	}
	f.Fuzz(func(t *testing.T, text, value string) {
		s, err := labels.ParseSelector(text)
		if err != nil {
			if !errors.Is(err, labels.ErrSelector) {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		matches := s.Matches(func(string) string { return value })
		printed := s.String()
		again, err := labels.ParseSelector(printed)
		if err != nil {
			if len(printed) > 4096 {
				return // it was within the limit before its escapes were written out
			}
			t.Fatalf("%q printed as %q: %v", text, printed, err)
		}
		if again.String() != printed || again.Matches(func(string) string { return value }) != matches {
			t.Fatalf("%q printed as %q and read as %q", text, printed, again)
		}
	})
}

func ExampleParseSelector() {
	s, err := labels.ParseSelector(`process_cpu{service_name="api", pod=~"api-[0-9]+"}`)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(s.MatchesLabels(labels.FromStrings("__name__", "process_cpu", "service_name", "api", "pod", "api-7")))
	// Output: true
}
