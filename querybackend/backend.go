package querybackend

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	queryv1 "github.com/kilndb/kiln/api/kiln/query/v1"
	"github.com/kilndb/kiln/api/kiln/query/v1/queryv1connect"
	"github.com/kilndb/kiln/objstore"
)

// maxDepth bounds the height of a plan. Each level merges several parts: sixteen are more than there can be objects.
const maxDepth = 16

// Config is what a Backend is told.
type Config struct {
	// Leaves is how many leaves are executed at once; others wait.
	Leaves int
	// Entries is how many objects of one leaf are read at once.
	Entries int
	// MaxDecodedBytes bounds what one request may decode, in bytes of memory.
	MaxDecodedBytes int64
	// Children executes the children of inner nodes; nil means this backend itself.
	Children queryv1connect.QueryBackendServiceClient
}

// DefaultConfig reads enough at once to keep the cores busy while a bucket answers slowly, and stops a request that
// would work for minutes.
func DefaultConfig() Config {
	return Config{
		Leaves:          max(4, 2*runtime.GOMAXPROCS(0)),
		Entries:         4,
		MaxDecodedBytes: 8 << 30, // some 500 million rows of one sample type: ten seconds of a core and more
	}
}

// Backend executes plans over the objects of a bucket. It is safe for concurrent use.
type Backend struct {
	cfg     Config
	bucket  objstore.Getter
	slots   *semaphore.Weighted
	log     *slog.Logger
	metrics *metrics
}

// New returns a Backend that reads from bucket.
func New(cfg Config, bucket objstore.Getter, log *slog.Logger, reg prometheus.Registerer) *Backend {
	return &Backend{cfg: cfg, bucket: bucket, slots: semaphore.NewWeighted(int64(cfg.Leaves)), log: log, metrics: newMetrics(reg)}
}

// Invoke executes one node of a plan and all below it. The codes of its errors are InvalidArgument (a request that
// makes no sense), NotFound (an object is gone: plan again), DataLoss, ResourceExhausted (a limit, which it names),
// Unavailable (the bucket), Canceled, DeadlineExceeded and Internal.
func (b *Backend) Invoke(ctx context.Context, req *connect.Request[queryv1.InvokeRequest]) (*connect.Response[queryv1.InvokeResponse], error) {
	begin := time.Now()
	w, err := b.open(req.Msg)
	var report *queryv1.Report
	if err == nil {
		err = w.guard(func() (err error) { report, err = w.execute(ctx, req.Msg.Node, 0); return err })
	}
	if err != nil {
		err = coded(err)
		b.metrics.observe(connect.CodeOf(err).String(), time.Since(begin), nil)
		return nil, err
	}
	cost := w.cost.message()
	b.metrics.observe("ok", time.Since(begin), cost)
	return connect.NewResponse(&queryv1.InvokeResponse{Report: report, Statistics: cost}), nil
}

// work is one request on its way.
type work struct {
	backend  *Backend
	request  *queryv1.InvokeRequest
	question *question
	budget   *budget
	cost     cost
}

func (b *Backend) open(req *queryv1.InvokeRequest) (*work, error) {
	if req.Tenant == "" {
		return nil, invalid("the request names no tenant")
	}
	if req.Node == nil {
		return nil, invalid("the request has no node")
	}
	q, err := parse(req.Question)
	if err != nil {
		return nil, err
	}
	w := &work{backend: b, request: req, question: q, budget: newBudget(b.cfg.MaxDecodedBytes)}
	w.cost.backends.Store(1)
	return w, nil
}

func invalid(format string, args ...any) error {
	return connect.NewError(connect.CodeInvalidArgument, fmt.Errorf(format, args...))
}
