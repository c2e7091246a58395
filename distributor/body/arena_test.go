package body

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"connectrpc.com/connect"

	"github.com/kilndb/kiln/tenant"
)

// counted is a body that has room for some bytes beside itself.
type counted struct {
	io.Reader
	room int
}

func (*counted) Close() error { return nil }

func (c *counted) Hold(n int) error {
	if c.room -= n; c.room < 0 {
		return connect.NewError(connect.CodeResourceExhausted, errors.New("full"))
	}
	return nil
}

func gzipped(content string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = io.WriteString(w, content)
	_ = w.Close()
	return b.String()
}

// read reads a body with some headers, names and values in turn.
func read(content string, limits tenant.Limits, headers ...string) (string, int, error) {
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(content))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	a := NewArena(r, limits)
	defer a.Release()
	b, size, err := a.Read(httptest.NewRecorder(), r)
	return string(b), size, err
}

func TestCodings(t *testing.T) {
	for _, coding := range []string{"", "identity", "Identity"} {
		if got, size, err := read("hello", tenant.DefaultLimits(), "Content-Encoding", coding); got != "hello" || size != 5 || err != nil {
			t.Errorf("coding %q: %q of %d bytes, %v", coding, got, size, err)
		}
	}
	zipped := gzipped("hello")
	for _, coding := range []string{"gzip", "GZIP", "x-gzip"} {
		if got, size, err := read(zipped, tenant.DefaultLimits(), "Content-Encoding", coding); got != "hello" || size != len(zipped) || err != nil {
			t.Errorf("coding %q: %q of %d bytes, %v", coding, got, size, err)
		}
	}
	for _, coding := range []string{"deflate", "zstd", "gzip, gzip", "snappy"} {
		wantStatus(t, http.StatusUnsupportedMediaType, func() error {
			_, _, err := read("hello", tenant.DefaultLimits(), "Content-Encoding", coding)
			return err
		})
	}
}

func wantStatus(t *testing.T, status int, do func() error) {
	t.Helper()
	err, e := do(), new(Error)
	if !errors.As(err, &e) || e.Status != status {
		t.Errorf("%v, want status %d", err, status)
	}
}

func TestBodiesAreBounded(t *testing.T) {
	limits := tenant.DefaultLimits()
	limits.MaxBody, limits.MaxRequestBytes, limits.MaxRatio = 10_000, 3<<20, 300
	if _, _, err := read(strings.Repeat("x", 10_000), limits); err != nil {
		t.Errorf("as much as may be: %v", err)
	}
	for content, coding := range map[string]string{
		strings.Repeat("x", 10_001):              "",
		gzipped(strings.Repeat("\x00", 3<<20+1)): "gzip", // 10 times 300 are more
	} {
		wantStatus(t, http.StatusRequestEntityTooLarge, func() error { _, _, err := read(content, limits, "Content-Encoding", coding); return err })
	}
	limits.MaxRatio = 100
	wantStatus(t, http.StatusRequestEntityTooLarge, func() error {
		_, _, err := read(gzipped(strings.Repeat("\x00", 2<<20)), limits, "Content-Encoding", "gzip")
		return err
	})
	wantStatus(t, http.StatusBadRequest, func() error {
		_, _, err := read(gzipped("hello")[:20], limits, "Content-Encoding", "gzip")
		return err
	})
	// Whatever a connection says of itself stays here.
	for _, broken := range []error{io.ErrUnexpectedEOF, &net.OpError{Op: "read", Addr: &net.TCPAddr{Port: 4040}, Err: os.ErrDeadlineExceeded}} {
		wantStatus(t, http.StatusRequestTimeout, func() error {
			r := httptest.NewRequest(http.MethodPost, "/", io.MultiReader(strings.NewReader("half"), iotest.ErrReader(broken)))
			_, _, err := NewArena(r, limits).Read(httptest.NewRecorder(), r)
			if strings.Contains(err.Error(), "4040") || !strings.HasPrefix(err.Error(), "read the body: it ") {
				t.Errorf("%v", err)
			}
			return err
		})
	}
}

// What is made of a body is counted while it is made: there is never much more of it than there is room for.
func TestWhatIsMadeIsCounted(t *testing.T) {
	body := &counted{Reader: strings.NewReader(""), room: 1 << 20}
	r := httptest.NewRequest(http.MethodPost, "/", body)
	limits := tenant.DefaultLimits()
	limits.MaxRatio = 2000
	a := NewArena(r, limits)
	if b, err := a.Copy(strings.NewReader(strings.Repeat("x", 600<<10))); len(b) != 600<<10 || err != nil {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	for name, zipped := range map[string]string{
		"honest": gzipped(strings.Repeat("\x00", 32<<20)),
		"a lie":  gzipped(strings.Repeat("\x00", 32<<20)) + gzipped("x"), // the last member says how large it is
	} {
		if b, err := a.Inflate([]byte(zipped)); connect.CodeOf(err) != connect.CodeResourceExhausted || len(b) > 0 {
			t.Errorf("32 MiB, %s, where there is room for less than half a MiB: %v", name, err)
		}
		if most := a.buffers[a.used-1]; cap(most) > 1<<20 {
			t.Errorf("%s: %d bytes were made before that", name, cap(most))
		}
	}
	a.Release()
	if b, err := NewArena(httptest.NewRequest(http.MethodPost, "/", nil), tenant.DefaultLimits()).Inflate([]byte(gzipped("x"))); string(b) != "x" || err != nil {
		t.Errorf("the next request has %q, %v", b, err)
	}
}
