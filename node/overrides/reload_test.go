package overrides

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kilndb/kiln/tenant"
)

// Half of a file may be good: what is found once may be on its way.
func TestAFileThatIsBeingWrittenIsNotTaken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "limits.yaml")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const whole = "defaults: {rate: 1}"
	write(whole)
	o, err := Open(Config{Path: path, Base: tenant.DefaultLimits()}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		text    string
		changed bool
		rate    int
	}{
		{whole, false, 1}, {"", false, 1}, {whole, false, 1}, {"", false, 1}, {"# half", false, 1}, {whole, false, 1}, {whole, false, 1},
		{"defaults: {rate: 2}", false, 1}, {"defaults: {rate: 2}", true, 2}, {"defaults: {rate: 2}", false, 2},
	} {
		write(step.text)
		changed, err := o.reload(false)
		if got := o.Limits("acme").Rate; changed != step.changed || got != step.rate || err != nil {
			t.Errorf("%q: changed %v, rate %d, %v", step.text, changed, got, err)
		}
	}
}
