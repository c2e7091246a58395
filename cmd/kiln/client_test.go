package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/grafana/pyroscope-go"

	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/oracle"
)

// TestCommands tries every client command on one server.
func TestCommands(t *testing.T) {
	p := serve(t, "--data-dir", t.TempDir())
	want := pushCorpusFile(t, p, "compress-cpu-2", "shop")
	common := []string{"--server", p.url, "--service", "shop", "--from", "3000d"}
	with := func(args ...string) []string { return append(args, common...) }
	heaviest := ""
	for name, w := range want.Functions {
		if heaviest == "" || w.Self > want.Functions[heaviest].Self || w.Self == want.Functions[heaviest].Self && name < heaviest {
			heaviest = name
		}
	}
	says := func(out string, words ...string) {
		t.Helper()
		for _, w := range words {
			if !strings.Contains(out, w) {
				t.Errorf("no %q in\n%s", w, out)
			}
		}
	}
	says(mustKiln(t, with("query", "top")...), heaviest, "process_cpu:cpu:nanoseconds")
	says(mustKiln(t, with("query", "flamegraph")...), "total", "100.0%", "█")
	says(mustKiln(t, with("query", "flamegraph", "-o", "json")...), `"levels"`)
	says(mustKiln(t, with("query", "series", "--group-by", "source")...), `{source="file"}`)
	says(mustKiln(t, with("query", "labels")...), "service_name", "source")
	says(mustKiln(t, with("query", "labels", "source")...), "file")
	says(mustKiln(t, "jobs", "--server", p.url), "LEVEL", "OBJECTS")
	says(mustKiln(t, "version"), "kiln")

	file := filepath.Join(t.TempDir(), "back.pb.gz")
	says(mustKiln(t, with("query", "pprof", "-f", file)...), file)
	out, err := exec.Command("go", "tool", "pprof", "-top", "-nodecount=5", file).CombinedOutput()
	if err != nil {
		t.Fatalf("go tool pprof: %v\n%s", err, out)
	}
	says(string(out), heaviest)
	body, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if back := oracle.Sum("cpu", oracle.Parse(body)); back.Total != want.Total || len(back.Locations) != len(want.Locations) {
		t.Errorf("the file holds %d in %d stacks, want %d in %d", back.Total, len(back.Locations), want.Total, len(want.Locations))
	}

	again := filepath.Join(t.TempDir(), "cpu.pprof")
	if err := os.WriteFile(again, corpus.Get("compress-cpu-2").Raw(), 0o600); err != nil {
		t.Fatal(err)
	}
	says(mustKiln(t, "push", again, "--server", p.url, "--service", "today", "--at", "5m"), "process_cpu, captured "+time.Now().Format("2006"))
	says(mustKiln(t, "query", "top", "--server", p.url, "--service", "today", "--from", "6m", "--to", "4m"), heaviest)

	for _, c := range []struct {
		says string
		args []string
	}{
		{"--roles", []string{"server", "--roles", "cook"}},
		{"{a=", []string{"query", "labels", "--server", p.url, "--selector", "{a="}},
		{"--from", []string{"query", "top", "--server", p.url, "--from", "whenever"}},
		{"no profiles there", []string{"query", "top", "--server", p.url, "--service", "nobody"}},
		{"connection refused", []string{"query", "labels", "--server", "http://127.0.0.1:1"}},
	} {
		if _, errs, err := kiln(t, c.args...); err == nil || !strings.Contains(errs, c.says) {
			t.Errorf("kiln %s: %v, says %q, want %q", strings.Join(c.args, " "), err, errs, c.says)
		}
	}
}

// TestPyroscopeSDK lets the SDK of Pyroscope profile this test and push to kiln.
func TestPyroscopeSDK(t *testing.T) {
	p := serve(t, "--data-dir", t.TempDir())
	profiler, err := pyroscope.Start(pyroscope.Config{
		ApplicationName: "sdk", ServerAddress: p.url, Tags: map[string]string{"region": "eu"}, UploadRate: time.Second,
		ProfileTypes: []pyroscope.ProfileType{pyroscope.ProfileCPU, pyroscope.ProfileAllocObjects, pyroscope.ProfileAllocSpace, pyroscope.ProfileInuseObjects, pyroscope.ProfileInuseSpace, pyroscope.ProfileGoroutines},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for kinds := ""; !strings.Contains(kinds, "process_cpu") || !strings.Contains(kinds, "memory") || !strings.Contains(kinds, "goroutine"); {
		if ctx.Err() != nil {
			t.Fatalf("after 30 s there are only %q", kinds)
		}
		burn(200 * time.Millisecond)
		kinds = mustKiln(t, "query", "labels", "__name__", "--server", p.url, "--selector", `{service_name="sdk",region="eu"}`)
	}
	if err := profiler.Stop(); err != nil {
		t.Fatal(err)
	}
	if out := mustKiln(t, "query", "top", "--server", p.url, "--service", "sdk", "--total"); !strings.Contains(out, "kiln.burn") {
		t.Errorf("the function that burns CPU is not in\n%s", out)
	}
}

// burn keeps a core busy.
func burn(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		bytes.Repeat([]byte("kiln"), 1000)
	}
}

// TestSelfProfile wants real functions ten seconds after the start.
func TestSelfProfile(t *testing.T) {
	p := serve(t, "--data-dir", t.TempDir(), "--self-profile", "--self-profile-interval", "1s")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, errs, err := "", "", error(nil)
	for !strings.Contains(out, "runtime.") && ctx.Err() == nil {
		out, errs, err = kiln(t, "query", "top", "--server", p.url)
	}
	if !strings.Contains(out, "runtime.") {
		t.Errorf("after ten seconds `kiln query top` says %v\n%s%s", err, out, errs)
	}
}
