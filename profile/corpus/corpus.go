// Package corpus holds real pprof profiles for tests and benchmarks: an HTTP service under load with
// sample labels (api-gateway), the Go compiler on large packages, and benchmarks of standard-library
// packages, all captured with Go 1.26. Only tests import it.
package corpus

import (
	"bytes"
	"compress/gzip"
	"embed"
	"fmt"
	"io"
	"path"
	"strings"
)

//go:embed testdata/*.pb.gz
var files embed.FS

// File is one profile as it was captured.
type File struct {
	// Name without suffix, such as api-gateway-cpu-0.
	Name string
	// Gzipped is the profile as a client sends it.
	Gzipped []byte
}

// All returns every file, sorted by name.
func All() []File {
	entries, err := files.ReadDir("testdata")
	if err != nil {
		panic(err) // embedded: cannot fail
	}
	all := make([]File, len(entries))
	for i, e := range entries {
		b, err := files.ReadFile(path.Join("testdata", e.Name()))
		if err != nil {
			panic(err)
		}
		all[i] = File{Name: strings.TrimSuffix(e.Name(), ".pb.gz"), Gzipped: b}
	}
	return all
}

// Get returns the file of that name and panics if there is none.
func Get(name string) File {
	for _, f := range All() {
		if f.Name == name {
			return f
		}
	}
	panic(fmt.Sprintf("corpus: no file %q", name))
}

// Kind is what a client would put into __name__: process_cpu, memory, mutex, block or goroutine.
func (f File) Kind() string {
	switch parts := strings.Split(f.Name, "-"); parts[len(parts)-2] {
	case "cpu":
		return "process_cpu"
	case "mem", "heap":
		return "memory"
	default:
		return parts[len(parts)-2]
	}
}

// Service is the program that the profile was taken from.
func (f File) Service() string {
	parts := strings.Split(f.Name, "-")
	return strings.Join(parts[:len(parts)-2], "-")
}

// Raw returns the uncompressed profile.
func (f File) Raw() []byte {
	zr, err := gzip.NewReader(bytes.NewReader(f.Gzipped))
	if err != nil {
		panic(err)
	}
	raw, err := io.ReadAll(zr)
	if err != nil {
		panic(err)
	}
	return raw
}
