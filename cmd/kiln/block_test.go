package main

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kilndb/kiln/block/inspect"
)

// stored returns the objects in a server's bucket, a local directory, by key.
func stored(t *testing.T, bucket string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(bucket, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		key, err := filepath.Rel(bucket, path)
		if key = filepath.ToSlash(key); strings.HasPrefix(key, "segments/") || strings.HasPrefix(key, "blocks/") {
			files[key] = path
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestBlockCommands looks at what a server has stored: the segments, and the blocks they became.
func TestBlockCommands(t *testing.T) {
	dir, bucket := t.TempDir(), t.TempDir()
	url := "file://" + filepath.ToSlash(bucket)
	p := serve(t, "--data-dir", dir, "--bucket", url, "--compact-after", "200ms", "--delete-after", "1h")
	want := pushCorpusFile(t, p, "compress-cpu-2", "shop").Total + pushCorpusFile(t, p, "api-gateway-cpu-0", "gateway").Total
	waitNoSegments(t, p)
	sums := map[uint32]int64{} // by level
	for key, file := range stored(t, bucket) {
		for _, at := range [][]string{{file}, {key, "--bucket", url}} {
			if out := mustKiln(t, append([]string{"block", "verify"}, at...)...); !strings.Contains(out, "is good") {
				t.Errorf("verify %v: %s", at, out)
			}
			var r inspect.Report
			if err := json.Unmarshal([]byte(mustKiln(t, append([]string{"block", "inspect", "-o", "json"}, at...)...)), &r); err != nil || r.Key != key || len(r.Datasets) == 0 {
				t.Errorf("inspect %v: %+v, error %v", at, r, err)
			}
			for _, d := range r.Datasets {
				sums[r.Level] += d.Kinds[0].Sums[1].Sum // samples, cpu
			}
		}
		checkInspectText(t, key, file)
		if strings.HasPrefix(key, "blocks/") {
			checkDamage(t, file)
		}
	}
	if sums[0] != 2*want || sums[1] != 2*want { // each was asked twice
		t.Errorf("the levels hold %v, want %d", sums, 2*want)
	}
}

func checkInspectText(t *testing.T, key, file string) {
	t.Helper()
	out := mustKiln(t, "block", "inspect", "--sections", file)
	for _, want := range []string{key, "anonymous", "string bytes", "delta_binary_packed", "footer", "SAMPLES", "KiB", "per profile", "stack nodes"} {
		if !strings.Contains(out, want) {
			t.Errorf("%s: no %q in\n%s", key, want, out)
		}
	}
}

// checkDamage exports a block, then damages it and wants every command to say where.
func checkDamage(t *testing.T, file string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tables")
	out := mustKiln(t, "block", "export", file, "--dir", dir)
	for _, name := range []string{"profiles", "samples", "series", "functions", "locations", "mappings"} {
		path := filepath.Join(dir, name+".parquet")
		if info, err := os.Stat(path); err != nil || info.Size() == 0 || !strings.Contains(out, path) {
			t.Errorf("%s: error %v, said\n%s", path, err, out)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b[1000] ^= 0x80 // among the names, which come first
	damaged := filepath.Join(t.TempDir(), "damaged")
	if err := os.WriteFile(damaged, b, 0o600); err != nil {
		t.Fatal(err)
	}
	out, errs, err := kiln(t, "block", "verify", damaged)
	if err == nil || !strings.Contains(out, "SYMBOLS (group 0, section 0, bytes 5 to") || !strings.Contains(errs, "1 problem(s)") {
		t.Errorf("verify of a damaged block: %v, says %q and %q", err, out, errs)
	}
	var problems []inspect.Problem
	if out, _, err = kiln(t, "block", "verify", "-o", "json", damaged); err == nil || json.Unmarshal([]byte(out), &problems) != nil || len(problems) != 1 {
		t.Errorf("as JSON: %v, says %q", err, out)
	}
	if out := mustKiln(t, "block", "inspect", damaged); !strings.Contains(out, "SYMBOLS of group 0 at byte 5: ") {
		t.Errorf("inspect says\n%s", out)
	}
	if _, errs, err := kiln(t, "block", "export", damaged, "--dir", dir); err == nil || !strings.Contains(errs, "SYMBOLS") {
		t.Errorf("export of a damaged block: %v, says %q", err, errs)
	}
}

// TestBlockMistakes gives the block commands what they cannot work with.
func TestBlockMistakes(t *testing.T) {
	bucket := t.TempDir()
	good := filepath.Join("..", "..", "block", "testdata", "v1-segment.kiln")
	b, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bucket, "elsewhere"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte(strings.Repeat("no object at all ", 9000)), 0o600); err != nil {
		t.Fatal(err)
	}
	url := "file://" + filepath.ToSlash(bucket)
	for _, c := range []struct {
		says string
		args []string
	}{
		{"no such file", []string{"inspect", filepath.Join(bucket, "missing")}},
		{"corrupt object", []string{"inspect", text}},
		{"head: begins with", []string{"verify", text}},
		{"segments/3/01HGOLDENSEGMENT", []string{"verify", "elsewhere", "--bucket", url}},
		{"missing", []string{"verify", "missing", "--bucket", url}},
		{"--bucket", []string{"verify", "elsewhere", "--bucket", "tape://"}},
		{"no such dataset", []string{"export", good, "--dir", t.TempDir(), "--service", "nobody"}},
		{"--dir", []string{"export", good}},
	} {
		if out, errs, err := kiln(t, append([]string{"block"}, c.args...)...); err == nil || !strings.Contains(out+errs, c.says) {
			t.Errorf("kiln block %s: %v, says %q and %q, want %q", strings.Join(c.args, " "), err, out, errs, c.says)
		}
	}
}
