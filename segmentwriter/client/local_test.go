package client_test

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"testing"

	"connectrpc.com/connect"

	segmentwriterv1 "github.com/kilndb/kiln/api/kiln/segmentwriter/v1"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/objstore/objstoretest"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/segmentwriter"
	"github.com/kilndb/kiln/segmentwriter/client"
	. "github.com/kilndb/kiln/segmentwriter/segmentwritertest"
)

// beside returns a client in the process of a writer, which it calls "here". Nobody listens there.
func beside(t *testing.T, w *Writer, addresses ...string) *client.Client {
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return client.New(&http.Client{Transport: transport}, client.Local{Address: "here", Writer: w.Writer}, func(uint32) []string { return addresses }, slog.New(slog.DiscardHandler))
}

// full returns a writer that refuses every profile of shard 3.
func full(t *testing.T) *Writer {
	cfg := Config()
	cfg.MaxSegmentBytes, cfg.Flights = 1, 1
	w := Open(t, cfg)
	w.Bucket.Hold(objstoretest.BeforePut)
	t.Cleanup(w.Bucket.Heal)
	for range 2 { // in flight, and gathered
		p := Decode(Pprof(1, []string{"cpu:nanoseconds"}, Sample{Stack: "a", Values: []int64{1}}))
		if _, err := w.Append(t.Context(), "acme", 3, series, profile.NewID(), p); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func wantRows(t *testing.T, w *Writer, value int64) {
	t.Helper()
	if rows := w.Rows(t); len(rows) != 1 || !slices.Equal(rows[0].Names["a"], []int64{value}) {
		t.Errorf("rows %v, want one of %d", rows, value)
	}
}

func TestTheWriterOfTheProcessIsCalledDirectly(t *testing.T) {
	w, other := Open(t, Config()), &stub{}
	p := Decode(Pprof(1, []string{"cpu:nanoseconds"}, Sample{Stack: "a", Values: []int64{7}}))
	clear(p.Data[:p.Wire]) // the bytes are not looked at
	p.Wire = 1
	if err := push(t, beside(t, w, "here", serve(t, other)), p, profile.NewID()); err != nil {
		t.Fatal(err)
	}
	if other.calls.Load() != 0 {
		t.Error("another writer was called")
	}
	if rows := w.Rows(t); len(rows) != 1 {
		t.Errorf("rows %v", rows)
	}
}

func TestTheWriterOfTheProcessStandsInForOthers(t *testing.T) {
	w, other := Open(t, Config()), &stub{code: connect.CodeResourceExhausted, refused: "full"}
	p := Decode(Pprof(1, []string{"cpu:nanoseconds"}, Sample{Stack: "a", Values: []int64{7}}))
	if err := push(t, beside(t, w, serve(t, other), "here"), p, profile.NewID()); err != nil {
		t.Fatal(err)
	}
	if other.calls.Load() != 1 {
		t.Error("the first candidate was not called")
	}
	wantRows(t, w, 7)
}

func TestOthersStandInForTheWriterOfTheProcess(t *testing.T) {
	stopped := Open(t, Config())
	stopped.Stop()
	for name, w := range map[string]*Writer{"stopping": stopped, "full": full(t)} {
		other := Open(t, Config())
		c := beside(t, w, "here", serve(t, segmentwriter.NewService(other.Writer)))
		p := Decode(Pprof(1, []string{"cpu:nanoseconds"}, Sample{Stack: "a", Values: []int64{7}}))
		if err := push(t, c, p, profile.NewID()); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		wantRows(t, other, 7)
	}
}

// A writer makes differences of counters before it knows whether it has room: what it refuses is given to another as it was, or not.
func TestRefusedCountersAreNotGivenToAnotherAsDifferences(t *testing.T) {
	counting := labels.FromStrings("__delta__", "true", "__name__", "mutex", "service_name", "checkout")
	counter := func(at, value int64) *profile.Profile {
		return Decode(Pprof(at, []string{"contentions:count"}, Sample{Stack: "a", Values: []int64{value}}))
	}
	w, other := full(t), &seeing{}
	c := beside(t, w, "here", serve(t, other))
	for n := range int64(2) { // the first has nothing to be compared with, so that nothing is left of it
		wait, err := c.Append(t.Context(), "acme", 3, counting, profile.NewID(), counter(n+1, 7*n+1))
		if err != nil {
			t.Fatal(err)
		}
		if err := wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if want := counter(2, 8); len(other.got) != 1 || !slices.Equal(other.got[0], want.Data[:want.Wire]) {
		t.Errorf("the other writer got %d profiles, want one of the same bytes", len(other.got))
	}
	bare := counter(3, 15)
	bare.Wire = 0
	c = beside(t, w, "here", serve(t, other)) // which has not failed yet
	if _, err := c.Append(t.Context(), "acme", 3, counting, profile.NewID(), bare); connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Errorf("counters without their bytes end with %v", err)
	}
	if len(other.got) != 1 {
		t.Error("differences were given to another writer")
	}
}

// seeing is a writer that remembers the profiles that it got.
type seeing struct{ got [][]byte }

func (s *seeing) Append(_ context.Context, req *connect.Request[segmentwriterv1.AppendRequest]) (*connect.Response[segmentwriterv1.AppendResponse], error) {
	s.got = append(s.got, slices.Clone(req.Msg.GetProfile()))
	return connect.NewResponse(&segmentwriterv1.AppendResponse{}), nil
}
