package node_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"connectrpc.com/connect"
	gprofile "github.com/google/pprof/profile"
	querierv1 "github.com/grafana/pyroscope/api/gen/proto/go/querier/v1"

	"github.com/kilndb/kiln/flamegraph"
	"github.com/kilndb/kiln/node/nodetest"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/oracle"
)

// ofSpan asks for the samples of some spans.
func ofSpan(t *testing.T, n *nodetest.Node, s scope, profileType string, spans ...string) *flamegraph.Tree {
	t.Helper()
	nodes := int64(1 << 20)
	resp, err := n.Querier(s.tenant).SelectMergeStacktraces(context.Background(), connect.NewRequest(&querierv1.SelectMergeStacktracesRequest{
		ProfileTypeID: profileType, LabelSelector: s.selector, Start: s.start, End: s.end, MaxNodes: &nodes,
		Format: querierv1.ProfileFormat_PROFILE_FORMAT_TREE, SpanSelector: spans,
	}))
	if err != nil {
		t.Fatal(err)
	}
	tree, err := flamegraph.DecodeTreeBytes(resp.Msg.Tree)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// TestSpans pushes samples with spans and asks for those of one span, and for all, as segments and as blocks.
func TestSpans(t *testing.T) {
	n := nodetest.New(t).Whole(neverCompact)
	base := oracle.Parse(corpus.Get("api-gateway-cpu-0").Gzipped)
	start := time.Now().Add(-5 * time.Minute).Truncate(time.Millisecond)
	var all, ofOne []*gprofile.Profile
	span := func(i int) string { return fmt.Sprintf("%016x", i+1) }
	for i := range 12 {
		p := base.Copy()
		p.TimeNanos = start.Add(time.Duration(i) * time.Second).UnixNano()
		one := p.Copy()
		one.Sample = nil
		for j, s := range p.Sample {
			s.Label = nil
			if j%4 > 0 {
				s.Label = map[string][]string{"span_id": {span(j % (4 + i))}}
			}
			if j%4 > 0 && j%(4+i) == 2 {
				one.Sample = append(one.Sample, s)
			}
		}
		var body bytes.Buffer
		if err := p.Write(&body); err != nil {
			t.Fatal(err)
		}
		mustPush(t, n, series("process_cpu", "gateway", body.Bytes()))
		all, ofOne = append(all, p), append(ofOne, one)
	}
	where := around(`{service_name="gateway"}`, all...)
	id := typeID("process_cpu", base, oracle.Index(base, "cpu"))
	want, whole := oracle.Sum("cpu", ofOne...), oracle.Sum("cpu", all...)
	if want.Total == 0 || want.Total >= whole.Total {
		t.Fatalf("one span has %d of %d: this tests nothing", want.Total, whole.Total)
	}
	verify := func(when string) {
		t.Helper()
		mustEqualFunctions(t, when+", one span", ofSpan(t, n, where, id, span(2)), want)
		mustEqualFunctions(t, when+", all", tree(t, n, where, id), whole)
		if total := ofSpan(t, n, where, id, "ffffffffffffffff").Total(); total != 0 {
			t.Errorf("%s: a span that is nowhere has %d", when, total)
		}
	}
	verify("as segments")
	n = nodetest.Compacting(n)
	waitCompacted(t, n)
	verify("as blocks")
}
