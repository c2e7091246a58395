package process

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/kilndb/kiln/benchmarks/workload"
)

// bePaced makes the test program gunzip profiles at the pace and for as long as BenchmarkTwentyProfilesASecond pushes them, and print
// what that took for a byte.
const bePaced = "KILN_BENCH_BE_PACED"

const (
	lowRate = 20 // profiles a second
	lowSpan = 30 * time.Second
)

func lowProfiles() []workload.Sent { return workload.Perturbed(lowRate * int(lowSpan/time.Second)) }

// paced gunzips a profile when it is due and sleeps until the next one is. It finds its caches cold, as a server does.
func paced() {
	profiles := lowProfiles()
	var g workload.Gunzipper
	if err := g.All(profiles[:20]); err != nil {
		panic(err)
	}
	raw, begun, before := 0, time.Now(), workload.CPU()
	for i, p := range profiles {
		time.Sleep(time.Until(begun.Add(time.Duration(i) * time.Second / lowRate)))
		if err := g.All([]workload.Sent{p}); err != nil {
			panic(err)
		}
		raw += p.Raw
	}
	fmt.Println(float64(workload.CPU()-before) / float64(raw))
}

// startPaced runs paced in a process of its own, and returns how to wait for the CPU time that a byte took.
func startPaced(b *testing.B) (perByte func() float64) {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), bePaced+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	return func() (cost float64) {
		if _, err := fmt.Fscan(out, &cost); err != nil {
			b.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			b.Fatal(err)
		}
		return cost
	}
}
