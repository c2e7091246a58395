package node

import (
	"fmt"
	"slices"
	"strings"
)

// Role is one of the parts that a process can play.
type Role string

// The roles of kiln.
const (
	Metastore        Role = "metastore"
	SegmentWriter    Role = "segmentwriter"
	Distributor      Role = "distributor"
	CompactionWorker Role = "compactionworker"
	QueryBackend     Role = "querybackend"
	QueryFrontend    Role = "queryfrontend"
)

// AllRoles returns every role, in the order in which a process starts them.
func AllRoles() []Role {
	return []Role{Metastore, SegmentWriter, Distributor, CompactionWorker, QueryBackend, QueryFrontend}
}

// ParseRoles reads a comma-separated list; "all" is every role.
func ParseRoles(s string) ([]Role, error) {
	if s == "" || s == "all" {
		return AllRoles(), nil
	}
	var roles []Role
	for _, name := range strings.Split(s, ",") {
		r := Role(strings.TrimSpace(name))
		if !slices.Contains(AllRoles(), r) {
			return nil, fmt.Errorf("unknown role %q: the roles are %v", name, AllRoles())
		}
		if !slices.Contains(roles, r) {
			roles = append(roles, r)
		}
	}
	return roles, nil
}
