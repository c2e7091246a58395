package node

import (
	"fmt"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/kilndb/kiln/node/overrides"
	"github.com/kilndb/kiln/tenant"
)

// serviceRetention is how long services are kept that are not kept as long as their tenant says.
type serviceRetention map[tenant.ID]map[string]time.Duration

// serviceRetentionSection is the part of the limits file that says so.
func serviceRetentionSection(use func(*serviceRetention)) overrides.Section {
	return overrides.Section{Key: "service_retention", Parse: func(section *yaml.Node) (func(), error) {
		kept, err := parseServiceRetention(section)
		return func() { use(&kept) }, err
	}}
}

func parseServiceRetention(section *yaml.Node) (serviceRetention, error) {
	var texts map[string]map[string]string
	if section != nil {
		if err := section.Decode(&texts); err != nil {
			return nil, fmt.Errorf("want tenants with services with times: %w", err)
		}
	}
	kept := serviceRetention{}
	for name, services := range texts {
		id, err := tenant.Parse(name)
		if err != nil {
			return nil, err
		}
		kept[id] = map[string]time.Duration{}
		for service, text := range services {
			d, err := overrides.ParseDuration(text)
			if err != nil || d < 0 {
				return nil, fmt.Errorf("%s.%s: %q is not a time, such as 36h or 30d, or 0 for ever", name, service, text)
			}
			kept[id][service] = d
		}
	}
	return kept, nil
}

// retention returns how long the profiles of a service are kept; 0 is for ever.
func (n *Node) retention(t tenant.ID, service string) time.Duration {
	if kept := n.serviceRetention.Load(); kept != nil {
		if d, ok := (*kept)[t][service]; ok {
			return d
		}
	}
	return n.limits.Limits(t).Retention
}
