package replay

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"text/tabwriter"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/sim/trace"
)

// PlaceReport is what came of an order of arrivals. It is a function of config, order and nodes alone. Names are those
// of `gangline sim place --json`.
type PlaceReport struct {
	Score      string         `json:"score"`
	Partial    bool           `json:"partial"`    // it was interrupted: what follows is of what had arrived by then
	Load       float64        `json:"departures"` // 0: none
	Own        bool           `json:"own_lifetimes"`
	MeanLife   float64        `json:"mean_lifetime_s,omitempty"` // of a GPU's use, with own lifetimes
	Seed       uint64         `json:"seed"`
	Nodes      int            `json:"nodes"`
	GPUs       int64          `json:"gpus"`
	Pods       int            `json:"arrived"`
	Lost       int            `json:"lost"`
	Allocated  float64        `json:"allocated_pct"`                      // in the end; with departures the average over time
	ByArrived  []float64      `json:"allocated_pct_by_arrived,omitempty"` // the nth: once pods for n % of the GPUs had arrived
	Arrived    map[string]int `json:"arrived_by_gpus"`
	Placed     map[string]int `json:"placed_by_gpus"` // by whole GPUs; "share" of one; "0" without any
	Fragmented float64        `json:"fragmentation_pct"`
}

// shareSize is the size of pods that take less than a GPU.
const shareSize = "share"

func newSizes() map[string]int {
	return map[string]int{"0": 0, shareSize: 0, "1": 0, "2": 0, "4": 0, "8": 0}
}

func sizeOf(p *trace.Job) string {
	if p.GPUs == 1 && p.Milli < cluster.WholeGPU {
		return shareSize
	}
	return strconv.Itoa(int(p.GPUs))
}

func (r *PlaceReport) count(p *trace.Job, placed bool) {
	size := sizeOf(p)
	r.Pods++
	r.Arrived[size]++
	if placed {
		r.Placed[size]++
	} else {
		r.Lost++
	}
}

// WriteJSON writes the report as one JSON object on one line. With a Speed that the caller measured the object also has
// wall_s, placements_per_s and peak_rss_mib, and differs from run to run. It returns the error of writing.
func (r *PlaceReport) WriteJSON(w io.Writer, sp *Speed) error {
	enc := json.NewEncoder(w)
	if sp == nil {
		return enc.Encode(r)
	}
	return enc.Encode(struct {
		*PlaceReport
		Wall       float64 `json:"wall_s"`
		Placements float64 `json:"placements_per_s"`
		RSS        float64 `json:"peak_rss_mib"`
	}{r, sp.seconds(), float64(r.Pods) / sp.seconds(), float64(sp.PeakRSS) / mebibyte})
}

// WriteText writes the report for people; sp is as for WriteJSON. It returns the error of writing.
func (r *PlaceReport) WriteText(w io.Writer, sp *Speed) error {
	if r.Partial {
		fmt.Fprint(w, "PARTIAL: interrupted; what follows is of what had arrived by then\n\n")
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(t, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	row("cluster", "%d nodes, %d GPUs, score %s", r.Nodes, r.GPUs, r.Score)
	if r.Load > 0 {
		row("arrivals", "%d at a load of %g, seed %d; %d lost", r.Pods, r.Load, r.Seed, r.Lost)
		if r.Own {
			row("lifetimes", "the pods' own, %s on average over the GPUs in use", TimeText(r.MeanLife))
		}
		row("allocated", "%.2f %% of all GPUs, over time", r.Allocated)
	} else {
		row("arrivals", "%d, none leaves; %d lost", r.Pods, r.Lost)
		row("allocated", "%.2f %% of all GPUs in the end", r.Allocated)
	}
	for _, size := range []string{"0", shareSize, "1", "2", "4", "8"} {
		name := "placed, " + size + " GPUs"
		if size == shareSize {
			name = "placed, a share"
		}
		row(name, "%d of %d", r.Placed[size], r.Arrived[size])
	}
	row("fragmented", "%.2f %% of all GPUs", r.Fragmented)
	if sp != nil {
		row("speed", "%.2f s: %.0f placements/s, %d MiB", sp.seconds(), float64(r.Pods)/sp.seconds(), sp.PeakRSS/mebibyte)
	}
	return t.Flush()
}

// fragmented is how much of the free GPUs the pods of an order could not use, in thousandths of GPUs: for each kind of
// pod, weighted by how often it comes, all that is free on nodes where it does not fit, and elsewhere the GPUs that
// have too little for it (Weng et al., "Beware of Fragmentation", USENIX ATC 2023).
func (y *yard) fragmented(pods []trace.Job) float64 {
	m := mix{at: map[shape]int{}}
	for i := range pods {
		m.note(&pods[i])
	}
	sum := 0.0
	for _, n := range y.nodes {
		sum += uselessOn(n, m.kinds, m.seen)
	}
	return sum
}

// uselessOn is what is free on a node and of no use, in thousandths of GPUs, on average over what is asked for.
func uselessOn(n *cluster.Node, kinds []kind, seen int64) float64 {
	free := make([]int64, len(n.GPUs))
	all := int64(0)
	for g := range n.GPUs {
		if !n.GPUs[g].Healthy {
			continue
		}
		free[g] = int64(n.GPUs[g].FreeMilli())
		all += free[g]
	}
	if all == 0 {
		return 0
	}
	sum := int64(0)
	for i := range kinds {
		sum += kinds[i].seen * wasted(n, free, all, kinds[i].pod)
	}
	return float64(sum) / float64(seen)
}

// wasted is what is free on a node and of no use to a pod.
func wasted(n *cluster.Node, free []int64, all int64, p *trace.Job) int64 {
	fits, small := int32(0), int64(0)
	for _, f := range free {
		if f >= int64(p.Milli) {
			fits++
		} else {
			small += f
		}
	}
	if p.GPUs == 0 || fits < p.GPUs || n.CPUMilli-n.CPUUsed < p.CPU || n.MemBytes-n.MemUsed < p.Mem {
		return all
	}
	if len(p.Types) > 0 && !slices.Contains(p.Types, n.GPUs[0].Type) {
		return all
	}
	return small
}
