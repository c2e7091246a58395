package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// The prefixes of an address that stands for others: all that a host has now, and all that a service has.
const (
	hostPrefix    = "dns+"
	servicePrefix = "dnssrv+"
)

const (
	// lookupTimeout is how long the answer of a name server is waited for.
	lookupTimeout = 2 * time.Second
	// A name is looked up again this long after the last time: when calls fail, and when they do not.
	lookupAfterFailure = time.Second
	lookupEvery        = 30 * time.Second
)

// Resolver looks names up, as *net.Resolver does.
type Resolver interface {
	LookupHost(ctx context.Context, host string) ([]string, error)
	LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
}

// CheckAddress returns what is wrong with an address for New, or nil.
func CheckAddress(address string) error {
	if name, ok := strings.CutPrefix(address, servicePrefix); ok {
		if !strings.HasPrefix(name, "_") || !strings.Contains(name, "._tcp.") {
			return fmt.Errorf("%q is not %s_name._tcp.host", address, servicePrefix)
		}
		return nil
	}
	name, looked := strings.CutPrefix(address, hostPrefix)
	if strings.Contains(name, "://") && !looked {
		return nil
	}
	if host, port, err := net.SplitHostPort(name); err != nil || host == "" || port == "" {
		return fmt.Errorf("%q is not host:port, %shost:port or %s_name._tcp.host", address, hostPrefix, servicePrefix)
	}
	return nil
}

// addresses are where members of the metastore may be: as they were given, names looked up. It is safe for concurrent use.
type addresses struct {
	given    []string
	resolver Resolver
	looking  chan struct{} // has room for the one who looks names up

	mu      sync.Mutex // guards what follows
	answers [][]string // the latest for each of given
	err     error      // of the latest lookup
	looked  time.Time
	suspect bool // calls have failed since
}

func newAddresses(given []string, resolver Resolver) *addresses {
	a := &addresses{given: given, resolver: resolver, looking: make(chan struct{}, 1), answers: make([][]string, len(given))}
	for i, address := range given {
		if !named(address) {
			a.answers[i] = []string{address}
		}
	}
	return a
}

// named tells whether an address is to be looked up here. Those that are not the dialler may look up.
func named(address string) bool {
	return strings.HasPrefix(address, hostPrefix) || strings.HasPrefix(address, servicePrefix)
}

// known returns the addresses, and looks names up first if calls have failed or nothing is known.
func (a *addresses) known(ctx context.Context) ([]string, error) {
	a.refresh(ctx, lookupAfterFailure, true)
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []string
	for _, answer := range a.answers {
		for _, address := range answer {
			if !slices.Contains(all, address) {
				all = append(all, address)
			}
		}
	}
	if len(all) == 0 {
		return nil, errors.Join(errors.New("no address of the metastore is known"), a.err, ctx.Err())
	}
	return all, nil
}

// failed notes that a call has failed, so that the answers may be out of date.
func (a *addresses) failed() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.suspect = true
}

// refresh looks the names up if the answers are at least so old, and if onlySuspect, only if calls have failed since. One
// caller looks; the others do not wait for it unless nothing is known yet.
func (a *addresses) refresh(ctx context.Context, age time.Duration, onlySuspect bool) {
	if !slices.ContainsFunc(a.given, named) {
		return
	}
	a.mu.Lock()
	first := a.looked.IsZero()
	due := first || time.Since(a.looked) >= age && (a.suspect || !onlySuspect)
	a.mu.Unlock()
	if !due {
		return
	}
	select {
	case a.looking <- struct{}{}:
		defer func() { <-a.looking }()
		a.lookup(ctx)
		return
	default:
	}
	if !first {
		return
	}
	select {
	case a.looking <- struct{}{}: // the first lookup is over
		<-a.looking
	case <-ctx.Done():
	}
}

// lookup asks for all names. Where that fails, or there is no answer, the old one is kept.
func (a *addresses) lookup(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	answers, errs := make([][]string, len(a.given)), []error(nil)
	for i, address := range a.given {
		if !named(address) {
			continue
		}
		answer, err := a.ask(ctx, address)
		if err != nil {
			errs = append(errs, fmt.Errorf("look up %s: %w", address, err))
		}
		answers[i] = answer
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, answer := range answers {
		if len(answer) > 0 {
			a.answers[i] = answer
		}
	}
	a.err, a.looked, a.suspect = errors.Join(errs...), time.Now(), false
}

// ask looks one name up.
func (a *addresses) ask(ctx context.Context, address string) (found []string, err error) {
	if name, ok := strings.CutPrefix(address, servicePrefix); ok {
		_, records, err := a.resolver.LookupSRV(ctx, "", "", name)
		for _, r := range records {
			found = append(found, net.JoinHostPort(strings.TrimSuffix(r.Target, "."), fmt.Sprint(r.Port)))
		}
		return found, err
	}
	host, port, err := net.SplitHostPort(strings.TrimPrefix(address, hostPrefix))
	if err != nil {
		return nil, err
	}
	hosts, err := a.resolver.LookupHost(ctx, host)
	for _, h := range hosts {
		found = append(found, net.JoinHostPort(h, port))
	}
	return found, err
}
