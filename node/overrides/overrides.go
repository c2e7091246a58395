package overrides

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/kilndb/kiln/tenant"
)

// maxFile is far more than the limits of ten thousand tenants take.
const maxFile = 16 << 20

// Config is what Overrides are told.
type Config struct {
	// Path of the file. Empty: there is none, and Base holds for everybody.
	Path string
	// Base is what the file's defaults are laid over.
	Base tenant.Limits
	// Sections of the file that are not limits.
	Sections []Section
	// Interval is how often the file is looked at; 0 means five seconds.
	Interval time.Duration
	// Ticks says when to look at the file, instead of Interval.
	Ticks <-chan time.Time
	// Hangups make the file be looked at now.
	Hangups <-chan os.Signal
}

// Overrides are the limits of all tenants as the file has them now. All methods may be called concurrently.
type Overrides struct {
	cfg     Config
	log     *slog.Logger
	current atomic.Pointer[Set]

	reloads *prometheus.CounterVec
	good    prometheus.Gauge

	mu sync.Mutex // guards the rest
	// used is the version that was taken or refused last: the same is not told twice. found is what the last look found.
	used, found version
}

// version is the file at one moment.
type version struct {
	looked bool
	text   string
	err    string // why it could not be read
}

// Open reads the file, which must be good at the start.
func Open(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Overrides, error) {
	if cfg.Interval == 0 {
		cfg.Interval = 5 * time.Second
	}
	f := promauto.With(reg)
	o := &Overrides{
		cfg: cfg, log: log,
		reloads: f.NewCounterVec(prometheus.CounterOpts{
			Name: "kiln_limits_file_reloads_total", Help: "New versions of the limits file, by whether they were taken or refused.",
		}, []string{"result"}),
		good: f.NewGauge(prometheus.GaugeOpts{
			Name: "kiln_limits_file_good", Help: "Whether the limits file is good as it is now: 0 when an older version is in use.",
		}),
	}
	o.current.Store(&Set{defaults: cfg.Base})
	o.good.Set(1)
	if _, err := o.reload(true); err != nil {
		return nil, err
	}
	return o, nil
}

// Limits returns the limits of a tenant.
func (o *Overrides) Limits(id tenant.ID) tenant.Limits { return o.current.Load().Limits(id) }

// Run looks at the file from time to time until ctx ends.
func (o *Overrides) Run(ctx context.Context) error {
	ticks := o.cfg.Ticks
	if ticks == nil {
		t := time.NewTicker(o.cfg.Interval)
		defer t.Stop()
		ticks = t.C
	}
	for {
		var changed bool
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-ticks:
			changed, err = o.reload(false)
		case <-o.cfg.Hangups:
			changed, err = o.reload(true)
		}
		switch {
		case err != nil:
			o.log.Error("limits file refused: the version before stays in use", "path", o.cfg.Path, "error", err)
		case changed:
			o.log.Info("limits file taken", "path", o.cfg.Path, "tenants", len(o.current.Load().tenants))
		}
	}
}

// reload looks at the file. It tells whether there was something new, and what is wrong with that. Unless it is told that
// the file is whole now, it waits until it finds the same twice: somebody may be writing it, and half of a file may be
// good.
func (o *Overrides) reload(whole bool) (changed bool, err error) {
	if o.cfg.Path == "" {
		return false, nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	text, err := read(o.cfg.Path)
	now := version{looked: true, text: string(text)}
	if err != nil {
		now.err = err.Error()
	}
	settled := whole || now == o.found
	o.found = now
	if now == o.used || !settled {
		return false, nil
	}
	o.used = now
	var set *Set
	if err == nil {
		set, err = Parse(text, o.cfg.Base, o.cfg.Sections...)
	}
	if err != nil {
		o.reloads.WithLabelValues("refused").Inc()
		o.good.Set(0)
		return true, fmt.Errorf("limits file %s: %w", o.cfg.Path, err)
	}
	o.reloads.WithLabelValues("taken").Inc()
	o.good.Set(1)
	for _, publish := range set.publish {
		publish()
	}
	o.current.Store(set)
	return true, nil
}

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("it has more than %d bytes", maxFile)
	}
	return text, err
}

// ServeHTTP answers with the limits that hold for the tenant of the request, as JSON.
func (o *Overrides) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id, ok := tenant.FromContext(r.Context())
	if !ok {
		http.Error(w, "no tenant: set the header "+tenant.Header, http.StatusUnauthorized)
		return
	}
	limits := o.Limits(id)
	answer := map[string]any{}
	for _, k := range keys(&limits) {
		answer[k.name] = k.value()
	}
	body, err := json.MarshalIndent(answer, "", "  ")
	if err != nil {
		panic(errors.New("limits are numbers and texts: cannot fail"))
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(append(body, '\n')) // a client that left cannot be told
}
