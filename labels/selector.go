package labels

import (
	"errors"
	"fmt"
	"regexp/syntax"
	"strings"
	"unicode/utf8"

	prom "github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/strutil"
)

// ErrSelector is returned when a selector cannot be read. The message says where and why.
var ErrSelector = errors.New("invalid selector")

const (
	// maxSelector bounds the text of a selector. A person writes a hundred bytes, a dashboard with a
	// long list of pods a few thousand.
	maxSelector = 4 << 10
	// maxRegexp bounds a regular expression in instructions once its repetitions are written out:
	// (a{1000}){1000} is short as text and a million of them. A text without repetitions cannot reach it.
	maxRegexp = 4 << 10
)

// Matcher is a condition on the value of one label.
type Matcher struct {
	m *prom.Matcher
}

// Name returns the name of the label.
func (m Matcher) Name() string { return m.m.Name }

// Value returns the value or regular expression to compare with.
func (m Matcher) Value() string { return m.m.Value }

// Matches tells whether a value satisfies the condition; a missing label has the value "". Regular
// expressions are RE2 and match the whole value.
func (m Matcher) Matches(value string) bool { return m.m.Matches(value) }

// IsEqual tells whether the condition is name="value".
func (m Matcher) IsEqual() bool { return m.m.Type == prom.MatchEqual }

// String returns the matcher as it stands in a selector.
func (m Matcher) String() string { return m.m.String() }

// Selector is conditions that must all hold; the empty one matches everything.
type Selector []Matcher

// ParseSelector reads a selector in the PromQL form: {a="b", c!="d", e=~"f|g", h!~"i.*"}. A name that
// is not a plain word stands in quotes; a word before the brace is the value of Name. "" and {} are
// empty. The errors wrap ErrSelector.
func ParseSelector(s string) (Selector, error) {
	if len(s) > maxSelector {
		return nil, fmt.Errorf("%w: %d bytes exceed the limit of %d", ErrSelector, len(s), maxSelector)
	}
	if strings.TrimSpace(s) == "" {
		return nil, nil
	}
	if err := checkRegexps(s); err != nil {
		return nil, err
	}
	ms, err := parser.NewParser(parser.Options{}).ParseMetricSelector(s)
	if err != nil {
		return nil, fmt.Errorf("%w %q: %w", ErrSelector, s, err)
	}
	sel := make(Selector, len(ms))
	for i, m := range ms {
		// An escape can spell bytes that are no text; nothing that is stored has any.
		if !utf8.ValidString(m.Name) || !utf8.ValidString(m.Value) {
			return nil, fmt.Errorf("%w %q: %s is not UTF-8", ErrSelector, s, m)
		}
		sel[i] = Matcher{m}
	}
	return sel, nil
}

// checkRegexps refuses regular expressions that would be large once compiled; the parser below compiles
// whatever it meets. Text that is wrong in any other way is left to it.
func checkRegexps(s string) error {
	lexer := parser.Lex(s)
	isRegexp := false
	for {
		var it parser.Item
		lexer.NextItem(&it)
		switch it.Typ {
		case parser.EOF, parser.ERROR:
			return nil
		case parser.STRING:
			if !isRegexp {
				continue
			}
			isRegexp = false
			v, err := strutil.Unquote(it.Val)
			if err != nil {
				return nil
			}
			re, err := syntax.Parse(v, syntax.Perl)
			if err != nil {
				return nil
			}
			if n := instructions(re); n > maxRegexp {
				return fmt.Errorf("%w: the regular expression at byte %d is too large when its repetitions are written out (more than %d instructions)",
					ErrSelector, it.Pos, maxRegexp)
			}
		default:
			isRegexp = it.Typ == parser.EQL_REGEX || it.Typ == parser.NEQ_REGEX || isRegexp && it.Typ == parser.COMMENT
		}
	}
}

// instructions estimates the size of a compiled expression; it stops counting soon after maxRegexp.
func instructions(re *syntax.Regexp) int {
	n := 1
	if re.Op == syntax.OpLiteral {
		n = len(re.Rune)
	}
	for _, sub := range re.Sub {
		n = min(n+instructions(sub), maxRegexp+1)
	}
	if re.Op == syntax.OpRepeat {
		n = min(n*max(1, re.Min, re.Max), maxRegexp+1)
	}
	return n
}

// Matches tells whether all conditions hold for the values that get returns, "" for a missing label.
func (s Selector) Matches(get func(name string) string) bool {
	for _, m := range s {
		if !m.Matches(get(m.Name())) {
			return false
		}
	}
	return true
}

// MatchesLabels tells whether all conditions hold for ls.
func (s Selector) MatchesLabels(ls Labels) bool { return s.Matches(ls.Get) }

// Equal returns the value that name must have, if a condition demands one that is not empty.
func (s Selector) Equal(name string) (value string, ok bool) {
	for _, m := range s {
		if m.Name() == name && m.IsEqual() && m.Value() != "" {
			return m.Value(), true
		}
	}
	return "", false
}

// On returns the conditions on name.
func (s Selector) On(name string) Selector {
	var on Selector
	for _, m := range s {
		if m.Name() == name {
			on = append(on, m)
		}
	}
	return on
}

// String returns the selector in the form that ParseSelector reads.
func (s Selector) String() string {
	var b strings.Builder
	b.WriteByte('{')
	for i, m := range s {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(m.String())
	}
	b.WriteByte('}')
	return b.String()
}
