package process

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// server is a running kiln server.
type server struct {
	url string
	dir string
	cmd *exec.Cmd
	log bytes.Buffer // complete when the process has ended
}

// start builds kiln, once, and starts a server on an empty directory. It is stopped when the benchmark ends.
func start(b *testing.B, args ...string) *server {
	b.Helper()
	s := &server{dir: b.TempDir()}
	s.cmd = exec.Command(binary(b), append([]string{"server", "--http", "127.0.0.1:0", "--no-self-profile", "--data-dir", filepath.Join(s.dir, "data")}, args...)...)
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	url, ended := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			s.log.WriteString(lines.Text() + "\n")
			if _, after, ok := strings.Cut(lines.Text(), "kiln is at "); ok {
				url <- strings.TrimSpace(after)
			}
		}
	}()
	b.Cleanup(func() {
		_ = s.cmd.Process.Signal(syscall.SIGTERM)
		<-ended
		if err := s.cmd.Wait(); err != nil {
			b.Errorf("the server ended with %v:\n%s", err, s.log.String())
		}
	})
	select {
	case s.url = <-url:
	case <-ended:
		b.Fatalf("the server ended:\n%s", s.log.String())
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if resp, err := http.Get(s.url + "/ready"); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return s
			}
		}
		if time.Now().After(deadline) {
			b.Fatal("the server does not become ready")
		}
	}
}

var built string

func binary(b *testing.B) string {
	b.Helper()
	if built == "" {
		path := filepath.Join(os.TempDir(), fmt.Sprintf("kiln-bench-%d", os.Getpid()))
		if out, err := exec.Command("go", "build", "-trimpath", "-o", path, "github.com/kilndb/kiln/cmd/kiln").CombinedOutput(); err != nil {
			b.Fatalf("build kiln: %v\n%s", err, out)
		}
		built = path
	}
	return built
}

// TestMain removes the binary that benchmarks have built.
func TestMain(m *testing.M) {
	if os.Getenv(bePaced) != "" {
		paced()
		return
	}
	code := m.Run()
	if built != "" {
		_ = os.Remove(built)
	}
	os.Exit(code)
}

var profileTo = flag.String("profile", "", "directory for profiles of the server under each load")

// profile takes a CPU profile of the server for that long and then one of its allocations, if they are asked for. It returns at once;
// the files are complete when the benchmark ends.
func (s *server) profile(b *testing.B, span time.Duration) {
	b.Helper()
	if *profileTo == "" {
		return
	}
	done := make(chan struct{})
	b.Cleanup(func() { <-done })
	go func() {
		defer close(done)
		for _, p := range []struct{ name, query string }{{"cpu", fmt.Sprintf("profile?seconds=%d", int(span.Seconds()))}, {"allocs", "allocs"}} {
			if err := s.save("/debug/pprof/"+p.query, filepath.Join(*profileTo, b.Name()+"."+p.name+".pprof")); err != nil {
				b.Error(err)
			}
		}
	}()
}

// save writes what a GET answers to a file.
func (s *server) save(path, file string) error {
	resp, err := http.Get(s.url + path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, resp.Body)
	return errors.Join(err, f.Close())
}

// cpu returns the CPU time that the server has taken.
func (s *server) cpu(b *testing.B) time.Duration {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	// After the name, which ends with the last parenthesis: utime and stime are the 12th and 13th field, in ticks
	// of a hundredth of a second on every Linux.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	ticks := 0
	for _, f := range fields[11:13] {
		n, err := strconv.Atoi(f)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// peak returns the most memory that the server has been resident with, in bytes.
func (s *server) peak(b *testing.B) float64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	kib, err := strconv.Atoi(strings.Fields(after)[0])
	if err != nil {
		b.Fatal(err)
	}
	return float64(kib) * 1024
}

// metric returns the sum of a metric's values.
func (s *server) metric(b *testing.B, name string) (sum float64) {
	b.Helper()
	resp, err := http.Get(s.url + "/metrics")
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		line := lines.Text()
		if rest, ok := strings.CutPrefix(line, name); ok && (rest[0] == ' ' || rest[0] == '{') {
			v, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
			if err != nil {
				b.Fatal(err)
			}
			sum += v
		}
	}
	return sum
}
