package node

import (
	"fmt"

	"go.yaml.in/yaml/v3"

	"github.com/kilndb/kiln/distributor/relabel"
	"github.com/kilndb/kiln/node/overrides"
	"github.com/kilndb/kiln/tenant"
)

// CheckLimitsFile says what is wrong with the text of a limits file.
func CheckLimitsFile(text []byte) error {
	_, err := overrides.Parse(text, tenant.DefaultLimits(), relabelSection(func(*relabel.Tenants) {}), serviceRetentionSection(func(*serviceRetention) {}))
	return err
}

// openLimits reads the file of limits, if there is one, and watches it.
func (n *Node) openLimits() (err error) {
	n.limits, err = overrides.Open(overrides.Config{
		Path: n.cfg.LimitsFile, Base: n.cfg.baseLimits(), Hangups: n.env.Hangups,
		Sections: []overrides.Section{relabelSection(n.relabel.Store), serviceRetentionSection(n.serviceRetention.Store)},
	}, n.log("overrides"), n.reg)
	if err != nil {
		return fmt.Errorf("--limits-file: %w", err)
	}
	n.group.Add("overrides", n.limits)
	return nil
}

// relabelSection is the part of the file that says what is done to the labels of profiles.
func relabelSection(use func(*relabel.Tenants)) overrides.Section {
	return overrides.Section{Key: "relabel", Parse: func(section *yaml.Node) (func(), error) {
		rules, err := relabel.ParseTenants(section)
		return func() { use(rules) }, err
	}}
}

// rules returns what is done to the labels of a tenant's profiles.
func (n *Node) rules(id tenant.ID) *relabel.Rules { return n.relabel.Load().Rules(id) }
