package querybackendtest

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	metastorev1 "github.com/kilndb/kiln/api/kiln/metastore/v1"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/block/inspect/inspecttest"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/objstore/memory"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/querybackend"
)

// Pushed is one profile as a client sends it.
type Pushed struct {
	Tenant string
	// Kind is what __name__ says.
	Kind string
	// Labels have a service_name.
	Labels labels.Labels
	ID     profile.ID
	Time   time.Time
	// Body is pprof, gzipped or raw.
	Body []byte
}

// Push makes a Pushed of a file of the corpus.
func Push(tenant, file string, at time.Time, nameValue ...string) Pushed {
	f := corpus.Get(file)
	ls := labels.FromStrings(nameValue...)
	if !ls.Has(labels.ServiceName) {
		ls = ls.With(labels.ServiceName, f.Service())
	}
	return Pushed{Tenant: tenant, Kind: f.Kind(), Labels: ls, ID: profile.NewID(), Time: at, Body: f.Gzipped}
}

// Store is a bucket of objects and the index of them.
type Store struct {
	Bucket *memory.Bucket

	mu      sync.Mutex // guards what follows
	entries []*storagev1.BlockMeta
	found   int
	onFind  func(n int)
}

// New returns an empty Store.
func New() *Store { return &Store{Bucket: memory.New()} }

// Backend returns a query-backend over the bucket.
func (s *Store) Backend() *querybackend.Backend {
	return querybackend.New(querybackend.DefaultConfig(), s.Bucket, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
}

// Segment writes the profiles as one segment, of as many tenants as they have, and returns its entry.
func (s *Store) Segment(t testing.TB, profiles ...Pushed) *storagev1.BlockMeta {
	t.Helper()
	var out bytes.Buffer
	meta := writeSegment(t, &out, profiles)
	s.put(t, meta, out.Bytes())
	return meta
}

// Replace makes objects, whose entries they hold, all there is.
func (s *Store) Replace(t testing.TB, objects ...[]byte) {
	t.Helper()
	s.replace(nil)
	for _, b := range objects {
		meta, err := block.ReadMeta(t.Context(), inspecttest.Object(b))
		if err != nil {
			t.Fatal(err)
		}
		s.put(t, meta, b)
	}
}

func (s *Store) put(t testing.TB, meta *storagev1.BlockMeta, object []byte) {
	t.Helper()
	if err := s.Bucket.Put(t.Context(), block.Key(meta), object); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entries = append(s.entries, meta)
}

// Entries returns all entries.
func (s *Store) Entries() []*storagev1.BlockMeta {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.entries)
}

// replace makes entries the whole index.
func (s *Store) replace(entries []*storagev1.BlockMeta) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entries = entries
}

// Exclude deletes series: every dataset of a tenant carries the selector until it has been merged.
func (s *Store) Exclude(tenant, selector string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, e := range s.entries {
		e = proto.CloneOf(e)
		for _, d := range e.Datasets {
			if e.Strings[d.Tenant] == tenant {
				d.Excluded = append(d.Excluded, uint32(len(e.Strings)))
			}
		}
		e.Strings = append(e.Strings, selector)
		s.entries[i] = e
	}
}

// Forget takes an entry out of the index; the object stays.
func (s *Store) Forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entries = slices.DeleteFunc(slices.Clone(s.entries), func(e *storagev1.BlockMeta) bool { return e.Id == id })
}

// OnFind has fn called after each Find with how many there have been, that included.
func (s *Store) OnFind(fn func(n int)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onFind = fn
}

// Found returns how often Find was called.
func (s *Store) Found() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.found
}

// Find answers with every entry, whatever was asked: an index may let pass what it cannot decide.
func (s *Store) Find(context.Context, *connect.Request[metastorev1.FindRequest]) (*connect.Response[metastorev1.FindResponse], error) {
	s.mu.Lock()
	s.found++
	n, fn, entries := s.found, s.onFind, slices.Clone(s.entries)
	s.mu.Unlock()
	if fn != nil {
		fn(n)
	}
	return connect.NewResponse(&metastorev1.FindResponse{Entries: entries}), nil
}

// AddSegments adds entries whose objects are in the bucket.
func (s *Store) AddSegments(_ context.Context, req *connect.Request[metastorev1.AddSegmentsRequest]) (*connect.Response[metastorev1.AddSegmentsResponse], error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entries = append(s.entries, req.Msg.Segments...)
	return connect.NewResponse(&metastorev1.AddSegmentsResponse{}), nil
}
