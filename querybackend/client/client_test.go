package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"connectrpc.com/connect"

	queryv1 "github.com/kilndb/kiln/api/kiln/query/v1"
	"github.com/kilndb/kiln/api/kiln/query/v1/queryv1connect"
	storagev1 "github.com/kilndb/kiln/api/kiln/storage/v1"
)

// named is a backend that answers with its name, or fails.
type named struct {
	name string
	err  error
	got  *queryv1.InvokeRequest
}

func (n *named) Invoke(_ context.Context, req *connect.Request[queryv1.InvokeRequest]) (*connect.Response[queryv1.InvokeResponse], error) {
	n.got = req.Msg
	if n.err != nil {
		return nil, n.err
	}
	return connect.NewResponse(&queryv1.InvokeResponse{Report: &queryv1.Report{Names: []string{n.name}}}), nil
}

// serve returns the address of a backend.
func serve(t *testing.T, n *named) string {
	mux := http.NewServeMux()
	mux.Handle(queryv1connect.NewQueryBackendServiceHandler(n))
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func request(object string) *connect.Request[queryv1.InvokeRequest] {
	inner := &queryv1.PlanNode{Children: []*queryv1.PlanNode{{Entries: []*storagev1.BlockMeta{{Id: object}}}}}
	return connect.NewRequest(&queryv1.InvokeRequest{Tenant: "one", Node: inner})
}

// TestAffinity: an object goes to the same backend each time, and objects spread over all backends.
func TestAffinity(t *testing.T) {
	var addresses []string
	for i := range 3 {
		addresses = append(addresses, serve(t, &named{name: fmt.Sprint(i)}))
	}
	c := New(http.DefaultClient, nil, func() []string { return addresses })
	used := map[string]bool{}
	for i := range 60 {
		first := ""
		for range 2 {
			res, err := c.Invoke(t.Context(), request(fmt.Sprint("object", i)))
			if err != nil {
				t.Fatal(err)
			}
			name := res.Msg.Report.Names[0]
			if first != "" && name != first {
				t.Errorf("object %d went to %s and to %s", i, first, name)
			}
			first, used[name] = name, true
		}
	}
	if len(used) != 3 {
		t.Errorf("only %v were used", used)
	}
}

// TestFailover: a backend that cannot be reached is passed over; one that answers with an error has answered.
func TestFailover(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	alive := &named{name: "alive"}
	addresses := []string{strings.TrimPrefix(gone.URL, "http://"), serve(t, alive)}
	c := New(http.DefaultClient, nil, func() []string { return addresses })
	for i := range 20 {
		req := request(fmt.Sprint("object", i))
		res, err := c.Invoke(t.Context(), req)
		if err != nil || res.Msg.Report.Names[0] != "alive" {
			t.Fatalf("object %d: %v, %v", i, res, err)
		}
		if alive.got.Tenant != "one" || len(alive.got.Node.Children) != 1 {
			t.Fatalf("the backend got %v", alive.got)
		}
		if len(req.Header()) != 0 {
			t.Fatalf("the caller's request was changed: %v", req.Header())
		}
	}
	alive.err = connect.NewError(connect.CodeNotFound, errors.New("segments/0/x is gone"))
	_, err := c.Invoke(t.Context(), request("object"))
	if connect.CodeOf(err) != connect.CodeNotFound || !strings.Contains(err.Error(), "segments/0/x") {
		t.Errorf("error is %v", err)
	}
	addresses = addresses[:1]
	if _, err := c.Invoke(t.Context(), request("object")); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("without a live backend: %v", err)
	}
	addresses = nil
	if _, err := c.Invoke(t.Context(), request("object")); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("without a backend: %v", err)
	}
}

// unanswered is a network where dials to one address are not answered.
type unanswered string

func (u unanswered) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host == string(u) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: context.DeadlineExceeded}
	}
	return http.DefaultTransport.RoundTrip(r)
}

// TestFailoverFromOneThatVanished: nothing refuses a connection to it.
func TestFailoverFromOneThatVanished(t *testing.T) {
	addresses := []string{"gone:4040", serve(t, &named{name: "alive"})}
	c := New(&http.Client{Transport: unanswered("gone:4040")}, nil, func() []string { return addresses })
	for i := range 20 {
		if res, err := c.Invoke(t.Context(), request(fmt.Sprint("object", i))); err != nil || res.Msg.Report.Names[0] != "alive" {
			t.Fatalf("object %d: %v, %v", i, res, err)
		}
	}
}

// TestTheBackendOfTheProcessIsCalledDirectly: nobody listens at its address.
func TestTheBackendOfTheProcessIsCalledDirectly(t *testing.T) {
	here, elsewhere := &named{name: "here"}, &named{name: "elsewhere"}
	local := func(address string) queryv1connect.QueryBackendServiceClient {
		if address == "here" {
			return here
		}
		return nil
	}
	addresses := []string{"here", serve(t, elsewhere)}
	c := New(http.DefaultClient, local, func() []string { return addresses })
	used := map[string]int{}
	for i := range 40 {
		req := request(fmt.Sprint("object", i))
		res, err := c.Invoke(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		used[res.Msg.Report.Names[0]]++
		if res.Msg.Report.Names[0] == "here" && here.got != req.Msg {
			t.Fatal("the request was copied on its way to the backend of this process")
		}
	}
	if used["here"] == 0 || used["elsewhere"] == 0 {
		t.Errorf("backends were used %v times", used)
	}
}
