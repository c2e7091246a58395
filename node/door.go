package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"github.com/kilndb/kiln/tenant"
)

// door serves one mux on one listener: HTTP/1.1 and HTTP/2 without TLS.
type door struct {
	listener net.Listener
	server   *http.Server
	// closeBy is when the requests that are inside must have ended, once the door closes.
	closeBy func() time.Time
}

// maxStreams bounds the calls of one HTTP/2 connection. A client that has more at once opens another connection.
const maxStreams = 250

// newDoor bounds what a connection may cost before it is a request: slow headers, long headers, streams, and how many
// connections there are. It calls closing when it begins to close,
// and closeBy for how long it may take.
func (n *Node) newDoor(l net.Listener, handler http.Handler, closing func(), closeBy func() time.Time) *door {
	s := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: n.cfg.HeaderTimeout,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		Protocols:         new(http.Protocols),
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams, SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
		ConnState:         newConnections(n.cfg.MaxConnections).changed,
		ErrorLog:          slog.NewLogLogger(n.log("http").Handler(), slog.LevelWarn),
	}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	s.RegisterOnShutdown(closing)
	return &door{listener: l, server: s, closeBy: closeBy}
}

// endWith makes the requests of a handler end when closing does: those that wait for something to happen would
// otherwise keep a closing door open.
func endWith(closing context.Context, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(closing, cancel)()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// Run serves until ctx ends, then lets the requests that are inside finish.
func (d *door) Run(ctx context.Context) error {
	served := make(chan error, 1)
	go func() { served <- d.server.Serve(d.listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve %s: %w", d.listener.Addr(), err)
	case <-ctx.Done():
	}
	closing, cancel := context.WithDeadline(context.WithoutCancel(ctx), d.closeBy())
	defer cancel()
	err := d.server.Shutdown(closing)
	if errors.Is(err, context.DeadlineExceeded) {
		err = d.server.Close()
	}
	if serveErr := <-served; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, serveErr)
	}
	return err
}

// door returns a handler that lets a request of the public API pass with its tenant in the context.
func (n *Node) door(next http.Handler) http.Handler {
	return withTenant(n.cfg.MultiTenant, withDeadline(n.cfg.BodyTimeout, next))
}

// withTenant puts the tenant of a request into its context, or refuses it.
func withTenant(multiTenant bool, next http.Handler) http.Handler {
	errs := connect.NewErrorWriter()
	refuse := func(w http.ResponseWriter, r *http.Request, err *connect.Error, status int) {
		if errs.IsSupported(r) {
			_ = errs.Write(w, r, err) // the client is gone if this fails
			return
		}
		http.Error(w, err.Message(), status)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := tenant.Anonymous
		if multiTenant {
			header := r.Header.Get(tenant.Header)
			if header == "" {
				refuse(w, r, connect.NewError(connect.CodeUnauthenticated, fmt.Errorf("no tenant: set the header %s", tenant.Header)), http.StatusUnauthorized)
				return
			}
			var err error
			if id, err = tenant.Parse(header); err != nil {
				refuse(w, r, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("header %s: %w", tenant.Header, err)), http.StatusBadRequest)
				return
			}
		}
		next.ServeHTTP(w, r.WithContext(tenant.NewContext(r.Context(), id)))
	})
}

// withDeadline bounds how long the body of a request may take: a sender may trickle. Once it is there, the answer may
// take its time; so a request without one has no deadline.
func withDeadline(timeout time.Duration, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body != http.NoBody {
			// Not every connection can set it.
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(timeout))
		}
		next.ServeHTTP(w, r)
	})
}
