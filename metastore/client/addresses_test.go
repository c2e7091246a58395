package client

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// names is a name server.
type names struct {
	mu      sync.Mutex
	hosts   map[string][]string
	err     error
	hang    bool
	lookups atomic.Int32
}

func (n *names) LookupHost(ctx context.Context, host string) ([]string, error) {
	n.lookups.Add(1)
	n.mu.Lock()
	hosts, err, hang := n.hosts[host], n.err, n.hang
	n.mu.Unlock()
	if hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return hosts, err
}

func (n *names) LookupSRV(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
	if service != "" || proto != "" || name != "_kiln._tcp.store" {
		return "", nil, errors.New("no such service")
	}
	return name, []*net.SRV{{Target: "store-0.store.", Port: 4040}, {Target: "store-1.store.", Port: 4041}}, nil
}

func (n *names) set(hosts []string, err error, hang bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts, n.err, n.hang = map[string][]string{"store": hosts}, err, hang
}

func known(t *testing.T, a *addresses) string {
	t.Helper()
	all, err := a.known(t.Context())
	if err != nil {
		return err.Error()
	}
	return strings.Join(all, " ")
}

func TestANameStandsForAllItsAddresses(t *testing.T) {
	n := &names{}
	n.set([]string{"10.0.0.1", "fd00::1"}, nil, false)
	a := newAddresses([]string{"static:4040", "dns+store:4040", "dnssrv+_kiln._tcp.store", "10.0.0.1:4040"}, n)
	if got := known(t, a); got != "static:4040 10.0.0.1:4040 [fd00::1]:4040 store-0.store:4040 store-1.store:4041" {
		t.Errorf("the addresses are %s", got)
	}
	if got := known(t, newAddresses([]string{"static:4040"}, nil)); got != "static:4040" {
		t.Errorf("the addresses are %s", got)
	}
}

func TestNamesAreLookedUpAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &names{}
		n.set([]string{"10.0.0.1"}, nil, false)
		a := newAddresses([]string{"dns+store:4040"}, n)
		expect := func(when, want string, lookups int32) {
			t.Helper()
			if got := known(t, a); got != want || n.lookups.Load() != lookups {
				t.Errorf("%s: %s after %d lookups, want %s after %d", when, got, n.lookups.Load(), want, lookups)
			}
		}
		expect("at first", "10.0.0.1:4040", 1)
		n.set([]string{"10.0.0.2"}, nil, false)
		time.Sleep(time.Hour)
		expect("while calls succeed", "10.0.0.1:4040", 1)
		a.failed()
		expect("when a call fails", "10.0.0.2:4040", 2)
		a.failed()
		expect("when many calls fail", "10.0.0.2:4040", 2)
		time.Sleep(lookupAfterFailure)
		n.set(nil, errors.New("no such host"), false)
		expect("when there is no answer", "10.0.0.2:4040", 3)
		a.failed()
		time.Sleep(lookupAfterFailure)
		n.set([]string{"10.0.0.3"}, nil, true)
		begun := time.Now()
		expect("when the name server hangs", "10.0.0.2:4040", 4)
		if took := time.Since(begun); took != lookupTimeout {
			t.Errorf("a lookup that hangs took %v", took)
		}
		a.failed()
		time.Sleep(lookupAfterFailure)
		go a.known(t.Context())
		synctest.Wait()
		begun = time.Now()
		expect("while somebody looks", "10.0.0.2:4040", 5)
		if time.Since(begun) != 0 {
			t.Error("a second caller waits for the lookup of the first")
		}
		time.Sleep(lookupTimeout)
		n.set([]string{"10.0.0.3"}, nil, false)
		a.refresh(t.Context(), lookupEvery, false)
		expect("within the interval", "10.0.0.2:4040", 5)
		time.Sleep(lookupEvery)
		a.refresh(t.Context(), lookupEvery, false)
		expect("after the interval", "10.0.0.3:4040", 6)
	})
}

func TestWhileNothingIsKnownAllWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &names{}
		n.set(nil, errors.New("no such host"), false)
		a := newAddresses([]string{"dns+store:4040"}, n)
		if got := known(t, a); !strings.Contains(got, "look up dns+store:4040: no such host") {
			t.Errorf("without an address the error is %s", got)
		}
		n.set(nil, nil, true)
		a = newAddresses([]string{"dns+store:4040"}, n)
		go a.known(t.Context())
		synctest.Wait()
		waited := make(chan string)
		go func() { waited <- known(t, a) }()
		synctest.Wait()
		select {
		case got := <-waited:
			t.Errorf("before there is an answer it is told %s", got)
		default:
		}
		if got := <-waited; !strings.Contains(got, "deadline") {
			t.Errorf("when the first lookup fails it is told %s", got)
		}
	})
}

func TestCheckAddress(t *testing.T) {
	for _, good := range []string{"store:4040", "10.0.0.1:4040", "[fd00::1]:4040", "dns+store.kiln.svc:4040", "dnssrv+_http._tcp.store", "http://store:4040"} {
		if err := CheckAddress(good); err != nil {
			t.Error(err)
		}
	}
	var passed []string
	for _, bad := range []string{"", "store", ":4040", "store:", "dns+store", "dns+:4040", "dns+http://store:4040", "dnssrv+store:4040", "dnssrv+_http.store", "dns+"} {
		if CheckAddress(bad) == nil {
			passed = append(passed, bad)
		}
	}
	if slices.Sort(passed); len(passed) > 0 {
		t.Errorf("%q are no addresses", passed)
	}
}
