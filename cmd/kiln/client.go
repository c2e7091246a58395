package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/kilndb/kiln/tenant"
)

// target is which server a client command talks to.
type target struct {
	Server string `default:"http://localhost:4040" help:"URL of the server. Default: ${default}." placeholder:"URL"`
	Tenant string `help:"Tenant id, for a server with several." placeholder:"ID"`
}

// options make every call carry the tenant.
func (t target) options() connect.ClientOption {
	return connect.WithInterceptors(connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			if t.Tenant != "" {
				req.Header().Set(tenant.Header, t.Tenant)
			}
			return next(ctx, req)
		}
	}))
}

func (t target) client() *http.Client { return &http.Client{Timeout: 5 * time.Minute} }

// readable says what a person can do something with.
func readable(err error) string {
	var ce *connect.Error
	if !errors.As(err, &ce) {
		return err.Error()
	}
	if ce.Code() == connect.CodeUnavailable && strings.Contains(ce.Message(), "connection refused") {
		return ce.Message() + " (is the server running? `kiln server` starts one)"
	}
	return fmt.Sprintf("%s: %s", ce.Code(), ce.Message())
}

// window is the time range of a query.
type window struct {
	From string `default:"1h" help:"Start: an age such as 30m or 7d, RFC 3339, or Unix seconds. Default: ${default}." placeholder:"TIME"`
	To   string `default:"now" help:"End: now, an age, RFC 3339, or Unix seconds. Default: ${default}." placeholder:"TIME"`
}

// millis returns both ends as Unix milliseconds.
func (w window) millis(now time.Time) (start, end int64, err error) {
	from, err := parseTime(w.From, now)
	if err != nil {
		return 0, 0, fmt.Errorf("--from: %w", err)
	}
	to, err := parseTime(w.To, now)
	if err != nil {
		return 0, 0, fmt.Errorf("--to: %w", err)
	}
	return from.UnixMilli(), to.UnixMilli(), nil
}

// parseTime reads what people write for a moment.
func parseTime(s string, now time.Time) (time.Time, error) {
	if s == "now" {
		return now, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	if seconds, err := strconv.ParseInt(s, 10, 64); err == nil {
		return time.Unix(seconds, 0), nil
	}
	age := strings.TrimPrefix(s, "now-")
	if days, ok := strings.CutSuffix(age, "d"); ok {
		if n, err := strconv.ParseFloat(days, 64); err == nil {
			return now.Add(-time.Duration(n * 24 * float64(time.Hour))), nil
		}
	}
	if d, err := time.ParseDuration(age); err == nil {
		return now.Add(-d), nil
	}
	return time.Time{}, fmt.Errorf("%q is not an age (30m, 7d), RFC 3339 or Unix seconds", s)
}
