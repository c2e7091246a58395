package distributor

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/kilndb/kiln/distributor/placement"
	"github.com/kilndb/kiln/distributor/relabel"
	"github.com/kilndb/kiln/tenant"
)

// Config is what a Distributor can be told.
type Config struct {
	// Placement returns the rules that say into which shard a profile goes.
	Placement func() *placement.Rules
	// Concurrency bounds the profiles that are decoded at the same time, and so the memory for it. One of the places is always
	// for another tenant than has all the others.
	Concurrency int
	// MaxMemory bounds what the requests inside hold in bodies and messages, in bytes. A tenant may have half of it.
	MaxMemory int64
	// Limits returns the limits of a tenant.
	Limits func(tenant.ID) tenant.Limits
	// Retention returns how long the profiles of a service are kept; 0 is for ever. Nil: as long as the limits of the tenant say.
	Retention func(t tenant.ID, service string) time.Duration
	// Rules returns what is done to the labels of a tenant's profiles. Nil, and nil rules, are the default rules alone.
	Rules func(tenant.ID) *relabel.Rules
	// Distributors returns how many distributors share the pushes of a tenant, this one included: each takes an
	// equal part of a tenant's rate.
	Distributors func() int
	// Now is the clock against which the times of profiles are checked.
	Now func() time.Time
}

// DefaultConfig returns the configuration of a small cluster.
func DefaultConfig() Config {
	return Config{
		Placement:    func() *placement.Rules { return &placement.Rules{Shards: 4} },
		MaxMemory:    256 << 20,
		Concurrency:  2*runtime.GOMAXPROCS(0) + 1,
		Limits:       func(tenant.ID) tenant.Limits { return tenant.DefaultLimits() },
		Distributors: func() int { return 1 },
		Now:          time.Now,
	}
}

// Validate names every field that has no sensible value.
func (c Config) Validate() error {
	var errs []error
	if c.Placement == nil || c.Placement().Shards == 0 {
		errs = append(errs, errors.New("distributor: there are no shards"))
	}
	if c.Concurrency <= 0 {
		errs = append(errs, fmt.Errorf("distributor: concurrency %d is not positive", c.Concurrency))
	}
	if c.MaxMemory <= 0 {
		errs = append(errs, fmt.Errorf("distributor: memory %d is not positive", c.MaxMemory))
	}
	if c.Limits == nil || c.Distributors == nil || c.Now == nil {
		errs = append(errs, errors.New("distributor: limits, number of distributors or clock are missing"))
	}
	return errors.Join(errs...)
}
