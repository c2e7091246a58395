package process

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pushv1 "github.com/grafana/pyroscope/api/gen/proto/go/push/v1"
	typesv1 "github.com/grafana/pyroscope/api/gen/proto/go/types/v1"
	"google.golang.org/protobuf/proto"

	"github.com/kilndb/kiln/benchmarks/workload"
)

// message is a push that is ready to be sent.
type message struct {
	request []byte // as HTTP/1.1
	raw     int    // bytes of pprof in it
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
		head := fmt.Sprintf("POST /push.v1.PusherService/Push HTTP/1.1\r\nHost: kiln\r\nContent-Type: application/proto\r\nX-Scope-OrgID: %s\r\nContent-Length: %d\r\n\r\n", tenant, len(body))
		all = append(all, message{append([]byte(head), body...), p.Raw})
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

// clients are connections that push. Each has one request at a time, as clients have. They write and read their connections
// themselves: net/http would take as much of the cores as what it is to measure.
type clients struct {
	addr string
	idle chan *connection
}

type connection struct {
	net.Conn
	answers *bufio.Reader
}

func newClients(b *testing.B, s *server, connections int) *clients {
	c := &clients{addr: strings.TrimPrefix(s.url, "http://"), idle: make(chan *connection, connections)}
	b.Cleanup(func() {
		for len(c.idle) > 0 {
			(<-c.idle).Close()
		}
	})
	return c
}

func (c *clients) dial() (*connection, error) {
	select {
	case conn := <-c.idle:
		return conn, nil
	default:
	}
	conn, err := net.DialTimeout("tcp", c.addr, 10*time.Second)
	if err != nil {
		return nil, err
	}
	return &connection{conn, bufio.NewReader(conn)}, nil
}

// push sends one message.
func (c *clients) push(m message, to *answers) {
	start := time.Now()
	status, text, err := c.exchange(m)
	if err != nil {
		text = err.Error()
		text = text[strings.LastIndex(text, ": ")+1:] // the reason, without the ports
	}
	to.add(m, status, text, time.Since(start))
}

func (c *clients) exchange(m message) (status int, text string, err error) {
	conn, err := c.dial()
	if err != nil {
		return 0, "", err
	}
	if _, err := conn.Write(m.request); err != nil {
		return 0, "", errors.Join(err, conn.Close())
	}
	resp, err := http.ReadResponse(conn.answers, nil)
	if err != nil {
		return 0, "", errors.Join(err, conn.Close())
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.Close {
		return resp.StatusCode, string(body), errors.Join(err, conn.Close())
	}
	select {
	case c.idle <- conn:
	default:
		err = conn.Close()
	}
	return resp.StatusCode, string(body), err
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

// press sends so many a second, but has no more under way than there may be connections, for a while.
func (c *clients) press(perSecond float64, span time.Duration, messages []message) *answers {
	var a answers
	var all sync.WaitGroup
	free := make(chan struct{}, cap(c.idle))
	start := time.Now()
	for i := 0; time.Since(start) < span; {
		// Many at a time: a sleep lasts a millisecond.
		for due := int(time.Since(start).Seconds() * perSecond); i < due && time.Since(start) < span; i++ {
			m := messages[i%len(messages)]
			free <- struct{}{}
			all.Go(func() {
				c.push(m, &a)
				<-free
			})
		}
		time.Sleep(time.Millisecond)
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
		start := workload.CPU()
		if err := g.All(profiles); err != nil {
			b.Fatal(err)
		}
		rounds = append(rounds, float64(workload.CPU()-start)/float64(raw))
	}
	slices.Sort(rounds)
	return rounds[len(rounds)/2]
}
