package ingest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime/multipart"

	"github.com/kilndb/kiln/distributor/body"
)

const (
	// maxParts is more than any SDK sends: four.
	maxParts = 16
	// maxConfig is far more than sample_type_config needs for the most sample types a profile may have.
	maxConfig = 64 << 10
	// maxLabels bounds the labels beside a recording.
	maxLabels = 4 << 20
)

// parts is what the parts of a form hold.
type parts struct {
	profile []byte
	config  sampleTypes // of a pprof
	labels  []byte      // of a recording
}

// readForm reads a form whose part of the given name is the profile. Parts are read into memory, whatever file names they
// claim to have.
func readForm(a *body.Arena, content []byte, boundary, name string) (parts, error) {
	var f parts
	found := false
	reader := multipart.NewReader(bytes.NewReader(content), boundary)
	for range maxParts {
		part, err := reader.NextRawPart()
		if errors.Is(err, io.EOF) {
			if !found {
				return f, fmt.Errorf("the form has no part %s", name)
			}
			return f, nil
		}
		if err != nil {
			return f, fmt.Errorf("read the form: %w", err)
		}
		switch part.FormName() {
		case name:
			if found {
				return f, fmt.Errorf("the form has more than one part %s", name)
			}
			found = true
			f.profile, err = a.Copy(part)
		case "sample_type_config":
			var text []byte
			if text, err = readPart(part, maxConfig); err == nil {
				f.config, err = parseSampleTypes(text)
			}
		case "labels":
			f.labels, err = readPart(part, maxLabels)
		case "prev_profile":
			return f, errors.New("the form has a part prev_profile: cumulative profiles are not subtracted here, send the difference")
		}
		if err != nil {
			return f, fmt.Errorf("read the form: %w", err)
		}
	}
	return f, fmt.Errorf("the form has more than %d parts", maxParts)
}

// readPart reads a small part.
func readPart(part *multipart.Part, limit int64) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(part, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(text)) > limit {
		return nil, fmt.Errorf("part %s: more than %d bytes", part.FormName(), limit)
	}
	return text, nil
}
