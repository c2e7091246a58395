package overrides

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/kilndb/kiln/tenant"
)

// Set is one version of the file: a value, never changed once parsed.
type Set struct {
	defaults tenant.Limits
	tenants  map[tenant.ID]tenant.Limits
	// publish makes the other sections effective.
	publish []func()
}

// Section is a key of the file beside defaults and tenants.
type Section struct {
	Key string
	// Parse checks the section, which is nil when the file has none, and returns what makes it effective: that is called
	// once the whole file is known to be good. Parse must have no effect itself. Its errors should name the line.
	Parse func(section *yaml.Node) (publish func(), err error)
}

// Limits returns the limits of a tenant.
func (s *Set) Limits(id tenant.ID) tenant.Limits {
	if l, ok := s.tenants[id]; ok {
		return l
	}
	return s.defaults
}

// Parse reads the text of a file. Base is what the file's defaults are laid over. An error names everything that is
// wrong, a line each.
func Parse(text []byte, base tenant.Limits, sections ...Section) (*Set, error) {
	root, err := decode(text)
	if err != nil {
		return nil, err
	}
	p := &parser{set: &Set{defaults: base, tenants: map[tenant.ID]tenant.Limits{}}}
	fields := p.mapping("the file", root)
	p.limits("defaults", fields["defaults"], &p.set.defaults)
	for name, node := range p.mapping("tenants", fields["tenants"]) {
		id, err := tenant.Parse(name)
		if err != nil {
			p.fail(node, "tenants", err)
			continue
		}
		limits := p.set.defaults
		p.limits("tenants."+name, node, &limits)
		p.set.tenants[id] = limits
	}
	delete(fields, "defaults")
	delete(fields, "tenants")
	for _, s := range sections {
		publish, err := s.Parse(fields[s.Key])
		if err != nil {
			p.mistakes = append(p.mistakes, mistake{math.MaxInt, fmt.Errorf("%s: %w", s.Key, err)})
		}
		p.set.publish = append(p.set.publish, publish)
		delete(fields, s.Key)
	}
	for name, node := range fields {
		p.fail(node, name, errors.New("there is no such section"))
	}
	if len(p.mistakes) > 0 {
		return nil, p.err()
	}
	return p.set, nil
}

// decode returns the one document of a file, nil if it is empty.
func decode(text []byte) (*yaml.Node, error) {
	var doc yaml.Node
	d := yaml.NewDecoder(bytes.NewReader(text))
	switch err := d.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, err
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("the file has more than one document")
	}
	if len(doc.Content) == 0 {
		return nil, nil
	}
	return doc.Content[0], nil
}

// parser collects what is wrong with a file.
type parser struct {
	set      *Set
	mistakes []mistake
}

type mistake struct {
	line int
	err  error
}

// err joins all mistakes in the order of their lines.
func (p *parser) err() error {
	slices.SortFunc(p.mistakes, func(a, b mistake) int {
		return cmp.Or(cmp.Compare(a.line, b.line), strings.Compare(a.err.Error(), b.err.Error()))
	})
	var errs []error
	for _, m := range p.mistakes {
		errs = append(errs, m.err)
	}
	return errors.Join(errs...)
}

func (p *parser) fail(n *yaml.Node, name string, err error) {
	p.mistakes = append(p.mistakes, mistake{n.Line, fmt.Errorf("line %d: %s: %w", n.Line, name, err)})
}

// mapping returns the values of a mapping by their keys. What is missing, or there without a value, is empty.
func (p *parser) mapping(name string, n *yaml.Node) map[string]*yaml.Node {
	values := map[string]*yaml.Node{}
	if n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n == nil || n.Tag == "!!null" {
		return values
	}
	if n.Kind != yaml.MappingNode {
		p.fail(n, name, errors.New("not a mapping of keys to values"))
		return values
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if _, twice := values[k.Value]; twice {
			p.fail(k, name, fmt.Errorf("%q is there twice", k.Value))
		}
		values[k.Value] = v
	}
	return values
}

// limits lays the limits that a mapping names over l.
func (p *parser) limits(name string, n *yaml.Node, l *tenant.Limits) {
	values := p.mapping(name, n)
	before := len(p.mistakes)
	for _, k := range keys(l) {
		v, ok := values[k.name]
		if !ok {
			continue
		}
		delete(values, k.name)
		if v.Kind == yaml.AliasNode {
			v = v.Alias
		}
		if v.Kind != yaml.ScalarNode || v.Tag == "!!null" {
			p.fail(v, name+"."+k.name, errors.New("not a single value"))
		} else if err := k.set(v.Value); err != nil {
			p.fail(v, name+"."+k.name, err)
		}
	}
	for unknown, v := range values {
		p.fail(v, name+"."+unknown, errors.New("there is no such limit"))
	}
	if err := l.Validate(); err != nil && len(p.mistakes) == before && n != nil {
		p.fail(n, name, err)
	}
}
