package node_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/kilndb/kiln/node"
	"github.com/kilndb/kiln/node/nodetest"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/oracle"
	"github.com/kilndb/kiln/segmentwriter/segmentwritertest"
	"github.com/kilndb/kiln/tenant"
)

// TestEachServiceIsKeptAsLongAsTheFileSays pushes to two tenants and lets time pass: what is too old is refused at the door, and
// what has become too old leaves the answers, service by service.
func TestEachServiceIsKeptAsLongAsTheFileSays(t *testing.T) {
	file := filepath.Join(t.TempDir(), "limits.yaml")
	if err := os.WriteFile(file, []byte(`
defaults: {retention: 3h}
tenants:
  acme: {retention: 1h}
service_retention:
  acme: {audit: 0, checkout: 30m}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	segmentwritertest.Bubble(t, func(t *testing.T) {
		n := nodetest.New(t).Whole(func(cfg *node.Config) { cfg.LimitsFile, cfg.MultiTenant = file, true })
		begun := time.Now().Truncate(time.Millisecond)
		base := oracle.Parse(corpus.Get("compress-mutex-1").Gzipped)
		at := func(age time.Duration) []byte { _, body := scaled(base, 1, begun.Add(-age)); return body }
		for _, service := range []string{"audit", "checkout", "web"} {
			for _, id := range []tenant.ID{"acme", "other"} {
				if err := push(n, id, series("mutex", service, at(time.Minute))); err != nil {
					t.Fatal(err)
				}
			}
		}
		for service, refused := range map[string]bool{"audit": false, "checkout": true, "web": true} {
			err := push(n, "acme", series("mutex", service, at(2*time.Hour)))
			if refused != (connect.CodeOf(err) == connect.CodeInvalidArgument && strings.Contains(err.Error(), "retention")) {
				t.Errorf("%s of two hours ago: %v", service, err)
			}
		}
		kept := func(id tenant.ID) (services []string) {
			for _, service := range []string{"audit", "checkout", "web"} {
				asked := scope{tenant: id, selector: `{service_name="` + service + `"}`, start: begun.Add(-24 * time.Hour).UnixMilli(), end: begun.UnixMilli()}
				if flameTotal(t, n, asked, "mutex:delay:nanoseconds:contentions:count") > 0 {
					services = append(services, service)
				}
			}
			return services
		}
		for _, want := range []struct {
			after       time.Duration
			acme, other string
		}{
			{0, "audit checkout web", "audit checkout web"},
			{45 * time.Minute, "audit web", "audit checkout web"},
			{2 * time.Hour, "audit", "audit checkout web"},
			{4 * time.Hour, "audit", ""},
		} {
			time.Sleep(time.Until(begun.Add(want.after)))
			if acme, other := strings.Join(kept("acme"), " "), strings.Join(kept("other"), " "); acme != want.acme || other != want.other {
				t.Errorf("after %s acme has %q and other %q, want %q and %q", want.after, acme, other, want.acme, want.other)
			}
		}
	})
	for text, want := range map[string]string{
		"service_retention: {acme: {web: soon}}": `acme.web: "soon" is not a time`,
		"service_retention: {acme: {web: -1h}}":  `acme.web: "-1h" is not a time`,
		"service_retention: {..: {web: 1h}}":     "tenant",
		"service_retention: [web]":               "want tenants with services with times",
	} {
		if err := node.CheckLimitsFile([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}
