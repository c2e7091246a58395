package node_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kilndb/kiln/node"
	"github.com/kilndb/kiln/node/nodetest"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/oracle"
)

// TestRulesOfTheLimitsFile has a node drop and rename by the rules in its file.
func TestRulesOfTheLimitsFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "limits.yaml")
	rules := `
relabel:
  defaults:
    series:
      - {source_labels: [namespace], regex: "test-.*", action: drop}
      - {source_labels: [pod], target_label: instance}
`
	if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	n := nodetest.New(t).Whole(func(cfg *node.Config) { cfg.LimitsFile = file })
	at := time.Now().Add(-time.Minute).Truncate(time.Millisecond)
	kept, body := scaled(oracle.Parse(corpus.Get("compress-mutex-1").Gzipped), 1, at)
	if err := push(n, "", series("mutex", "relabelled", body, "namespace", "prod", "pod", "p1")); err != nil {
		t.Fatal(err)
	}
	if err := push(n, "", series("mutex", "relabelled", body, "namespace", "test-7", "pod", "p2")); err != nil {
		t.Fatal(err)
	}
	expect(around(`{service_name="relabelled"}`, kept), "mutex", kept).verify(t, n)
	expect(around(`{service_name="relabelled",instance="p1"}`, kept), "mutex", kept).verify(t, n)
	if err := node.CheckLimitsFile([]byte(rules)); err != nil {
		t.Error(err)
	}
	if err := node.CheckLimitsFile([]byte(strings.Replace(rules, "action: drop", "action: fly", 1))); err == nil || !strings.Contains(err.Error(), "fly") {
		t.Errorf("an action that there is not: %v", err)
	}
}
