package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// rateOf asks a server for the rate of a tenant.
func rateOf(t *testing.T, p *process, tenant string) int {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, p.url+"/api/v1/tenant_limits", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Scope-OrgID", tenant)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var limits struct{ Rate int }
	if err := json.NewDecoder(resp.Body).Decode(&limits); err != nil {
		t.Fatalf("%s: %v", resp.Status, err)
	}
	return limits.Rate
}

// TestLimitsFile starts a server with limits per tenant, and changes them while it runs.
func TestLimitsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "limits.yaml")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("defaults:\n  rate: 1MB\ntenants:\n  acme:\n    rate: 2MB\n")
	if out := mustKiln(t, "config", "check", "--limits-file", path); !strings.Contains(out, "is good") {
		t.Errorf("config check says %q", out)
	}
	p := serve(t, "--data-dir", t.TempDir(), "--multi-tenant", "--limits-file", path)
	if acme, other := rateOf(t, p, "acme"), rateOf(t, p, "other"); acme != 2e6 || other != 1e6 {
		t.Errorf("rates %d and %d", acme, other)
	}
	write("tenants:\n  acme:\n    rate: 3MB\n")
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(9 * time.Second); rateOf(t, p, "acme") != 3e6; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("SIGHUP was not heard")
		}
	}
	write("tenants:\n  acme:\n    rat: 4MB\n")
	const wrong = "line 3: tenants.acme.rat: there is no such limit"
	if _, errs, err := kiln(t, "config", "check", "--limits-file", path); err == nil || !strings.Contains(errs, wrong) {
		t.Errorf("config check of a bad file says %q", errs)
	}
	if _, errs, err := kiln(t, "server", "--limits-file", path, "--data-dir", t.TempDir()); err == nil || !strings.Contains(errs, wrong) {
		t.Errorf("a server with a bad file says %q", errs)
	}
}
