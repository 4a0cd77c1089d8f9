package web

import (
	"fmt"
	"html/template"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gangline/gangline/scheduler/census"
	"github.com/gangline/gangline/scheduler/cluster"
)

// Bounds of the page: people read the first screen; the rest is for the command line.
const (
	maxJobs    = 100
	maxNodes   = 500
	maxQueues  = 100
	maxReasons = 5
)

// view is what the page shows.
type view struct {
	Cluster, Server, Leader, Version string
	Index                            uint64
	GPUs, Unusable                   int
	HeldMilli                        int64
	Counts                           []count
	Nodes                            []node
	MoreNodes                        int
	Jobs                             []job
	MoreJobs                         int
	Queues                           []queue
	MoreQueues                       int
	Reasons                          []census.Reason
	Stored                           []stored
	MoreStored                       int
}

// Held is how many GPUs are held, with what decimals there are.
func (v *view) Held() string { return gpus(v.HeldMilli) }

func gpus(milli int64) string {
	return strconv.FormatFloat(float64(milli/10)/100, 'f', -1, 64)
}

type count struct {
	State string
	Jobs  int
}

type node struct {
	Name, State, Reason string
	GPUs                []gpu
}

type gpu struct{ Class, Title string }

type job struct {
	ID                                            cluster.JobID
	Name, User, Queue, State, Reason, Since, GPUs string
}

// queue is one line of the tree of queues.
type queue struct {
	Path, Held, Borrowed, Quota, Waits string
	Depth, Holding, Pending            int
	Closed                             bool
}

func makeView(cfg Config) *view {
	s := cfg.State()
	v := &view{Cluster: s.ClusterID(), Server: cfg.ServerID, Version: cfg.Version, Index: s.Index()}
	v.Leader, _ = cfg.Leader()
	for _, st := range cluster.JobStates() {
		v.Counts = append(v.Counts, count{st.String(), s.Count(st)})
	}
	s.EachNode(func(n *cluster.Node) bool {
		v.addNode(n)
		return true
	})
	slices.SortFunc(v.Nodes, func(a, b node) int { return strings.Compare(a.Name, b.Name) })
	if len(v.Nodes) > maxNodes {
		v.MoreNodes = len(v.Nodes) - maxNodes
		v.Nodes = v.Nodes[:maxNodes]
	}
	s.EachJobBefore(0, func(j *cluster.Job) bool {
		since := max(j.SubmittedAt, j.PendingAt)
		if j.State.Final() {
			since = j.FinishedAt
		} else if j.State.Holding() {
			since = j.StartedAt
		}
		v.Jobs = append(v.Jobs, job{
			ID: j.ID, Name: jobName(j), User: j.User, Queue: j.Spec.Queue, State: j.State.String(), Reason: j.Reason,
			Since: ago(cfg.Now().Sub(since)), GPUs: size(j),
		})
		return len(v.Jobs) < maxJobs
	})
	v.MoreJobs = s.Jobs() - len(v.Jobs)
	v.addQueues(census.Take(s, cfg.Now(), census.Options{Reasons: maxReasons}))
	if cfg.Usage != nil {
		v.addStorage(cfg.Usage(), time.Unix(0, int64(cfg.Now())))
	}
	return v
}

// jobName is a job's name, with its index if it is a member of an array.
func jobName(j *cluster.Job) string {
	if j.Array == 0 {
		return j.Spec.Name
	}
	return fmt.Sprintf("%s[%d]", j.Spec.Name, j.ArrayIndex)
}

// size is what a job holds, or else asks for.
func size(j *cluster.Job) string {
	switch {
	case j.Spec.Shared():
		return gpus(int64(j.Spec.Share()))
	case j.State.Holding():
		return strconv.Itoa(int(j.Held()))
	case j.Spec.Elastic():
		return fmt.Sprintf("%d to %d", j.Spec.MinGPUs, j.Spec.GPUs)
	default:
		return strconv.Itoa(int(j.Spec.GPUs))
	}
}

func (v *view) addQueues(c *census.Census) {
	v.Reasons = c.Reasons
	for i := range c.Queues {
		q := &c.Queues[i]
		if len(v.Queues) == maxQueues {
			v.MoreQueues = len(c.Queues) - maxQueues
			break
		}
		line := queue{
			Path: q.Path, Depth: strings.Count(q.Path, "/"), Held: gpus(q.HeldMilli), Borrowed: gpus(q.BorrowedMilli),
			Waits: gpus(q.PendingMilli), Holding: q.Holding, Pending: q.Pending,
		}
		if q.Policy != nil {
			line.Closed = q.Policy.Closed
			var parts []string
			for _, n := range q.Policy.Quota {
				parts = append(parts, strings.TrimSpace(fmt.Sprintf("%d %s", n.GPUs, n.Type)))
			}
			line.Quota = strings.Join(parts, ", ")
		}
		v.Queues = append(v.Queues, line)
	}
}

func (v *view) addNode(n *cluster.Node) {
	out := node{Name: n.Name, State: n.State.String(), Reason: n.Reason}
	if d := n.Drain; d != nil {
		out.State = "Drained"
		if n.Holds() {
			out.State = "Draining"
		}
		out.Reason = "drained by " + d.By + ": " + d.Reason
	}
	for i := range n.GPUs {
		g := &n.GPUs[i]
		v.GPUs++
		held := int64(cluster.WholeGPU - g.FreeMilli())
		switch {
		case n.State == cluster.NodeLost:
			v.Unusable++
			out.GPUs = append(out.GPUs, gpu{"lost", g.Type + ": its node is lost"})
		case held > 0:
			v.HeldMilli += held
			class := "held"
			if held < cluster.WholeGPU {
				class = "part"
			}
			out.GPUs = append(out.GPUs, gpu{class, g.Type + ": " + holders(g)})
		case n.Drain != nil && g.Healthy:
			v.Unusable++
			out.GPUs = append(out.GPUs, gpu{"off", g.Type + ": its node is drained"})
		case !n.Usable(i):
			v.Unusable++
			out.GPUs = append(out.GPUs, gpu{"bad", g.Type + ": " + g.Reason})
		default:
			out.GPUs = append(out.GPUs, gpu{"free", g.Type + ": free"})
		}
	}
	v.Nodes = append(v.Nodes, out)
}

// holders names the jobs that hold a GPU, with their shares.
func holders(g *cluster.GPU) string {
	if g.Job != 0 {
		return fmt.Sprintf("job %d", g.Job)
	}
	var parts []string
	for _, s := range g.Shares {
		parts = append(parts, fmt.Sprintf("job %d has %s", s.Job, gpus(int64(s.Milli))))
	}
	return strings.Join(parts, ", ")
}

// ago writes a duration in one or two units.
func ago(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	default:
		return fmt.Sprintf("%d days", int(d.Hours())/24)
	}
}

// statusPage needs no script and nothing from elsewhere; browsers reload it by themselves.
//
//nolint:gochecknoglobals // table: a constant page, parsed once
var statusPage = template.Must(template.New("status").Parse(`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="5">
<title>Gangline: {{.Held}} of {{.GPUs}} GPUs held</title>
<style>
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 18%, transparent); }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 72rem; margin: 1.5rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; margin: 0 0 .3rem; } h2 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
.dim { opacity: .7; } .big { font-size: 1.5rem; font-variant-numeric: tabular-nums; }
.counts { display: flex; flex-wrap: wrap; gap: .4rem 1.6rem; margin: .8rem 0; }
table { border-collapse: collapse; width: 100%; } th { text-align: left; font-weight: 600; }
th, td { padding: .25rem .7rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.n { font-variant-numeric: tabular-nums; }
i.g { display: inline-block; width: .8rem; height: .8rem; border-radius: 2px; margin-right: 2px; border: 1px solid var(--line); }
i.held { background: #2f7d4f; } i.part { background: linear-gradient(to top, #2f7d4f 50%, transparent 50%); }
i.bad, i.lost { background: #b5483a; } i.off { background: #8a8a8a; }
.wrap { overflow-x: auto; }
</style>
</head>
<body>
<h1>Gangline</h1>
<div class="dim">cluster {{.Cluster}} · server {{.Server}} ({{.Version}}) · {{if .Leader}}leader {{.Leader}}{{else}}no leader is known{{end}} · state at index {{.Index}}</div>
<div class="counts">
<div><span class="big">{{.Held}}</span> of {{.GPUs}} GPUs held</div>
{{if .Unusable}}<div><span class="big">{{.Unusable}}</span> unusable</div>{{end}}
{{range .Counts}}<div><span class="big">{{.Jobs}}</span> {{.State}}</div>{{end}}
</div>
<h2>Nodes</h2>
{{if .Nodes}}<div class="wrap"><table>
<tr><th>Node</th><th>State</th><th>GPUs</th><th>Note</th></tr>
{{range .Nodes}}<tr><td>{{.Name}}</td><td>{{.State}}</td><td>{{range .GPUs}}<i class="g {{.Class}}" title="{{.Title}}"></i>{{end}}</td><td>{{.Reason}}</td></tr>
{{end}}</table></div>{{else}}<p>No node has joined. Start one with <code>gangline agent --server HOST:PORT</code>.</p>{{end}}
{{if .MoreNodes}}<p class="dim">and {{.MoreNodes}} more: <code>gangline nodes</code></p>{{end}}
{{if .Queues}}<h2>Queues</h2>
<div class="wrap"><table>
<tr><th>Queue</th><th>GPUs held</th><th>Borrowed</th><th>Quota</th><th>Running</th><th>Waiting</th></tr>
{{range .Queues}}<tr><td style="padding-left: {{.Depth}}rem">{{.Path}}{{if .Closed}} (closed){{end}}</td><td class="n">{{.Held}}</td><td class="n">{{.Borrowed}}</td><td class="n">{{.Quota}}</td><td class="n">{{.Holding}}</td><td class="n">{{.Pending}}{{if .Pending}} ({{.Waits}} GPUs){{end}}</td></tr>
{{end}}</table></div>{{end}}
{{if .MoreQueues}}<p class="dim">and {{.MoreQueues}} more: <code>gangline queues</code></p>{{end}}
{{if .Reasons}}<h2>Why jobs wait</h2>
<ul>{{range .Reasons}}<li>{{.Jobs}} job{{if ne .Jobs 1}}s{{end}}: {{.Text}}</li>
{{end}}</ul>{{end}}
<h2>Jobs</h2>
{{if .Jobs}}<div class="wrap"><table>
<tr><th>Job</th><th>Name</th><th>User</th><th>Queue</th><th>GPUs</th><th>State</th><th>For</th><th>Why</th></tr>
{{range .Jobs}}<tr><td class="n">{{.ID}}</td><td>{{.Name}}</td><td>{{.User}}</td><td>{{.Queue}}</td><td class="n">{{.GPUs}}</td><td>{{.State}}</td><td class="n">{{.Since}}</td><td>{{.Reason}}</td></tr>
{{end}}</table></div>{{else}}<p>No job yet. Submit one with <code>gangline submit -- COMMAND</code>.</p>{{end}}
{{if .MoreJobs}}<p class="dim">and {{.MoreJobs}} older: <code>gangline jobs --all</code></p>{{end}}
{{if .Stored}}<h2>Checkpoints on the shared storage</h2>
<div class="wrap"><table>
<tr><th>User</th><th>Size</th><th>Limit</th><th>Checkpoints</th><th>Measured</th></tr>
{{range .Stored}}<tr><td>{{.User}}</td><td class="n">{{.Size}}{{if .Over}} (over the limit){{end}}</td><td class="n">{{.Limit}}</td><td class="n">{{.Checkpoints}}</td><td class="n">{{.Measured}}</td></tr>
{{end}}</table></div>{{end}}
{{if .MoreStored}}<p class="dim">and {{.MoreStored}} users more: <code>gangline checkpoint usage</code></p>{{end}}
</body>
</html>
`))
