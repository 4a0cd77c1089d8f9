package fleet

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/gangline/gangline/scheduler/cluster"
)

// nodes makes a fleet of nodes from lines such as "a 8 rack=r1": an id, how many
// of its 8 h100 are free, and labels; "a 8 of=4" has 4 GPUs, "cpu=3" three CPUs,
// "island" two islands, "taint=dev" a taint, "type=a100" another type.
func nodes(t *testing.T, lines ...string) *Fleet {
	t.Helper()
	f := New(cluster.ScoreBestFit, cluster.DefaultPolicy().Levels)
	for _, line := range lines {
		f.Put(node8(t, line))
	}
	return f
}

func node8(t *testing.T, line string) *cluster.Node {
	t.Helper()
	fields := strings.Fields(line)
	var free int
	n := &cluster.Node{ID: cluster.NodeID(fields[0]), Name: fields[0], State: cluster.NodeReady, CPUMilli: 1 << 40, MemBytes: 1 << 50}
	gpus, gpuType, islands := 8, "h100", 1
	if _, err := fmt.Sscan(fields[1], &free); err != nil {
		t.Fatal(err)
	}
	for _, f := range fields[2:] {
		key, value, _ := strings.Cut(f, "=")
		number := 0
		_, _ = fmt.Sscan(value, &number)
		switch key {
		case "of":
			gpus = number
		case "type":
			gpuType = value
		case "islands":
			islands = number
		case "cpu":
			n.CPUMilli = int64(number) * 1000
		case "taint":
			n.Taints = []cluster.Taint{{Key: value}}
		case "lost":
			n.State = cluster.NodeLost
		case "drain":
			n.Drain = &cluster.Drain{}
		case "rack", "block":
			n.Labels = append(n.Labels, cluster.Label{Key: "topology.gangline.dev/" + key, Value: value})
		default:
			n.Labels = append(n.Labels, cluster.Label{Key: key, Value: value})
		}
	}
	for g := range gpus {
		gpu := cluster.GPU{UUID: fmt.Sprintf("%s/%d", n.ID, g), Type: gpuType, Healthy: true, Island: int32(g * islands / gpus)}
		if g >= free {
			gpu.Job = 99
		}
		n.GPUs = append(n.GPUs, gpu)
	}
	return n
}

// show tells a placement in a line such as "a:8 b:4".
func show(parts []Part) string {
	var out []string
	for _, p := range parts {
		out = append(out, fmt.Sprintf("%s:%d", p.Node, p.GPUs))
	}
	return strings.Join(out, " ")
}

func TestRules(t *testing.T) {
	t.Parallel()
	within := func(level string, required bool) cluster.TopologyWish {
		return cluster.TopologyWish{Level: level, Required: required}
	}
	racks := []string{"a 8 block=x rack=1", "b 8 block=x rack=1", "c 8 block=x rack=2", "d 8 block=y rack=3", "e 8 block=y rack=3", "f 8 block=y rack=3", "g 8"}
	for _, c := range []struct {
		name  string
		nodes []string
		spec  cluster.JobSpec
		want  string
	}{
		{"best fit on one node", []string{"a 8", "b 3", "c 2"}, cluster.JobSpec{GPUs: 2}, "c:2"},
		{"lowest id among equals", []string{"c 4", "b 4", "a 3"}, cluster.JobSpec{GPUs: 4}, "b:4"},
		{"few nodes, roomiest first", []string{"a 3", "b 8", "c 8", "d 2"}, cluster.JobSpec{GPUs: 18}, "b:8 c:8 d:2"},
		{"all that there is", []string{"a 3", "b 8", "c 8", "d 2"}, cluster.JobSpec{GPUs: 21}, "b:8 c:8 a:3 d:2"},
		{"shape takes the least room first", []string{"a 8", "b 5", "c 4"}, cluster.JobSpec{GPUs: 8, GPUsPerNode: 4}, "c:4 b:4"},
		{"room by CPUs", []string{"a 8 cpu=2", "b 8", "c 3"}, cluster.JobSpec{GPUs: 2, CPUPerGPU: 1000}, "a:2"},
		{"the smallest domain that suffices", racks, cluster.JobSpec{GPUs: 16, Topology: within("rack", true)}, "a:8 b:8"},
		{"no domain suffices", racks, cluster.JobSpec{GPUs: 32, Topology: within("rack", true)}, ""},
		{"a wish that cannot be met stays in one wider domain", racks, cluster.JobSpec{GPUs: 24, Topology: within("rack", false)}, "d:8 e:8 f:8"},
		{"and takes its domains roomiest first", racks[:4], cluster.JobSpec{GPUs: 20, Topology: within("rack", false)}, "a:8 b:8 c:4"},
		{"few domains, then nodes without one", racks, cluster.JobSpec{GPUs: 56, Topology: within("rack", false)}, "d:8 e:8 f:8 a:8 b:8 c:8 g:8"},
		{"one node by demand", racks, cluster.JobSpec{GPUs: 16, Topology: within("node", true)}, ""},
		{"a level that nobody has", racks, cluster.JobSpec{GPUs: 1, Topology: within("hall", true)}, ""},
		{"a wish for a level that nobody has", racks, cluster.JobSpec{GPUs: 1, Topology: within("hall", false)}, "a:1"},
		{"the type preferred", []string{"a 8", "b 8 type=a100"}, cluster.JobSpec{GPUs: 1, GPUTypes: []string{"b200", "a100", "h100"}}, "b:1"},
		{"without a list the type with the fewest nodes", []string{"a 4", "b 4", "c 8 type=z"}, cluster.JobSpec{GPUs: 8}, "c:8"},
		{"then the least left over", []string{"a 8", "c 4 type=z"}, cluster.JobSpec{GPUs: 4}, "c:4"},
		{"taints", []string{"a 1 taint=dev", "b 8"}, cluster.JobSpec{GPUs: 1}, "b:1"},
		{"taints that it bears", []string{"a 1 taint=dev", "b 8"}, cluster.JobSpec{GPUs: 1, Tolerations: []string{"dev"}}, "a:1"},
		{"labels", []string{"a 1", "b 8 zone=q"}, cluster.JobSpec{GPUs: 1, Selector: []cluster.Label{{Key: "zone", Value: "q"}}}, "b:1"},
	} {
		f := nodes(t, c.nodes...)
		sh := f.Shape(&c.spec)
		if got := show(f.Place(sh, sh.GPUs, &Query{})); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestHolds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		hold Hold
		q    Query
		want bool
	}{
		{Hold{Job: 7, At: 100}, Query{Job: 7}, true},
		{Hold{Job: 7, At: 100}, Query{Job: 8}, false},
		{Hold{Job: 7, At: 100}, Query{Job: 8, End: 100}, true},
		{Hold{Job: 7, At: 100}, Query{Job: 8, End: 101}, false},
		{Hold{Job: 7}, Query{Job: 8, End: 5}, false},
		{Hold{Queue: "a", At: 100}, Query{Queue: "a"}, true},
		{Hold{Queue: "a", At: 100}, Query{Queue: "a/b"}, true},
		{Hold{Queue: "a", At: 100}, Query{Queue: "ab"}, false},
		{Hold{Queue: "a/b", At: 100}, Query{Queue: "a"}, false},
		{Hold{At: 100}, Query{Job: 1, Queue: "a"}, false},
		{Hold{At: 100}, Query{End: 99}, true},
		{Hold{Job: 7, At: 100}, Query{Any: true}, true},
	} {
		f := nodes(t, "a 8", "b 2")
		f.SetHolds("a", []Hold{c.hold})
		f.SetHolds("nobody", []Hold{c.hold})
		sh := f.Shape(&cluster.JobSpec{GPUs: 4})
		if got := f.Place(sh, 4, &c.q) != nil; got != c.want {
			t.Errorf("%+v for %+v: got %v", c.hold, c.q, got)
		}
	}
	f := nodes(t, "a 8", "b 8")
	f.SetHolds("a", []Hold{{Job: 1}, {Job: 2}})
	sh := f.Shape(&cluster.JobSpec{GPUs: 8})
	mark := f.Mark()
	if got := show(f.Place(sh, 8, &Query{Job: 1})); got != "a:8" {
		t.Errorf("a node that is kept for two jobs goes to neither: %q", got)
	}
	f.Undo(mark)
	f.SetHolds("b", []Hold{{Job: 1}, {}})
	if got := show(f.Place(sh, 8, &Query{Job: 3})) + show(f.Place(sh, 8, &Query{Job: 1})); got != "a:8" {
		t.Errorf("kept for two jobs, and for one though nobody may have it: %q", got)
	}
	f = nodes(t, "a 8", "b 8")
	f.SetHolds("b", []Hold{{Job: 1}})
	sh = f.Shape(&cluster.JobSpec{GPUs: 8})
	if got := show(f.Place(sh, 8, &Query{Job: 3, Avoid: []cluster.NodeID{"a"}})); got != "a:8" {
		t.Errorf("the last resort is not used: %q", got)
	}
}

func TestIslands(t *testing.T) {
	t.Parallel()
	for k, want := range map[int32]string{1: "[6]", 2: "[0 1]", 3: "[2 3 4]", 4: "[2 3 4 6]", 5: "[0 1 2 3 4]"} {
		n := node8(t, "a 8 islands=1")
		for g, island := range []int32{4, 4, 2, 2, 2, 7, 1, 7} {
			n.GPUs[g].Island = island
		}
		n.GPUs[5].Job, n.GPUs[7].Job = 9, 9
		f := New(cluster.ScoreBestFit, nil)
		f.Put(n)
		parts := f.Place(f.Shape(&cluster.JobSpec{GPUs: k}), k, &Query{})
		if got := fmt.Sprint(parts[0].Taken); got != want {
			t.Errorf("%d GPUs: got %s, want %s", k, got, want)
		}
	}
}

// TestWithinOnePart: a gang that asks for one NVLink island or NUMA node gets
// one, if it must or if it can; else it is told so.
func TestWithinOnePart(t *testing.T) {
	t.Parallel()
	node := func(name string, busy ...int) *cluster.Node { // islands of 4, NUMA nodes of 2, the last two GPUs are off an unknown one
		n := node8(t, name+" 8 islands=2")
		for g := range n.GPUs {
			n.GPUs[g].NUMA = int32(g / 2)
			if g >= 6 {
				n.GPUs[g].NUMA = cluster.NUMAUnknown
			}
		}
		for _, g := range busy {
			n.GPUs[g].Job = 9
		}
		return n
	}
	for _, c := range []struct {
		level    string
		required bool
		gpus     int32
		want     string
		lacks    string
	}{
		{cluster.LevelIsland, true, 4, "[b/4 b/5 b/6 b/7]", ""}, // a has more free, but not together
		{cluster.LevelIsland, true, 5, "", "enough GPUs are free, but not within one NVLink island (16 h100 GPUs: 16 alive, 10 free, the most in one NVLink island are 4 in b)"},
		{cluster.LevelIsland, false, 4, "[b/4 b/5 b/6 b/7]", ""},
		{cluster.LevelIsland, false, 5, "[a/0 a/1 a/3 a/4 a/5]", ""},
		{cluster.LevelIsland, true, 1, "[a/0]", ""},
		{cluster.LevelNUMA, true, 2, "[a/0 a/1]", ""},
		{cluster.LevelNUMA, true, 3, "", "not within one NUMA node"},
		{cluster.LevelNUMA, false, 3, "[b/4 b/5 b/7]", ""},
		{cluster.LevelNode, true, 5, "[a/0 a/1 a/3 a/4 a/5]", ""},
	} {
		f := New(cluster.ScoreBestFit, nil)
		f.Put(node("a", 2, 6))
		f.Put(node("b", 0, 1, 2, 3))
		spec := &cluster.JobSpec{GPUs: c.gpus, Topology: cluster.TopologyWish{Level: c.level, Required: c.required}}
		sh := f.Shape(spec)
		why := f.Why(sh, c.gpus, &Query{})
		got := ""
		if parts := f.Place(sh, c.gpus, &Query{}); parts != nil {
			var uuids []string
			for _, w := range f.Workers(nil, parts, cluster.LaunchPerGPU) {
				uuids = append(uuids, w.GPUs...)
			}
			got = fmt.Sprint(uuids)
		}
		if got != c.want || why.Fits() != (c.lacks == "") || !strings.Contains(why.Detail(spec), c.lacks) {
			t.Errorf("%d GPUs of one %s (required %v): got %q, want %q; %s", c.gpus, c.level, c.required, got, c.want, why.Detail(spec))
		}
	}
}

func TestSharesGoTogether(t *testing.T) {
	t.Parallel()
	f := nodes(t, "a 8", "b 2", "c 1")
	var got []string
	for range 5 {
		parts := f.Place(f.Shape(&cluster.JobSpec{GPUs: 1, GPUMilli: 300}), 1, &Query{})
		got = append(got, string(parts[0].Node))
		if f.TypeOf(parts) != "h100" {
			t.Fatal("the type is", f.TypeOf(parts))
		}
	}
	if want := []string{"c", "c", "c", "b", "b"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if s := f.Type("h100"); s != (Sum{Total: 24, Alive: 24, Open: 24, Free: 9, Milli: 9500}) {
		t.Errorf("counts are %+v", s)
	}
	var seen []string
	f.EachNode("h100", func(n *cluster.Node, free, alive int32) bool {
		seen = append(seen, fmt.Sprintf("%s %d/%d", n.ID, free, alive))
		return n.ID != "b"
	})
	if want := []string{"a 8/8", "b 1/8"}; !slices.Equal(seen, want) {
		t.Errorf("got %v, want %v", seen, want)
	}
}

func TestWorkers(t *testing.T) {
	t.Parallel()
	f := nodes(t, "a 2 of=2", "b 1 of=2")
	parts := f.Place(f.Shape(&cluster.JobSpec{GPUs: 3}), 3, &Query{})
	if got := fmt.Sprint(f.Workers(nil, parts, cluster.LaunchPerGPU)); got != "[{0 a [a/0]} {1 a [a/1]} {2 b [b/0]}]" {
		t.Error("per GPU:", got)
	}
	if got := fmt.Sprint(f.Workers(nil, parts, cluster.LaunchPerNode)); got != "[{0 a [a/0 a/1]} {1 b [b/0]}]" {
		t.Error("per node:", got)
	}
	x := parts[0].of
	x.uuids = []string{"a/0", "a/1", "a/2"}
	if next, apart := x.names([]int32{1, 2}), x.names([]int32{0, 2}); !slices.Equal(next, x.uuids[1:]) || cap(next) != 2 || !slices.Equal(apart, []string{"a/0", "a/2"}) {
		t.Error("names:", next, apart)
	}
}

func TestPutTells(t *testing.T) {
	t.Parallel()
	f := nodes(t, "a 4")
	f.Types()
	for _, c := range []struct {
		line          string
		grew, counted bool
	}{
		{"a 4", false, false},
		{"a 3", false, false},
		{"a 5", true, false},
		{"a 5 drain", false, true},
		{"a 5 lost", false, true},
		{"a 5", true, true},
		{"a 5 zone=q", true, true},
	} {
		f.Types() // answers are in between
		if grew, counted := f.Put(node8(t, c.line)); grew != c.grew || counted != c.counted {
			t.Errorf("%q: grew %v, counted %v", c.line, grew, counted)
		}
	}
}

// TestHolePrices: where one share leaves nothing, its price is its part of a
// GPU; where it blocks the rest, it costs the whole.
func TestHolePrices(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		sizes  []int
		demand []float64
		want   []float64
	}{
		{nil, nil, nil},
		{[]int{50}, []float64{3}, []float64{.5}},
		{[]int{25, 50}, []float64{3, 8}, []float64{.25, .5}},
		{[]int{81}, []float64{5}, []float64{1}},
		{[]int{40, 60}, []float64{1, 5}, []float64{0, 1}},    // the 40s fill up what the 60s leave
		{[]int{40, 60}, []float64{50, 5}, []float64{.5, .5}}, // most 40s go in pairs
		{[]int{30, 81}, []float64{1, 1}, []float64{1. / 3, 1}},
	} {
		got := holePrices(c.sizes, c.demand)
		for i := range c.want {
			if math.Abs(got[i]-c.want[i]) > 1e-9 {
				t.Errorf("%v %v: prices %v, want %v", c.sizes, c.demand, got, c.want)
				break
			}
		}
	}
}

// TestScores: with a mix, the score decides between nodes on which best fit
// would not care or would do harm.
func TestScores(t *testing.T) {
	t.Parallel()
	asked := &cluster.JobSpec{GPUs: 8, GPUsPerNode: 4, CPUPerGPU: 1000}
	for score, want := range map[cluster.ScoreName]string{
		cluster.ScoreBestFit:  "a:1", // of equals the first by id
		cluster.ScoreFGD:      "b:1", // a could still take one of four GPUs
		cluster.ScoreGangline: "b:1",
	} {
		f := New(score, nil)
		for _, line := range []string{"a 4 cpu=4", "b 4 cpu=3"} {
			f.Put(node8(t, line))
		}
		f.SetMix([]MixItem{f.Shape(asked).Item(3)}, 0)
		sh := f.Shape(&cluster.JobSpec{GPUs: 1})
		if got := show(f.Place(sh, 1, &Query{})); got != want {
			t.Errorf("%s: got %s, want %s", score, got, want)
		}
	}
}

// TestAside: what needs CPUs alone goes where no free GPU will miss them.
func TestAside(t *testing.T) {
	t.Parallel()
	f := New(cluster.ScoreGangline, nil)
	for _, line := range []string{"a 4 cpu=5", "b 0 cpu=5", "c 2 cpu=5"} {
		f.Put(node8(t, line))
	}
	f.SetMix([]MixItem{{GPUs: 1, Share: 1000, CPU: 1000, Weight: 1}}, 0)
	for cpu, want := range map[int64]cluster.NodeID{4000: "b", 6000: ""} {
		if got := f.Aside(cpu, 0); got != want {
			t.Errorf("%d: got %q, want %q", cpu, got, want)
		}
	}
}

// TestEmptied: that a node may become wholly free counts where jobs come and go
// and somebody asks for whole nodes, and the more the emptier it is.
func TestEmptied(t *testing.T) {
	t.Parallel()
	small, large := MixItem{GPUs: 1, Share: 1000, Weight: 152}, MixItem{GPUs: 64, Share: 1000, Weight: 1}
	for _, c := range []struct {
		mix   []MixItem
		churn int32
		first float64 // worth of a node of which nothing is in use
	}{
		{[]MixItem{small}, 1000, 0},
		{[]MixItem{small, large}, 0, 0},
		{[]MixItem{small, large}, 500, 2000},
		{[]MixItem{{GPUs: 1, Share: 1000, Weight: 3136}, large}, 1000, 1600}, // a fiftieth of the GPU time
	} {
		f := nodes(t, "a 8", "b 2 of=2")
		f.settle()
		f.SetMix(c.mix, c.churn)
		volume := 0.0
		for _, m := range c.mix {
			volume += float64(m.Weight) * float64(m.GPUs)
		}
		size, worth := f.emptied(volume)
		switch {
		case c.first == 0 && worth != nil, c.first > 0 && (size != 8 || len(worth) != 9 || math.Abs(worth[0]-c.first) > 1e-6):
			t.Errorf("%v, churn %d: %d GPUs, %v; want %g first", c.mix, c.churn, size, worth, c.first)
		case c.first > 0 && math.Abs(worth[2]-c.first*(1./4)*(2./5)) > 1e-6:
			t.Errorf("with two GPUs in use: %g of %g", worth[2], worth[0])
		}
	}
}
