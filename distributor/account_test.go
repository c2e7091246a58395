package distributor

import (
	"strconv"
	"testing"
	"time"

	"github.com/kilndb/kiln/tenant"
)

// Whoever may choose tenant ids fills the memory up to its bound and no further, and it is free again later.
func TestAccountsAreBounded(t *testing.T) {
	now := time.Unix(1e9, 0)
	a := newAccounts(func() time.Time { return now })
	tenants := 0
	for ; ; tenants++ {
		acc, ok := a.get(tenant.ID(strconv.Itoa(tenants)))
		if !ok {
			break
		}
		if _, ok := acc.series.use(now, []uint64{1, 2, 3, 4}, 100); !ok {
			t.Fatalf("tenant %d has no room for a series", tenants)
		}
		acc.rate.admit(now, 1, 1)
		acc.rate.take(now, 60)
	}
	if want := maxRemembered / (accountCost + 4); tenants != want {
		t.Errorf("room for %d tenants, want %d", tenants, want)
	}
	if _, ok := a.get("0"); !ok {
		t.Error("tenants that are there go on")
	}
	acc, _ := a.get("1")
	many := make([]uint64, maxRemembered/2)
	for i := range many {
		many[i] = uint64(i)
	}
	if _, ok := acc.series.use(now, many, len(many)); ok {
		t.Error("one tenant may have the memory of all")
	}
	now = now.Add(generation)
	if _, ok := a.get("2"); !ok {
		t.Error("tenants that are there go on")
	}
	now = now.Add(generation)
	if _, ok := a.get("new"); !ok || len(a.of) > 2 || a.remembered.Load() > 3*accountCost {
		t.Errorf("%d tenants and %d series are left after 10 minutes", len(a.of), a.remembered.Load())
	}
}

// A tenant that owes is not forgotten.
func TestDebtIsRemembered(t *testing.T) {
	now := time.Unix(1e9, 0)
	a := newAccounts(func() time.Time { return now })
	acc, _ := a.get("debtor")
	acc.rate.admit(now, 1, 1)
	acc.rate.take(now, 3600)
	now = now.Add(30 * time.Minute)
	a.get("another")
	if _, ok := a.of["debtor"]; !ok {
		t.Error("the debtor is forgotten")
	}
	now = now.Add(time.Hour)
	a.get("another")
	if _, ok := a.of["debtor"]; ok {
		t.Error("a tenant that owes nothing is kept")
	}
}
