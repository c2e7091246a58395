package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test binary be kiln: a test starts real processes by running itself.
func TestMain(m *testing.M) {
	if os.Getenv("KILN_TEST_BE_KILN") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// process is a running kiln server.
type process struct {
	t   *testing.T
	cmd *exec.Cmd
	url string
	// log is everything the process said; guarded by mu until the process has ended.
	mu    sync.Mutex
	log   strings.Builder
	ended chan struct{}
}

// kiln runs a client command to its end and returns what it printed.
func kiln(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "KILN_TEST_BE_KILN=1")
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// mustKiln is kiln for a command that has to succeed.
func mustKiln(t *testing.T, args ...string) string {
	t.Helper()
	out, errs, err := kiln(t, args...)
	if err != nil {
		t.Fatalf("kiln %s: %v\n%s", strings.Join(args, " "), err, errs)
	}
	return out
}

// serve starts a server on a free port of the loopback and waits until it is ready.
func serve(t *testing.T, args ...string) *process {
	t.Helper()
	p := launch(t, append([]string{"--http", "127.0.0.1:0"}, args...)...)
	p.waitReady()
	return p
}

// launch starts a server and waits until it listens.
func launch(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{t: t, ended: make(chan struct{})}
	p.cmd = exec.Command(os.Args[0], append([]string{"server", "--no-self-profile"}, args...)...)
	p.cmd.Env = append(os.Environ(), "KILN_TEST_BE_KILN=1")
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	url := make(chan string, 1)
	go p.read(stderr, url)
	select {
	case p.url = <-url:
	case <-p.ended:
		t.Fatalf("the server ended:\n%s", p.output())
	case <-time.After(30 * time.Second):
		t.Fatalf("the server does not say where it is:\n%s", p.output())
	}
	return p
}

// read keeps what the process says and finds its URL in it.
func (p *process) read(stderr io.Reader, url chan<- string) {
	defer close(p.ended)
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		p.mu.Lock()
		p.log.WriteString(lines.Text() + "\n")
		p.mu.Unlock()
		if _, after, ok := strings.Cut(lines.Text(), "kiln is at "); ok {
			url <- strings.TrimSpace(after)
		}
	}
	_ = p.cmd.Wait()
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

func (p *process) waitReady() {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+"/ready", nil)
		if err != nil {
			p.t.Fatal(err)
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-p.ended:
			p.t.Fatalf("the server ended:\n%s", p.output())
		case <-time.After(10 * time.Millisecond):
		}
	}
	p.t.Fatalf("the server is not ready:\n%s", p.output())
}

// kill ends the process as a crash would.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended already
	<-p.ended
}

// stop ends the process gracefully; the test fails if it takes longer than half a minute.
func (p *process) stop() {
	p.t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	select {
	case <-p.ended:
	case <-time.After(30 * time.Second):
		p.kill()
		p.t.Errorf("the server did not stop within 30 s:\n%s", p.output())
	}
	if p.t.Failed() {
		p.t.Logf("server %s said:\n%s", p.url, p.output())
	}
}

// host is the process's address without the scheme.
func (p *process) host() string { return strings.TrimPrefix(p.url, "http://") }
