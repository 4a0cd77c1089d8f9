package census

import (
	"cmp"
	"slices"
	"strings"

	"github.com/gangline/gangline/scheduler/cluster"
)

// Reason is why some pending jobs wait.
type Reason struct {
	Text  string        // a sentence; what differs only in the GPUs asked for is one reason
	Jobs  int           // how many wait for it
	Milli int64         // milli-GPUs that they would like to have
	First cluster.JobID // the oldest of them
}

// reasons counts by text.
type reasons struct {
	opt    Options
	byText map[string]*Reason
}

func (r *reasons) add(j *cluster.Job) {
	if r.opt.Reasons <= 0 {
		return
	}
	x := r.byText[j.Reason]
	if x == nil {
		x = &Reason{Text: j.Reason, First: j.ID}
		r.byText[j.Reason] = x
	}
	x.count(Reason{Jobs: 1, Milli: wanted(j), First: j.ID})
}

func (r *Reason) count(o Reason) {
	r.Jobs += o.Jobs
	r.Milli += o.Milli
	r.First = min(r.First, o.First)
}

// list joins reasons that differ only in the GPUs asked for, and returns the
// most common ones and the rest together.
func (r *reasons) list(st *cluster.State) (most []Reason, others Reason) {
	joined := map[string]*Reason{}
	for text, x := range r.byText {
		if j := st.Job(x.First); j != nil {
			text = general(text, j.Spec)
		}
		if same := joined[text]; same != nil {
			same.count(*x)
			continue
		}
		x.Text = text
		joined[text] = x
	}
	for _, x := range joined {
		most = append(most, *x)
	}
	slices.SortFunc(most, func(a, b Reason) int {
		return cmp.Or(cmp.Compare(b.Jobs, a.Jobs), cmp.Compare(b.Milli, a.Milli), cmp.Compare(a.Text, b.Text))
	})
	if keep := max(r.opt.Reasons, 0); len(most) > keep {
		for _, x := range most[keep:] {
			if others.Jobs == 0 {
				others.First = x.First
			}
			others.count(x)
		}
		most = most[:keep]
	}
	return most, others
}

// general takes what a job asks for out of its reason, so that jobs of all
// sizes that wait for one thing have one reason.
func general(reason string, spec *cluster.JobSpec) string {
	return strings.Replace(reason, spec.Wants(), "their GPUs", 1)
}
