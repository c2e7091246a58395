package export

// Profile is a row of profiles.parquet.
type Profile struct {
	Profile    int64             `parquet:"profile,delta"`
	Tenant     string            `parquet:"tenant,dict"`
	Service    string            `parquet:"service,dict"`
	Kind       string            `parquet:"kind,dict"`
	PeriodType string            `parquet:"period_type,dict"`
	PeriodUnit string            `parquet:"period_unit,dict"`
	ID         string            `parquet:"id"`
	Time       int64             `parquet:"time,timestamp(nanosecond),delta"`
	Duration   int64             `parquet:"duration,delta"` // nanoseconds
	Period     int64             `parquet:"period,delta"`
	Series     int64             `parquet:"series,delta"`
	Labels     map[string]string `parquet:"labels" parquet-key:",dict" parquet-value:",dict"`
	// Samples counts stacks.
	Samples int64   `parquet:"samples,delta"`
	Totals  []Total `parquet:"totals,list"`
}

// Total is the sum of one sample type of a profile.
type Total struct {
	Type  string `parquet:"type,dict"`
	Unit  string `parquet:"unit,dict"`
	Value int64  `parquet:"value"`
}

// Sample is a row of samples.parquet.
type Sample struct {
	Profile int64  `parquet:"profile,delta"`
	Tenant  string `parquet:"tenant,dict"`
	Service string `parquet:"service,dict"`
	Kind    string `parquet:"kind,dict"`
	Type    string `parquet:"sample_type,dict"`
	Unit    string `parquet:"sample_unit,dict"`
	Time    int64  `parquet:"time,timestamp(nanosecond),delta"`
	Series  int64  `parquet:"series,delta"`
	Value   int64  `parquet:"value,delta"`
	// Span and Trace are the request that it was taken in, as hexadecimal digits; "" if none is known. Seen is when.
	Span  string  `parquet:"span_id,dict"`
	Trace string  `parquet:"trace_id,dict"`
	Seen  []int64 `parquet:"seen,list" parquet-element:",timestamp(nanosecond)"`
	// Stack are the names of functions and Folded the same, joined by ";"; Locations are those that they come from.
	// All three are root first.
	Stack     []string `parquet:"stack,list" parquet-element:",dict"`
	Folded    string   `parquet:"folded,dict"`
	Locations []int64  `parquet:"locations,list" parquet-element:",dict"`
}

// Series is a row of series.parquet.
type Series struct {
	Series  int64             `parquet:"series,delta"`
	Tenant  string            `parquet:"tenant,dict"`
	Service string            `parquet:"service,dict"`
	Labels  map[string]string `parquet:"labels" parquet-key:",dict" parquet-value:",dict"`
}

// Function is a row of functions.parquet.
type Function struct {
	Function   int64  `parquet:"function,delta"`
	Tenant     string `parquet:"tenant,dict"`
	Name       string `parquet:"name"`
	SystemName string `parquet:"system_name"`
	File       string `parquet:"file,dict"`
	StartLine  int64  `parquet:"start_line,delta"`
}

// Location is a row of locations.parquet.
type Location struct {
	Location int64  `parquet:"location,delta"`
	Tenant   string `parquet:"tenant,dict"`
	Address  uint64 `parquet:"address"`
	Mapping  int64  `parquet:"mapping,delta"`
	Folded   bool   `parquet:"folded"`
	// Lines are those of inlined calls, root first like stacks.
	Lines []Line `parquet:"lines,list"`
}

// Line is one frame of a location.
type Line struct {
	Function int64  `parquet:"function"`
	Name     string `parquet:"name,dict"`
	File     string `parquet:"file,dict"`
	Line     int64  `parquet:"line"`
	Column   int64  `parquet:"column"`
}

// Mapping is a row of mappings.parquet.
type Mapping struct {
	Mapping         int64  `parquet:"mapping,delta"`
	Tenant          string `parquet:"tenant,dict"`
	Start           uint64 `parquet:"start"`
	Limit           uint64 `parquet:"limit"`
	Offset          uint64 `parquet:"offset"`
	File            string `parquet:"file,dict"`
	BuildID         string `parquet:"build_id,dict"`
	HasFunctions    bool   `parquet:"has_functions"`
	HasFilenames    bool   `parquet:"has_filenames"`
	HasLineNumbers  bool   `parquet:"has_line_numbers"`
	HasInlineFrames bool   `parquet:"has_inline_frames"`
}
