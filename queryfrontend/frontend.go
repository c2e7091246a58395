package queryfrontend

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kilndb/kiln/api/kiln/metastore/v1/metastorev1connect"
	queryv1 "github.com/kilndb/kiln/api/kiln/query/v1"
	"github.com/kilndb/kiln/api/kiln/query/v1/queryv1connect"
	"github.com/kilndb/kiln/tenant"
)

// StatisticsHeader is the header of an answer that says what it cost.
const StatisticsHeader = "Kiln-Statistics"

// Config is what a Frontend is told.
type Config struct {
	// Limits returns the limits of a tenant.
	Limits func(tenant.ID) tenant.Limits
	// Timeout bounds one call; 0 means two minutes, which is as long as Grafana waits by far.
	Timeout time.Duration
	// LeafBytes is about how many bytes of objects one leaf of a plan reads; 0 means 16 MiB, some tens of
	// milliseconds of work.
	LeafBytes int64
}

// Frontend answers the calls of querier.v1. It is safe for concurrent use.
type Frontend struct {
	cfg     Config
	index   metastorev1connect.IndexServiceClient
	backend queryv1connect.QueryBackendServiceClient
	log     *slog.Logger
	metrics *metrics
}

// New returns a Frontend that finds objects in index and has them read by backend.
func New(cfg Config, index metastorev1connect.IndexServiceClient, backend queryv1connect.QueryBackendServiceClient, log *slog.Logger, reg prometheus.Registerer) *Frontend {
	if cfg.Timeout == 0 {
		cfg.Timeout = 2 * time.Minute
	}
	if cfg.LeafBytes == 0 {
		cfg.LeafBytes = 16 << 20
	}
	return &Frontend{cfg: cfg, index: index, backend: backend, log: log, metrics: newMetrics(reg)}
}

// call is one request on its way: who asks, and what the answer has cost so far.
type call struct {
	tenant tenant.ID
	limits tenant.Limits
	// utf8 tells that the client knows label names that are not plain words.
	utf8 bool

	mu   sync.Mutex // guards cost
	cost queryv1.Statistics
}

// serve does for every method what does not depend on it: the tenant, the deadline, metrics, and an error that may
// be shown.
func serve[Req, Res any](
	ctx context.Context, f *Frontend, method string, req *connect.Request[Req],
	answer func(context.Context, *call, *Req) (*Res, error),
) (*connect.Response[Res], error) {
	begin := time.Now()
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Timeout)
	defer cancel()
	c, err := f.open(ctx, req.Header())
	var msg *Res
	if err == nil {
		msg, err = answer(ctx, c, req.Msg)
	}
	err = f.shown(method, err)
	f.metrics.observe(method, err, time.Since(begin))
	if err != nil {
		return nil, err
	}
	res := connect.NewResponse(msg)
	res.Header().Set(StatisticsHeader, c.statistics())
	return res, nil
}

// open says who is asking.
func (f *Frontend) open(ctx context.Context, h http.Header) (*call, error) {
	id, ok := tenant.FromContext(ctx)
	if !ok || id == "" {
		return nil, connect.NewError(connect.CodeUnauthenticated, fmt.Errorf("no tenant: send the header %s", tenant.Header))
	}
	if strings.Contains(string(id), "|") {
		return nil, invalid("tenant %q: one call reads one tenant; reading several at once (a|b) is not supported", id)
	}
	if _, err := tenant.Parse(string(id)); err != nil {
		return nil, invalid("%s: %w", tenant.Header, err)
	}
	return &call{tenant: id, limits: f.cfg.Limits(id), utf8: acceptsUTF8(h)}, nil
}

// acceptsUTF8 tells whether a client said that it takes label names of any characters.
func acceptsUTF8(h http.Header) bool {
	for _, accept := range h.Values("Accept") {
		for param := range strings.FieldsFuncSeq(accept, func(r rune) bool { return r == ';' || r == ',' }) {
			if strings.EqualFold(strings.TrimSpace(param), "allow-utf8-labelnames=true") {
				return true
			}
		}
	}
	return false
}

func (c *call) count(s *queryv1.Statistics) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cost.Entries += s.GetEntries()
	c.cost.Datasets += s.GetDatasets()
	c.cost.Profiles += s.GetProfiles()
	c.cost.Samples += s.GetSamples()
	c.cost.Rollups += s.GetRollups()
	c.cost.BytesFetched += s.GetBytesFetched()
	c.cost.BytesDecoded += s.GetBytesDecoded()
	c.cost.Backends += s.GetBackends()
}

func (c *call) statistics() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprintf("entries=%d, datasets=%d, profiles=%d, samples=%d, rollups=%d, bytes_fetched=%d, bytes_decoded=%d, backends=%d",
		c.cost.Entries, c.cost.Datasets, c.cost.Profiles, c.cost.Samples, c.cost.Rollups, c.cost.BytesFetched, c.cost.BytesDecoded, c.cost.Backends)
}

// shown returns err if it was made for callers to see. Any other is a bug of ours: it is logged and hidden.
func (f *Frontend) shown(method string, err error) error {
	if err == nil {
		return nil
	}
	if public := (*connect.Error)(nil); errors.As(err, &public) {
		return public
	}
	f.log.Error("call failed", "method", method, "err", err)
	return connect.NewError(connect.CodeInternal, errors.New("internal error; the log of the query-frontend has the details"))
}
