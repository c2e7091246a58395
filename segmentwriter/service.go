package segmentwriter

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"

	"connectrpc.com/connect"

	segmentwriterv1 "github.com/kilndb/kiln/api/kiln/segmentwriter/v1"
	"github.com/kilndb/kiln/internal/spare"
	"github.com/kilndb/kiln/labels"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/pprof"
	"github.com/kilndb/kiln/tenant"
)

// Service answers distributors of other processes. It decodes what they send once more; what came in over a network
// is checked, whoever sent it.
type Service struct {
	writer   *Writer
	decoders spare.Pool[*decoding]
}

const (
	// maxKept bounds the memory that a decoding may keep for the next profile: a few are much larger than the rest.
	maxKept = 16 << 20
	// keepDecoders is how many bytes of decodings stay, however long the next profile takes to come.
	keepDecoders = 4 << 20
)

// encodedGrowth is how much longer a profile may be when a distributor encodes it than it was counted there: numbers take up to ten bytes
// and are counted as three, and names with their files may double. No profile is longer than maxEncoded.
const encodedGrowth, maxEncoded = 4, 1 << 30

// decoding is what one request needs to decode a profile.
type decoding struct {
	decoder *pprof.Decoder
	profile profile.Profile
}

func newDecoding() *decoding { return &decoding{decoder: pprof.NewDecoder()} }

// NewService returns the service of a writer.
func NewService(w *Writer) *Service {
	return &Service{writer: w, decoders: spare.Pool[*decoding]{New: newDecoding, Keep: keepDecoders}}
}

// Append returns once the profile is durable.
func (s *Service) Append(ctx context.Context, req *connect.Request[segmentwriterv1.AppendRequest]) (*connect.Response[segmentwriterv1.AppendResponse], error) {
	t, err := tenant.Parse(req.Msg.GetTenant())
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	series, err := readSeries(req.Msg.GetLabels())
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	var id profile.ID
	if n := copy(id[:], req.Msg.GetId()); n != len(id) || n != len(req.Msg.GetId()) {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("a profile id has %d bytes, not %d", len(id), len(req.Msg.GetId())))
	}
	wait, err := s.append(ctx, t, series, id, req.Msg)
	if err != nil {
		return nil, err
	}
	if err := wait(ctx); err != nil {
		return nil, err
	}
	return connect.NewResponse(&segmentwriterv1.AppendResponse{}), nil
}

func (s *Service) append(ctx context.Context, t tenant.ID, series labels.Labels, id profile.ID, msg *segmentwriterv1.AppendRequest) (func(context.Context) error, error) {
	d := s.decoders.Get()
	lim := s.writer.cfg.Limits(t)
	p := &d.profile
	limits := pprof.LimitsOf(lim)
	// The profile kept to its limit where it came in, in another form or before its names grew.
	limits.MaxBytes = min(encodedGrowth*limits.MaxBytes, maxEncoded)
	if err := d.decoder.Decode(msg.GetProfile(), limits, p); err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	p.TimeNanos = msg.GetTime()
	if err := readColumns(p, msg); err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	if _, err := p.Normalise(profile.Limits{MaxStackDepth: lim.MaxStackDepth, MaxSymbolLength: lim.MaxSymbolLength}); err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	wait, err := s.writer.Append(ctx, t, msg.GetShard(), series, id, p)
	if held := p.Bytes() + d.decoder.Bytes(); held <= maxKept { // and not after a panic
		s.decoders.Put(d, held)
	}
	return wait, err
}

// readColumns adds to a decoded profile what pprof has no place for.
func readColumns(p *profile.Profile, msg *segmentwriterv1.AppendRequest) error {
	n := p.Samples()
	spans, traces, seen := msg.GetSpans(), msg.GetTraces(), msg.GetSeen()
	if len(spans) != 0 && len(spans) != 8*n || len(traces) != 0 && len(traces) != 16*n || len(seen) != 0 && len(seen) != n {
		return fmt.Errorf("%d bytes of spans, %d of traces and %d counts of times for %d samples", len(spans), len(traces), len(seen), n)
	}
	for ; len(spans) > 0; spans = spans[8:] {
		p.Spans = append(p.Spans, profile.SpanID(spans))
	}
	for ; len(traces) > 0; traces = traces[16:] {
		p.Traces = append(p.Traces, profile.TraceID(traces))
	}
	end := uint64(0)
	for _, count := range seen {
		end += uint64(count)
		p.TimeEnds = append(p.TimeEnds, uint32(end))
	}
	if end != uint64(len(msg.GetTimes())) || end > math.MaxUint32 {
		return fmt.Errorf("%d times, the samples were seen %d times", len(msg.GetTimes()), end)
	}
	p.Times = append(p.Times, msg.GetTimes()...)
	return nil
}

// readSeries returns the labels of a request, which must be a set in order.
func readSeries(ls []*segmentwriterv1.Label) (labels.Labels, error) {
	series := make(labels.Labels, len(ls))
	for i, l := range ls {
		series[i] = labels.Label{Name: l.GetName(), Value: l.GetValue()}
		if i > 0 && strings.Compare(series[i-1].Name, series[i].Name) >= 0 {
			return nil, fmt.Errorf("labels are not sorted: %.80q before %.80q", series[i-1].Name, series[i].Name)
		}
	}
	if series.Get(labels.Name) == "" || series.Get(labels.ServiceName) == "" {
		return nil, errors.New("labels lack __name__ or service_name")
	}
	return series, nil
}
