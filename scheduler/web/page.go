package web

import (
	"fmt"
	"html/template"
	"slices"
	"strings"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// Bounds of the page: people read the first screen; the rest is for the command line.
const (
	maxJobs  = 100
	maxNodes = 500
)

// view is what the page shows.
type view struct {
	Cluster, Server, Leader, Version string
	Index                            uint64
	GPUs, Held, Unusable             int
	Counts                           []count
	Nodes                            []node
	MoreNodes                        int
	Jobs                             []job
	MoreJobs                         int
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
	ID                                      cluster.JobID
	Name, User, Queue, State, Reason, Since string
	GPUs                                    int32
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
			ID: j.ID, Name: j.Spec.Name, User: j.User, Queue: j.Spec.Queue, State: j.State.String(), Reason: j.Reason,
			Since: ago(cfg.Now().Sub(since)), GPUs: j.Spec.GPUs,
		})
		return len(v.Jobs) < maxJobs
	})
	v.MoreJobs = s.Jobs() - len(v.Jobs)
	return v
}

func (v *view) addNode(n *cluster.Node) {
	out := node{Name: n.Name, State: n.State.String(), Reason: n.Reason}
	for i := range n.GPUs {
		g := &n.GPUs[i]
		v.GPUs++
		switch {
		case n.State == cluster.NodeLost:
			v.Unusable++
			out.GPUs = append(out.GPUs, gpu{"lost", g.Type + ": its node is lost"})
		case g.Job != 0:
			v.Held++
			out.GPUs = append(out.GPUs, gpu{"held", fmt.Sprintf("%s: job %d", g.Type, g.Job)})
		case !n.Usable(i):
			v.Unusable++
			out.GPUs = append(out.GPUs, gpu{"bad", g.Type + ": " + g.Reason})
		default:
			out.GPUs = append(out.GPUs, gpu{"free", g.Type + ": free"})
		}
	}
	v.Nodes = append(v.Nodes, out)
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
i.held { background: #2f7d4f; } i.bad, i.lost { background: #b5483a; }
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
<h2>Jobs</h2>
{{if .Jobs}}<div class="wrap"><table>
<tr><th>Job</th><th>Name</th><th>User</th><th>Queue</th><th>GPUs</th><th>State</th><th>For</th><th>Why</th></tr>
{{range .Jobs}}<tr><td class="n">{{.ID}}</td><td>{{.Name}}</td><td>{{.User}}</td><td>{{.Queue}}</td><td class="n">{{.GPUs}}</td><td>{{.State}}</td><td class="n">{{.Since}}</td><td>{{.Reason}}</td></tr>
{{end}}</table></div>{{else}}<p>No job yet. Submit one with <code>gangline submit -- COMMAND</code>.</p>{{end}}
{{if .MoreJobs}}<p class="dim">and {{.MoreJobs}} older: <code>gangline jobs --all</code></p>{{end}}
</body>
</html>
`))
