package node

import (
	"context"
	"fmt"
	"net/http"
	"net/http/pprof"
	"strings"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"connectrpc.com/grpcreflect"
	pushv1 "github.com/grafana/pyroscope/api/gen/proto/go/push/v1"
	"github.com/grafana/pyroscope/api/gen/proto/go/push/v1/pushv1connect"
	"github.com/grafana/pyroscope/api/gen/proto/go/querier/v1/querierv1connect"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/kilndb/kiln/distributor/otlp"
	"github.com/kilndb/kiln/node/selfprofile"
	"github.com/kilndb/kiln/tenant"
	"github.com/kilndb/kiln/web"
)

// check is one question that /ready asks.
type check struct {
	name string
	ask  func() error
}

// serveOperations adds what people and their tools look at: the page, health, metrics, profiles.
func (n *Node) serveOperations() {
	if n.cfg.plays(QueryFrontend) {
		n.public.Handle("/", web.Handler())
	}
	n.public.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	n.public.HandleFunc("GET /ready", n.serveReady)
	n.public.Handle("GET /metrics", promhttp.HandlerFor(n.reg, promhttp.HandlerOpts{}))
	n.public.HandleFunc("GET /debug/pprof/", pprof.Index)
	n.public.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	n.public.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	n.public.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	n.public.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	n.public.Handle("GET /api/v1/tenant_limits", n.door(n.limits))
	var names []string
	if n.cfg.plays(Distributor) {
		names = append(names, pushv1connect.PusherServiceName)
	}
	if n.cfg.plays(QueryFrontend) {
		names = append(names, querierv1connect.QuerierServiceName)
	}
	reflector := grpcreflect.NewStaticReflector(names...)
	if n.cfg.plays(Distributor) {
		names = append(names, otlp.ServiceName) // whose schema is not ours to show
	}
	n.public.Handle(grpchealth.NewHandler(health{n, grpchealth.NewStaticChecker(names...)}))
	n.public.Handle(grpcreflect.NewHandlerV1(reflector))
	n.public.Handle(grpcreflect.NewHandlerV1Alpha(reflector))
}

// notReady asks every part and returns what is wrong, a line each.
func (n *Node) notReady() []string {
	var wrong []string
	for _, c := range n.ready {
		if err := c.ask(); err != nil {
			wrong = append(wrong, fmt.Sprintf("%s: %v", c.name, err))
		}
	}
	return wrong
}

func (n *Node) serveReady(w http.ResponseWriter, _ *http.Request) {
	if wrong := n.notReady(); len(wrong) > 0 {
		http.Error(w, strings.Join(wrong, "\n"), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ready")
}

// health is /ready for gRPC: a service that is known serves when the node is ready.
type health struct {
	node  *Node
	known grpchealth.Checker
}

// Check answers grpc.health.v1.Health.
func (h health) Check(ctx context.Context, req *grpchealth.CheckRequest) (*grpchealth.CheckResponse, error) {
	resp, err := h.known.Check(ctx, req)
	if err == nil && len(h.node.notReady()) > 0 {
		resp.Status = grpchealth.StatusNotServing
	}
	return resp, err
}

// serveInternal adds a service that only other nodes may call.
func (n *Node) serveInternal(path string, handler http.Handler) {
	n.internal.Handle(path, handler)
}

// recovered keeps a panic inside its call.
func (n *Node) recovered() connect.HandlerOption {
	return connect.WithRecover(func(_ context.Context, spec connect.Spec, _ http.Header, p any) error {
		n.log("http").Error("a call panicked", "procedure", spec.Procedure, "panic", p)
		return connect.NewError(connect.CodeInternal, fmt.Errorf("internal error"))
	})
}

// anonymous pushes on behalf of the tenant that is there without multi-tenancy.
type anonymous struct{ selfprofile.Pusher }

// Push passes the push on.
func (a anonymous) Push(ctx context.Context, req *connect.Request[pushv1.PushRequest]) (*connect.Response[pushv1.PushResponse], error) {
	return a.Pusher.Push(tenant.NewContext(ctx, tenant.Anonymous), req)
}
