package main

import (
	"context"
	"fmt"
	"io"
	"sort"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kilndb/kiln/block"
	"github.com/kilndb/kiln/block/inspect"
)

// inspectCommand is `kiln block inspect`.
type inspectCommand struct {
	located
	Sections bool   `help:"List every section of every group, and not only what they add up to. JSON always does."`
	Output   string `short:"o" enum:"text,json" default:"text" help:"text or json."`
}

// Run prints the report as JSON or as tables.
func (c *inspectCommand) Run(ctx context.Context, out output) error {
	return c.use(ctx, func(src block.Source) error {
		r, err := inspect.Inspect(ctx, src)
		if err != nil {
			return err
		}
		if c.Output == "json" {
			return printIndented(out, r)
		}
		if err := printObject(out, r); err != nil {
			return err
		}
		if c.Sections {
			if err := printSections(out, r); err != nil {
				return err
			}
		}
		return printDatasets(out, r)
	})
}

// printObject prints what the footer says, and what each type of section and column takes.
func printObject(out io.Writer, r *inspect.Report) error {
	what := "segment"
	if r.Level > 0 {
		what = "block"
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%s\t%s\n", what, clip(r.ID, 0))
	fmt.Fprintf(w, "key\t%s\n", clip(r.Key, 0))
	fmt.Fprintf(w, "level\t%d\n", r.Level)
	fmt.Fprintf(w, "tenant\t%s\n", clip(tenants(r), 0))
	fmt.Fprintf(w, "shard\t%d\n", r.Shard)
	fmt.Fprintf(w, "time\t%s to %s (%s)\n", r.MinTime.Format(time.RFC3339Nano), r.MaxTime.Format(time.RFC3339Nano), r.MaxTime.Sub(r.MinTime))
	fmt.Fprintf(w, "writer\t%s\n", clip(r.Writer, 0))
	fmt.Fprintf(w, "sources\t%d %s\n", len(r.Sources), cut(strings.Join(r.Sources, " "), width()-14))
	fmt.Fprintf(w, "size\t%s (%d bytes)\n", size(r.Size), r.Size)
	fmt.Fprintf(w, "holds\t%d groups, %d datasets\n", len(r.Groups), len(r.Datasets))
	if err := w.Flush(); err != nil {
		return err
	}
	w = tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "\nstored\t%%\traw\tratio\tsections\t  %-26s\tencoding\n", "what")
	for _, t := range r.Totals {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t  %-26s\t\n", size(t.Stored), percent(t.Stored, r.Size), size(t.Raw), ratio(t.Raw, t.Stored), t.Sections, t.Type)
		for _, c := range t.Columns {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t\t    %-24s\t%s\n", size(c.Stored), percent(c.Stored, r.Size), size(c.Raw), ratio(c.Raw, c.Stored),
				clip(c.Name, 40), c.Encoding)
		}
	}
	fmt.Fprintf(w, "%s\t%s\t%s\t\t\t  %-26s\t\n", size(r.Footer), percent(r.Footer, r.Size), size(r.Footer), "footer")
	if err := w.Flush(); err != nil {
		return err
	}
	return printProblems(out, r)
}

// tenants lists whose data it is.
func tenants(r *inspect.Report) string {
	if r.Tenant != "" {
		return r.Tenant
	}
	var all []string
	for _, d := range r.Datasets {
		if len(all) == 0 || all[len(all)-1] != d.Tenant {
			all = append(all, d.Tenant)
		}
	}
	if n := len(all); n > 10 {
		return fmt.Sprintf("%s and %d more", strings.Join(all[:10], ", "), n-10)
	}
	return strings.Join(all, ", ")
}

// printProblems says which sections could not be taken apart.
func printProblems(out io.Writer, r *inspect.Report) error {
	for i, g := range r.Groups {
		for _, s := range g.Sections {
			if s.Problem != "" {
				if _, err := fmt.Fprintf(out, "\n%s of group %d at byte %d: %s\n", s.Type, i, s.Offset, clip(s.Problem, 0)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// printSections lists the sections in the order they stand in.
func printSections(out io.Writer, r *inspect.Report) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\ngroup\toffset\tstored\traw\tratio\tcrc\t  section")
	for i, g := range r.Groups {
		for _, s := range g.Sections {
			fmt.Fprintf(w, "%d\t%d\t%s\t%s\t%s\t%s\t  %s\n", i, s.Offset, size(s.Stored), size(s.Raw), ratio(s.Raw, s.Stored), s.CRC, cut(sectionText(g, s), width()-58))
		}
	}
	return w.Flush()
}

// sectionText names a section, whose it is and how many of everything it holds.
func sectionText(g inspect.Group, s inspect.Section) string {
	parts := []string{s.Type}
	if s.Type == "SYMBOLS" { // the first of its group
		parts = append(parts, g.Tenant)
	}
	for _, owner := range []string{s.Service, s.Kind} {
		if owner != "" {
			parts = append(parts, owner)
		}
	}
	var counts []string
	for name := range s.Counts {
		counts = append(counts, name)
	}
	sort.Strings(counts)
	for i, name := range counts {
		counts[i] = fmt.Sprintf("%d %s", s.Counts[name], name)
	}
	return strings.Join(parts, " ") + "  " + strings.Join(counts, ", ")
}

// printDatasets lists services and kinds with what they cost.
func printDatasets(out io.Writer, r *inspect.Report) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\nprofiles\tsamples\tstored\tper profile\tgroup\t  tenant, service, kind: sums")
	for _, d := range r.Datasets {
		fmt.Fprintf(w, "%s\t%d\t  %s\n", cost(d.Cost), d.Group, cut(d.Tenant+" "+d.Service, width()-49))
		for _, k := range d.Kinds {
			sums := make([]string, len(k.Sums))
			for i, s := range k.Sums {
				sums[i] = s.Type + " " + quantity(float64(s.Sum), s.Unit)
			}
			fmt.Fprintf(w, "%s\t\t    %s\n", cost(k.Cost), cut(k.Name+": "+strings.Join(sums, ", "), width()-51))
		}
	}
	return w.Flush()
}

func cost(c inspect.Cost) string {
	return fmt.Sprintf("%d\t%d\t%s\t%s", c.Profiles, c.Samples, size(c.Stored), quantity(c.BytesPerProfile, "bytes"))
}

// cut shortens a list to n columns: its end goes.
func cut(s string, n int) string {
	r := []rune(clip(s, 0))
	if len(r) <= n {
		return string(r)
	}
	return string(r[:n-1]) + "…"
}

func size(n int64) string { return quantity(float64(n), "bytes") }

// ratio is how many times smaller something is stored than it is.
func ratio(raw, stored int64) string {
	if stored == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", float64(raw)/float64(stored))
}
