package compactionworker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"

	compactionv1 "github.com/kilndb/kiln/api/kiln/compaction/v1"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
	"github.com/kilndb/kiln/block"
)

// discardTimeout bounds the removal of what a failed attempt has uploaded.
const discardTimeout = 10 * time.Second

// merge is one attempt at a job.
type merge struct {
	worker  *Worker
	job     *compactionv1.Assignment
	outputs []*storagev1.BlockMeta // uploaded
	// budget is the memory that the merge of a tenant may take: what small sources do not.
	budget int64
}

// run reads the sources and uploads the outputs, one per tenant of whom anything is left.
func (m *merge) run(ctx context.Context) (err error) {
	defer m.worker.recovered(m.worker.log.With("job", m.job.GetJob()), &err)
	sources, err := m.open()
	if err != nil {
		return err
	}
	tenants := block.Tenants(sources...)
	if m.job.GetLevel() > 0 && !slices.Equal(tenants, []string{m.job.GetTenant()}) {
		return fmt.Errorf("sources are of the tenants %q, the job is of %q", tenants, m.job.GetTenant())
	}
	for _, tenant := range tenants {
		output, err := m.tenant(ctx, tenant, sources)
		if err != nil {
			return err
		}
		if output != nil {
			m.outputs = append(m.outputs, output)
		}
	}
	return nil
}

// open opens the sources. It reads nothing yet.
func (m *merge) open() ([]*block.Reader, error) {
	if len(m.job.GetSources()) == 0 {
		return nil, errors.New("job has no sources")
	}
	m.budget = m.worker.cfg.Memory - m.worker.cfg.MemoryBuffer
	room := m.budget / smallShare
	var sources []*block.Reader
	for _, meta := range m.job.GetSources() {
		src, held := m.worker.source(meta, room)
		room, m.budget = room-held, m.budget-held
		r, err := block.Open(src, meta)
		if err != nil {
			return nil, fmt.Errorf("source %s: %w", meta.GetId(), err)
		}
		sources = append(sources, r)
	}
	return sources, nil
}

// tenant merges one tenant's datasets into a block and uploads it; nil if all of them are of deleted series. Its id is new,
// so that no attempt ever touches an object of another.
func (m *merge) tenant(ctx context.Context, tenant string, all []*block.Reader) (*storagev1.BlockMeta, error) {
	sources := slices.DeleteFunc(slices.Clone(all), func(r *block.Reader) bool { return !slices.Contains(block.Tenants(r), tenant) })
	header := block.Header{
		ID: ulid.MustNew(ulid.Now(), rand.Reader).String(), Tenant: tenant, Shard: m.job.GetShard(), Level: m.level(), Writer: m.worker.cfg.Name,
	}
	for _, r := range sources {
		header.Sources = append(header.Sources, r.Meta().GetId())
	}
	p := m.worker.presses.Get()
	out := newSpool(m.worker.cfg)
	out.memory = p.memory[:0]
	meta, err := m.write(ctx, tenant, sources, p.begin(out, header))
	empty := err == nil && len(meta.GetDatasets()) == 0
	if err == nil && !empty {
		err = m.worker.bucket.PutFrom(ctx, block.Key(meta), out, out.Size())
	}
	if err == nil { // otherwise somebody may still be reading
		p.memory = out.memory
		m.worker.presses.Put(p, p.bytes())
	}
	if err := errors.Join(err, out.Close()); err != nil {
		return nil, fmt.Errorf("block of tenant %s: %w", tenant, err)
	}
	if empty {
		return nil, nil
	}
	return meta, nil
}

// press is what writing an output takes, reused by the next one.
type press struct {
	memory []byte // of a spool
	writer *block.Writer
}

// keepPresses is how many bytes of presses stay for the next job, however long it takes to come.
const keepPresses = 8 << 20

func newPress() *press { return &press{writer: block.NewWriter(io.Discard, block.Header{})} }

// begin returns the writer of an object that goes to out.
func (p *press) begin(out io.Writer, h block.Header) *block.Writer {
	p.writer.Reset(out, h)
	return p.writer
}

func (p *press) bytes() int { return cap(p.memory) + p.writer.Bytes() }

// level returns the level of the outputs. A metastore of an older build does not say.
func (m *merge) level() uint32 {
	if l := m.job.GetOutputLevel(); l != 0 {
		return l
	}
	return m.job.GetLevel() + 1
}

func (m *merge) write(ctx context.Context, tenant string, sources []*block.Reader, w *block.Writer) (*storagev1.BlockMeta, error) {
	if err := block.MergeWithin(ctx, m.budget, tenant, sources, w); err != nil {
		w.Abort()
		return nil, err
	}
	return w.Finish()
}

// discard removes what was uploaded, when the attempt is given up before it was reported. What cannot be removed is an
// orphan, which nobody names.
func (m *merge) discard() {
	ctx, cancel := context.WithTimeout(context.Background(), discardTimeout)
	defer cancel()
	for _, o := range m.outputs {
		if err := m.worker.bucket.Delete(ctx, block.Key(o)); err != nil {
			m.worker.log.Warn("output of a failed job is left behind", "key", block.Key(o), "err", err)
		}
	}
}
