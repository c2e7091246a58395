package overrides_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/kilndb/kiln/node/overrides"
	"github.com/kilndb/kiln/tenant"
)

// TestThePageSaysTheDefaults reads the table of docs/operations/limits.md as if it were a file of limits.
func TestThePageSaysTheDefaults(t *testing.T) {
	page, err := os.ReadFile("../../docs/operations/limits.md")
	if err != nil {
		t.Fatal(err)
	}
	file := "defaults:\n"
	for line := range strings.Lines(string(page)) {
		if cells := strings.Split(line, "|"); len(cells) > 3 && strings.HasPrefix(cells[1], " `") {
			file += fmt.Sprintf("  %s: %s\n", strings.Trim(cells[1], " `"), strings.TrimSpace(cells[2]))
		}
	}
	set, err := overrides.Parse([]byte(file), tenant.Limits{}) // nothing but what the page says
	if err != nil {
		t.Fatal(err)
	}
	if got, want := set.Limits("acme"), tenant.DefaultLimits(); got != want {
		t.Errorf("the page says %+v, the defaults are %+v", got, want)
	}
}
