package ingest

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/kilndb/kiln/profile"
)

// sampleTypes is sample_type_config: how a client wants sample types shown, by their names.
type sampleTypes map[string]*sampleType

// sampleType is what a client says of one sample type. Only the display name decides anything here. The rest is read
// to be checked: units and aggregation are about drawing, sampled and cumulative about how values were taken.
type sampleType struct {
	Units       string `json:"units"`
	DisplayName string `json:"display-name"`
	Aggregation string `json:"aggregation"`
	Cumulative  bool   `json:"cumulative"`
	Sampled     bool   `json:"sampled"`
}

func parseSampleTypes(b []byte) (sampleTypes, error) {
	if len(b) == 0 {
		return nil, nil
	}
	var config sampleTypes
	if err := json.Unmarshal(b, &config); err != nil {
		return nil, fmt.Errorf("part sample_type_config: %w", err)
	}
	return config, nil
}

// kind returns what a profile of an SDK is called, its __name__, as deduced from the sample types: the SDKs do not
// say it.
func (config sampleTypes) kind(p *profile.Profile) string {
	name := ""
	for _, t := range p.SampleTypes {
		if string(p.String(t.Type)) == "wall" {
			return "wall"
		}
	}
	for _, t := range p.SampleTypes {
		name = string(p.String(t.Type))
		if c := config.of(name); c != nil && c.DisplayName != "" {
			name = c.DisplayName
		}
		if kind := kindOf(name); kind != "" {
			return kind
		}
	}
	return name
}

// of returns what a configuration says of a sample type, whichever way it is written: see underscoreTypes.
func (config sampleTypes) of(name string) *sampleType {
	if c := config[name]; c != nil {
		return c
	}
	return config[strings.ReplaceAll(name, "_", "-")]
}

// kindOf returns the kind that a sample type gives away, or "".
func kindOf(sampleType string) string {
	switch has := func(part string) bool { return strings.Contains(sampleType, part) }; {
	case has("cpu"):
		return "process_cpu"
	case has("alloc_"), has("inuse_"), sampleType == "space", sampleType == "objects":
		return "memory"
	case has("mutex_"):
		return "mutex"
	case has("block_"):
		return "block"
	case has("goroutines"):
		return "goroutines"
	}
	return ""
}
