package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/oracle"
)

// TestSixProcesses runs each role in a process of its own.
func TestSixProcesses(t *testing.T) {
	bucket := "file://" + t.TempDir()
	store := serve(t, "--roles", "metastore", "--data-dir", t.TempDir(), "--bucket", bucket, "--compact-after", "100ms", "--delete-after", "2s")
	var dirs []string
	role := func(name string) *process {
		dirs = append(dirs, t.TempDir())
		return serve(t, "--roles", name, "--metastore", store.host(), "--bucket", bucket, "--data-dir", dirs[len(dirs)-1])
	}
	role("segmentwriter")
	door := role("distributor")
	role("compactionworker")
	role("querybackend")
	front := role("queryfrontend")

	want := pushCorpusFile(t, door, "compress-cpu-1", "pieces")
	top := queryTop(t, front, "pieces")
	if top.Total != want.Total {
		t.Errorf("total %d, want %d", top.Total, want.Total)
	}
	waitNoSegments(t, front)
	if top = queryTop(t, front, "pieces"); top.Total != want.Total {
		t.Errorf("total %d after compaction, want %d", top.Total, want.Total)
	}
	for _, f := range top.Functions {
		if w := want.Functions[f.Name]; w.Self != f.Self || w.Total != f.Total {
			t.Errorf("%s weighs %d, %d, want %+v", f.Name, f.Self, f.Total, w)
		}
	}
	gone := func(service string) {
		t.Helper()
		out, stderr, err := kiln(t, "query", "top", "--server", front.url, "--service", service, "--from", "3000d")
		if err == nil || !strings.Contains(stderr, "no profiles there") {
			t.Errorf("%s after it was deleted: %v, %s%s", service, err, out, stderr)
		}
	}
	pushCorpusFile(t, door, "compress-cpu-1", "other")
	out := mustKiln(t, "delete", "series", "--selector", `{source="file"}`, "--service", "other", "--server", front.url, "--wait")
	if !strings.Contains(out, "finished") || !strings.Contains(out, `{source="file"}`) {
		t.Errorf("kiln delete says\n%s", out)
	}
	gone("other")
	if top = queryTop(t, front, "pieces"); top.Total != want.Total {
		t.Errorf("total %d after series of another service were deleted, want %d", top.Total, want.Total)
	}
	if out := mustKiln(t, "delete", "service", "pieces", "--server", front.url, "--wait"); !strings.Contains(out, "finished") {
		t.Errorf("kiln delete says\n%s", out)
	}
	gone("pieces")
	if out := mustKiln(t, "delete", "list", "--server", front.url); !strings.Contains(out, "pieces") || !strings.Contains(out, `{source="file"}`) {
		t.Errorf("kiln delete list says\n%s", out)
	}
	for _, dir := range dirs { // whoever is not the metastore keeps nothing
		if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
			t.Errorf("%v, %v", entries, err)
		}
	}
}

// pushCorpusFile pushes a file by `kiln push` and returns what it must weigh in CPU time.
func pushCorpusFile(t *testing.T, p *process, name, service string) oracle.Answer {
	t.Helper()
	file := filepath.Join(t.TempDir(), name+".pb.gz")
	if err := os.WriteFile(file, corpus.Get(name).Gzipped, 0o600); err != nil {
		t.Fatal(err)
	}
	out := mustKiln(t, "push", file, "--server", p.url, "--service", service, "--label", "source=file")
	if !strings.Contains(out, "stored 1 profile") {
		t.Fatalf("kiln push says %q", out)
	}
	return oracle.Sum("cpu", oracle.Parse(corpus.Get(name).Gzipped))
}

func queryTop(t *testing.T, p *process, service string) functionTable {
	t.Helper()
	var table functionTable
	out := mustKiln(t, "query", "top", "--server", p.url, "--service", service, "--from", "3000d", "-n", "100000", "-o", "json")
	if err := json.Unmarshal([]byte(out), &table); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return table
}
