package ingest

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"connectrpc.com/connect"

	"github.com/kilndb/kiln/distributor/body"
	"github.com/kilndb/kiln/distributor/ingest/jfr"
	"github.com/kilndb/kiln/profile"
	"github.com/kilndb/kiln/profile/pprof"
	"github.com/kilndb/kiln/tenant"
)

// read returns the profiles in the body of a request. None of them must be used after a was released.
func (p *params) read(a *body.Arena, content []byte, limits tenant.Limits) ([]Upload, error) {
	f := parts{profile: content}
	if p.form {
		var err error
		if body.Gzipped(content) {
			if content, err = a.Inflate(content); err != nil {
				return nil, err
			}
		}
		name := "profile"
		if p.format == formatJFR {
			name = "jfr"
		}
		if f, err = readForm(a, content, p.boundary, name); err != nil {
			return nil, badRequest(err)
		}
	}
	if p.format != formatPprof && body.Gzipped(f.profile) {
		var err error
		if f.profile, err = a.Inflate(f.profile); err != nil {
			return nil, err
		}
	}
	if len(f.profile) == 0 {
		return nil, body.Errorf(http.StatusBadRequest, "the profile is empty")
	}
	uploads, err := p.profiles(a, f, limits)
	if err != nil {
		return nil, badRequest(fmt.Errorf("format %s: %w", p.format, err))
	}
	for i := range uploads {
		uploads[i].Start = p.from.UnixNano()
	}
	return uploads, nil
}

// badRequest returns an error with a status: its own, or that of a bad request.
func badRequest(err error) error {
	if errors.As(err, new(*body.Error)) || errors.As(err, new(*connect.Error)) {
		return err
	}
	return body.Errorf(http.StatusBadRequest, "%w", err)
}

// profiles reads the profiles in what a request carries.
func (p *params) profiles(a *body.Arena, f parts, limits tenant.Limits) ([]Upload, error) {
	switch p.format {
	case formatPprof:
		return []Upload{{
			Labels: p.series(p.app), Kind: f.config.kind, Profile: f.profile,
			Fix: fixOf(p.spy, f.config, limits.MaxProfileBytes),
		}}, nil
	case formatJFR:
		return p.recording(a, f, limits)
	case formatSpeedscope:
		builds, err := parseSpeedscope(f.profile, p.app, p.sampleRate, limits)
		var uploads []Upload
		for _, b := range builds {
			uploads = append(uploads, p.built(b.Builder, b.app, b.kind.kind, b.kind.sampleType))
		}
		return uploads, err
	case formatTree:
		return p.stacks(parseTree, f.profile, limits)
	case formatTrie:
		return p.stacks(parseTrie, f.profile, limits)
	case formatLines:
		return p.stacks(parseLines, f.profile, limits)
	default:
		return p.stacks(parseFolded, f.profile, limits)
	}
}

// stacks reads a format of stacks and values.
func (p *params) stacks(parse func(*stacks, []byte) error, content []byte, limits tenant.Limits) ([]Upload, error) {
	app, kind, err := parseApp(p.app)
	if err != nil {
		return nil, err
	}
	s := newStacks(profile.NewBuilder(), limits)
	scale := kind.columns(s.Builder, p.sampleRate)
	if err := parse(s, content); err != nil {
		return nil, err
	}
	if err := s.Scale(scale); err != nil {
		return nil, err
	}
	return []Upload{p.built(s.Builder, app, kind.kind, kind.sampleType)}, nil
}

// recording reads a recording of the Java Flight Recorder.
func (p *params) recording(a *body.Arena, f parts, limits tenant.Limits) ([]Upload, error) {
	o := jfr.Options{Period: 1e9 / defaultSampleRate, Limits: pprof.LimitsOf(limits)}
	if p.sampleRate > 0 {
		o.Period = 1e9 / int64(p.sampleRate)
	}
	if len(f.labels) > 0 {
		var err error
		if body.Gzipped(f.labels) {
			if f.labels, err = a.InflateTo(maxLabels, f.labels); err != nil {
				return nil, fmt.Errorf("part labels: %w", err)
			}
		}
		if o.Labels, err = jfr.ParseSnapshot(f.labels); err != nil {
			return nil, err
		}
	}
	r, err := jfr.Parse(f.profile, o)
	if err != nil {
		return nil, err
	}
	var uploads []Upload
	for _, x := range r.Profiles {
		u := p.built(x.Builder, p.app, x.Kind, strings.Join(x.Types, ", "))
		if r.Event != "" {
			u.Labels = u.Labels.With("jfr_event", r.Event)
		}
		uploads = append(uploads, u)
	}
	return uploads, nil
}

// built is the upload of a profile that was made here.
func (p *params) built(b *profile.Builder, app, kind, types string) Upload {
	duration := p.until.Sub(p.from).Nanoseconds()
	return Upload{
		Labels: p.series(app),
		Kind:   func(*profile.Profile) string { return kind },
		What:   fmt.Sprintf("%s (%s)", kind, types),
		Fill: func(to *profile.Profile) error {
			b.Fill(to)
			b = nil // a push waits longer for the bucket than it took to get here
			to.DurationNanos = duration
			return nil
		},
	}
}
