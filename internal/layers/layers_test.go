// Package layers tests the drawing of the house: which folder may import which. A new folder is a new
// word in the drawing.
package layers

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/kilndb/kiln/"

// house is the drawing of ARCHITECTURE.md, roof first. Imports point down; rooms of one floor do not know
// each other.
var house = []string{
	"cmd benchmarks",
	"node",
	"distributor segmentwriter metastore compactionworker querybackend queryfrontend",
	"objstore",
	"block query",
	"flamegraph",
	"profile",
	"labels tenant",
	"api internal web",
}

// testing rooms are there for tests alone, of any floor.
var testRooms = []string{
	"profile/corpus", "profile/oracle", "block/inspect/inspecttest", "objstore/objstoretest", "metastore/metastoretest",
	"segmentwriter/segmentwritertest", "querybackend/querybackendtest", "node/nodetest", "benchmarks/workload", "distributor/otlp/otlptest",
}

// keptIn says which libraries stay in which rooms.
var keptIn = map[string][]string{
	"github.com/hashicorp/raft":        {"metastore/raftnode", "metastore/fsm"},
	"github.com/hashicorp/raft-boltdb": {"metastore/raftnode"},
	"go.etcd.io/bbolt":                 {"metastore/fsm", "metastore/index", "metastore/compaction"},
	"gocloud.dev":                      {"objstore/cloud"},
	"github.com/aws":                   {"objstore/cloud"},
	"github.com/parquet-go/parquet-go": {"block"},
	"github.com/google/pprof":          {"profile/oracle"},
	"github.com/grafana/jfr-parser":    {}, // tests alone: what it allocates is up to its input
	"go.opentelemetry.io/collector":    {"distributor/otlp"},
	module + "metastore/client":        {"node"},
	module + "segmentwriter/client":    {"node"},
	module + "querybackend/client":     {"node"},
}

// TestImportsPointDown reads the imports of every Go file.
func TestImportsPointDown(t *testing.T) {
	files := 0
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := d.Name(); d.IsDir() && (name == "node_modules" || name == "tools" || name == "testdata" || strings.HasPrefix(name, ".") && name != "..") && path != "../.." {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		files++
		checkFile(t, strings.TrimPrefix(filepath.ToSlash(path), "../../"), path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 50 {
		t.Fatalf("walked %d files: is this the root of the project?", files)
	}
}

func checkFile(t *testing.T, name, path string) {
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	dir := filepath.ToSlash(filepath.Dir(name))
	isTest := strings.HasSuffix(name, "_test.go") || within(dir, testRooms)
	for _, spec := range f.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !isTest {
			for library, rooms := range keptIn {
				if (imported == library || strings.HasPrefix(imported, library+"/")) && !within(dir, rooms) && !strings.HasPrefix(module+dir, library) {
					t.Errorf("%s imports %s, which is kept in %v", name, imported, rooms)
				}
			}
		}
		if strings.HasPrefix(imported, module) {
			checkFloor(t, name, dir, strings.TrimPrefix(imported, module), isTest)
		} else if room(dir) == "internal" && !isTest && strings.Contains(strings.Split(imported, "/")[0], ".") {
			t.Errorf("%s imports %s: internal uses the standard library alone", name, imported)
		}
	}
}

func checkFloor(t *testing.T, name, dir, imported string, isTest bool) {
	if within(imported, testRooms) {
		if !isTest {
			t.Errorf("%s imports %s, which is for tests", name, imported)
		}
		return
	}
	if room(dir) == room(imported) {
		return
	}
	from, to := floor(dir), floor(imported)
	switch {
	case from < 0:
		t.Errorf("%s: the drawing has no room %q", name, room(dir))
	case to < 0:
		t.Errorf("%s imports %s: the drawing has no such room", name, imported)
	case to <= from:
		t.Errorf("%s imports %s: imports point down", name, imported)
	}
}

// room is the first element of a folder's path.
func room(dir string) string { return strings.SplitN(dir, "/", 2)[0] }

// floor counts from the roof; -1 if the drawing has no such room.
func floor(dir string) int {
	return slices.IndexFunc(house, func(line string) bool { return slices.Contains(strings.Fields(line), room(dir)) })
}

func within(dir string, rooms []string) bool {
	return slices.ContainsFunc(rooms, func(r string) bool { return dir == r || strings.HasPrefix(dir, r+"/") })
}
