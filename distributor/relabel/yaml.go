package relabel

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/relabel"
	"go.yaml.in/yaml/v3"

	"github.com/kilndb/kiln/tenant"
)

// Parse reads the rules of a tenant from YAML: see the package comment. An unknown key is an error.
func Parse(text []byte) (*Rules, error) {
	var n yaml.Node
	if err := yaml.Unmarshal(text, &n); err != nil {
		return nil, err
	}
	return parse(&n)
}

// Tenants are the rules of all tenants.
type Tenants struct {
	others  *Rules
	tenants map[tenant.ID]*Rules
}

// ParseTenants reads the rules of all tenants from a node of YAML, which may be nil: the rules of each one below the key
// tenants, and below the key defaults those of all others.
func ParseTenants(n *yaml.Node) (*Tenants, error) {
	all := &Tenants{tenants: map[tenant.ID]*Rules{}}
	fields, err := mapping(n, "defaults", "tenants")
	if err != nil {
		return nil, err
	}
	if all.others, err = parse(fields["defaults"]); err != nil {
		return nil, fmt.Errorf("defaults: %w", err)
	}
	tenants, err := mapping(fields["tenants"])
	if err != nil {
		return nil, fmt.Errorf("tenants: %w", err)
	}
	var errs []error
	for name, n := range tenants {
		id, err := tenant.Parse(name)
		if err == nil {
			all.tenants[id], err = parse(n)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("tenants: %s: %w", name, err))
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return all, errors.Join(errs...)
}

// Rules returns the rules of a tenant. Those of a nil Tenants are the default rules.
func (t *Tenants) Rules(id tenant.ID) *Rules {
	if t == nil {
		return nil
	}
	if r, ok := t.tenants[id]; ok {
		return r
	}
	return t.others
}

func parse(n *yaml.Node) (*Rules, error) {
	fields, err := mapping(n, "default_rules", "series", "sample_types")
	if err != nil {
		return nil, err
	}
	var c Config
	if n := fields["default_rules"]; n != nil {
		if err := n.Decode(&c.DefaultRules); err != nil {
			return nil, fmt.Errorf("default_rules: %w", err)
		}
		if c.DefaultRules == "" {
			return nil, fmt.Errorf("line %d: default_rules: not first, last or disabled", n.Line)
		}
	}
	for _, list := range []struct {
		key   string
		rules *[]*relabel.Config
	}{{"series", &c.Series}, {"sample_types", &c.SampleTypes}} {
		if *list.rules, err = parseList(fields[list.key]); err != nil {
			return nil, fmt.Errorf("%s: %w", list.key, err)
		}
	}
	r, err := New(c)
	if err != nil && n != nil {
		return nil, fmt.Errorf("line %d: %w", n.Line, err)
	}
	return r, err
}

func parseList(n *yaml.Node) ([]*relabel.Config, error) {
	if absent(n) {
		return nil, nil
	}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.SequenceNode {
		return nil, fmt.Errorf("line %d: not a list of rules", n.Line)
	}
	var rules []*relabel.Config
	for _, item := range n.Content {
		// Decode alone would not mind a key that no rule has.
		if _, err := mapping(item, "source_labels", "separator", "regex", "modulus", "target_label", "replacement", "action"); err != nil {
			return nil, err
		}
		rule := new(relabel.Config)
		if absent(item) {
			rule = nil
		} else if err := item.Decode(rule); err != nil {
			return nil, fmt.Errorf("line %d: %w", item.Line, err)
		}
		rules = append(rules, rule)
	}
	return rules, nil
}

// absent tells whether there is nothing.
func absent(n *yaml.Node) bool { return n == nil || n.Kind == 0 || n.Tag == "!!null" }

// mapping returns the values of a mapping by their keys, of which only known ones are allowed if any are.
func mapping(n *yaml.Node, known ...string) (map[string]*yaml.Node, error) {
	for n != nil && (n.Kind == yaml.DocumentNode || n.Kind == yaml.AliasNode) {
		if n.Kind == yaml.AliasNode {
			n = n.Alias
		} else {
			n = n.Content[0]
		}
	}
	if absent(n) {
		return nil, nil
	}
	if n.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("line %d: not a mapping of keys to values", n.Line)
	}
	fields := make(map[string]*yaml.Node, len(n.Content)/2)
	for i := 0; i < len(n.Content); i += 2 {
		key := n.Content[i]
		switch _, twice := fields[key.Value]; {
		case len(known) > 0 && !slices.Contains(known, key.Value):
			return nil, fmt.Errorf("line %d: there is no key %q, only %q", key.Line, key.Value, known)
		case twice:
			return nil, fmt.Errorf("line %d: %q is there twice", key.Line, key.Value)
		}
		fields[key.Value] = n.Content[i+1]
	}
	return fields, nil
}
