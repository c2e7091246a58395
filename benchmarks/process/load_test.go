package process

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	pushv1 "github.com/grafana/pyroscope/api/gen/proto/go/push/v1"
	typesv1 "github.com/grafana/pyroscope/api/gen/proto/go/types/v1"
	"google.golang.org/protobuf/proto"

	"github.com/kilndb/kiln/benchmarks/workload"
)

// message is a push that is ready to be sent.
type message struct {
	tenant string
	body   []byte
	raw    int // bytes of pprof in it
}

func messages(b *testing.B, tenant string, profiles []workload.Sent) (all []message) {
	b.Helper()
	for _, p := range profiles {
		s := &pushv1.RawProfileSeries{Samples: []*pushv1.RawSample{{RawProfile: p.Body}}}
		for _, l := range p.Series {
			s.Labels = append(s.Labels, &typesv1.LabelPair{Name: l.Name, Value: l.Value})
		}
		body, err := proto.Marshal(&pushv1.PushRequest{Series: []*pushv1.RawProfileSeries{s}})
		if err != nil {
			b.Fatal(err)
		}
		all = append(all, message{tenant, body, p.Raw})
	}
	return all
}

// answers is what pushes were told.
type answers struct {
	mu       sync.Mutex
	raw      int             // bytes of the accepted
	accepted []time.Duration // how long each took
	refused  []time.Duration // 429
	failed   map[string]int
}

func (a *answers) add(m message, status int, text string, took time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch status {
	case http.StatusOK:
		a.accepted = append(a.accepted, took)
		a.raw += m.raw
	case http.StatusTooManyRequests:
		a.refused = append(a.refused, took)
	default:
		if a.failed == nil {
			a.failed = map[string]int{}
		}
		a.failed[fmt.Sprint(status, " ", text)]++
	}
}

// check fails the benchmark if pushes failed.
func (a *answers) check(b *testing.B) {
	b.Helper()
	for what, n := range a.failed {
		b.Errorf("%d pushes failed: %.300s", n, what)
	}
	if len(a.accepted) == 0 {
		b.Fatal("no push was accepted")
	}
}

// quantile returns the q-th quantile of durations, in milliseconds.
func quantile(of []time.Duration, q float64) float64 {
	if len(of) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(of))
	return float64(sorted[min(len(sorted)-1, int(q*float64(len(sorted))))].Microseconds()) / 1000
}

// clients are connections that push. Each has one request at a time, as clients have.
type clients struct {
	server *server
	http   http.Client
}

func newClients(b *testing.B, s *server, connections int) *clients {
	c := &clients{server: s}
	dialer := net.Dialer{Timeout: 10 * time.Second}
	transport := &http.Transport{DialContext: dialer.DialContext, MaxIdleConnsPerHost: connections, MaxIdleConns: connections, DisableCompression: true}
	c.http.Transport = transport
	b.Cleanup(transport.CloseIdleConnections)
	return c
}

// push sends one message.
func (c *clients) push(m message, to *answers) {
	req, err := http.NewRequest(http.MethodPost, c.server.url+"/push.v1.PusherService/Push", bytes.NewReader(m.body))
	if err != nil {
		panic(err) // the URL is ours
	}
	req.Header.Set("Content-Type", "application/proto")
	if m.tenant != "" {
		req.Header.Set("X-Scope-OrgID", m.tenant)
	}
	start := time.Now()
	resp, err := c.http.Do(req)
	if err != nil {
		to.add(m, 0, err.Error(), time.Since(start))
		return
	}
	text, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	to.add(m, resp.StatusCode, string(text), time.Since(start))
}

// saturate sends as fast as the answers come on that many connections, for a while.
func (c *clients) saturate(connections int, span time.Duration, messages []message) *answers {
	var a answers
	var next atomic.Int64
	var all sync.WaitGroup
	end := time.Now().Add(span)
	for range connections {
		all.Go(func() {
			for time.Now().Before(end) {
				c.push(messages[int(next.Add(1))%len(messages)], &a)
			}
		})
	}
	all.Wait()
	return &a
}

// pace sends so many a second, whether or not the answers come, for a while.
func (c *clients) pace(perSecond float64, span time.Duration, messages []message) *answers {
	var a answers
	var all sync.WaitGroup
	start := time.Now()
	for i := 0; ; i++ {
		at := start.Add(time.Duration(float64(i) / perSecond * float64(time.Second)))
		if at.Sub(start) > span {
			break
		}
		time.Sleep(time.Until(at))
		m := messages[i%len(messages)]
		all.Go(func() { c.push(m, &a) })
	}
	all.Wait()
	return &a
}

// gunzip returns the CPU time of gunzipping a byte of raw pprof: the median of a few rounds.
func gunzip(b *testing.B, profiles []workload.Sent) (perByte float64) {
	b.Helper()
	var g workload.Gunzipper
	raw := 0
	for _, p := range profiles {
		raw += p.Raw
	}
	var rounds []float64
	for range 7 {
		start := ownCPU()
		if err := g.All(profiles); err != nil {
			b.Fatal(err)
		}
		rounds = append(rounds, float64(ownCPU()-start)/float64(raw))
	}
	slices.Sort(rounds)
	return rounds[len(rounds)/2]
}

// ownCPU returns the CPU time of this process.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
