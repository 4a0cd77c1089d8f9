package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/remote"
)

// ckptView is one checkpoint as --json prints it.
type ckptView struct {
	Name     string             `json:"name"`
	Path     string             `json:"path"`
	Step     uint64             `json:"step"`
	Epoch    uint64             `json:"epoch"`
	State    string             `json:"state"` // complete, local, damaged, refused, writing, abandoned
	Problem  string             `json:"problem,omitempty"`
	Job      string             `json:"job,omitempty"`
	Kind     string             `json:"kind,omitempty"` // shards, files
	Ranks    int                `json:"ranks,omitempty"`
	Files    int                `json:"files,omitempty"`
	Tensors  int                `json:"tensors,omitempty"`
	Bytes    int64              `json:"bytes"`          // of its own files
	Referred int64              `json:"referred_bytes"` // of earlier checkpoints' files that it refers to
	RefersTo []string           `json:"refers_to,omitempty"`
	UsedBy   []string           `json:"used_by,omitempty"`           // later checkpoints that refer to it
	Key      string             `json:"key,omitempty"`               // id of the key that its shards are encrypted with
	AuthKey  string             `json:"authenticated_key,omitempty"` // id of the key that its manifest names; checked where --key is given
	SavedMS  int64              `json:"saved_unix_ms,omitempty"`
	Metrics  map[string]float64 `json:"metrics,omitempty"`
	Meta     map[string]string  `json:"meta,omitempty"`
	Pinned   bool               `json:"pinned"`
	Copy     string             `json:"copy,omitempty"` // its address in the object store
	ReadBy   string             `json:"read_by,omitempty"`
	manifest *checkpoint.Manifest
}

func (d *ckptDir) view(f checkpoint.Found) ckptView {
	v := ckptView{
		Name: f.Ref.String(), Path: d.path + "/" + f.Dir, Step: f.Ref.Step, Epoch: f.Ref.Epoch, Pinned: f.Pinned, ReadBy: f.Reader, UsedBy: f.Users,
	}
	switch {
	case errors.Is(f.Err, checkpoint.ErrKey), errors.Is(f.Err, checkpoint.ErrUnauthenticated):
		v.State, v.Problem = "refused", f.Err.Error()
	case f.Err != nil:
		v.State, v.Problem = "damaged", f.Err.Error()
	case f.Complete:
		v.State = "complete"
	case f.Local:
		v.State = "local"
	case f.Sealed:
		v.State = "abandoned"
	default:
		v.State = "writing"
	}
	m := f.Manifest
	if m == nil {
		return v
	}
	v.manifest = m
	v.Job, v.Bytes, v.SavedMS, v.Metrics, v.Meta = m.Job, m.Bytes(), m.SavedMS, m.Metrics, m.Meta
	v.Referred, v.Key, v.AuthKey = m.ReferredBytes(), m.KeyID(), m.AuthKey
	for _, ref := range m.Refs() {
		v.RefersTo = append(v.RefersTo, ref.String())
	}
	v.Kind, v.Ranks, v.Tensors = "shards", m.WorldSize, len(m.TensorNames())
	if m.WorldSize == 0 {
		v.Kind, v.Files = "files", len(m.Files)
	}
	return v
}

// holds says in a word what is in it.
func (v *ckptView) holds() string {
	switch v.Kind {
	case "files":
		return plural(v.Files, "file")
	case "shards":
		return plural(v.Tensors, "tensor") + " of " + plural(v.Ranks, "rank")
	}
	return "-"
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func (a *app) ckptList(t *ckptTarget) *cobra.Command {
	return &cobra.Command{
		Use: "ls [JOB]", Short: "List checkpoints, the one that a resume prefers first", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := a.openCheckpoints(cmd.Context(), t.orJob(args))
			if err != nil {
				return err
			}
			found, err := d.store.Inventory(cmd.Context(), time.Now())
			if err != nil {
				return err
			}
			copies := remote.Marks(d.path)
			rows := [][]string{{"STEP", "EPOCH", "STATE", "SAVED", "SIZE", "HOLDS", "METRICS", "NOTES"}}
			for _, f := range found {
				v := d.view(f)
				v.Copy = copies[f.Ref]
				if a.json {
					if err := json.NewEncoder(a.out).Encode(v); err != nil {
						return err
					}
					continue
				}
				rows = append(rows, []string{
					fmt.Sprint(v.Step), fmt.Sprint(v.Epoch), v.State, v.savedText(), checkpoint.BytesText(v.Bytes), v.holds(), metricsText(v.Metrics), v.notes(),
				})
			}
			switch {
			case a.json:
				return nil
			case len(rows) == 1:
				a.statef("%s holds no checkpoint", d.path)
				return nil
			}
			return table(a.out, rows)
		},
	}
}

// orJob takes a job's number as the only argument, for verbs that need nothing else.
func (t *ckptTarget) orJob(args []string) *ckptTarget {
	if len(args) == 0 {
		return t
	}
	both := *t
	if both.job == "" {
		both.job = args[0]
	}
	return &both
}

func (v *ckptView) savedText() string {
	if v.SavedMS == 0 {
		return "-"
	}
	return age(v.SavedMS*int64(time.Millisecond)) + " ago"
}

func (v *ckptView) notes() string {
	var notes []string
	if v.Copy != "" {
		notes = append(notes, "copy in "+v.Copy)
	}
	if v.Pinned {
		notes = append(notes, "pinned")
	}
	if v.ReadBy != "" {
		notes = append(notes, "being read by "+v.ReadBy)
	}
	if len(v.RefersTo) > 0 {
		notes = append(notes, checkpoint.BytesText(v.Referred)+" in "+strings.Join(v.RefersTo, ", "))
	}
	if len(v.UsedBy) > 0 {
		notes = append(notes, "kept for "+plural(len(v.UsedBy), "later one"))
	}
	switch {
	case v.Key != "" && v.Key == v.AuthKey:
		notes = append(notes, "encrypted and authenticated with key "+v.Key)
	case v.Key != "":
		notes = append(notes, "encrypted with key "+v.Key+", not authenticated with it")
	case v.AuthKey != "":
		notes = append(notes, "authenticated with key "+v.AuthKey)
	}
	if v.Problem != "" {
		notes = append(notes, clip(strings.TrimPrefix(v.Problem, v.Name+"/MANIFEST.json: "), 120))
	}
	return strings.Join(notes, ", ")
}

func (a *app) ckptShow(t *ckptTarget) *cobra.Command {
	return &cobra.Command{
		Use: "show CHECKPOINT", Short: "Show all about one checkpoint: its tensors or files", Args: exactArgs(1, "one checkpoint, such as 500 or latest"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			d, err := a.openCheckpoints(ctx, t)
			if err != nil {
				return err
			}
			ref, err := d.pick(ctx, args[0])
			if err != nil {
				return err
			}
			found, err := d.store.Inventory(ctx, time.Now())
			if err != nil {
				return err
			}
			i := slices.IndexFunc(found, func(f checkpoint.Found) bool { return f.Ref == ref && f.Complete })
			if i < 0 {
				return fmt.Errorf("%s was removed just now", ref)
			}
			if found[i].Err != nil {
				return found[i].Err
			}
			v := d.view(found[i])
			if a.json {
				return json.NewEncoder(a.out).Encode(struct {
					ckptView
					TensorList []tensorView          `json:"tensor_list,omitempty"`
					FileList   []checkpoint.FileInfo `json:"file_list,omitempty"`
				}{v, tensorsOf(v.manifest), v.manifest.Files})
			}
			return a.printCheckpoint(&v)
		},
	}
}

// tensorView is one tensor, whole, as --json prints it.
type tensorView struct {
	Name  string           `json:"name"`
	DType checkpoint.DType `json:"dtype"`
	Shape []int64          `json:"shape"`
	Bytes int64            `json:"bytes"`
	Parts int              `json:"parts"`        // ranks that wrote a part of it
	In    []string         `json:"in,omitempty"` // earlier checkpoints that hold some of it, or what it is a difference to
}

func tensorsOf(m *checkpoint.Manifest) []tensorView {
	byName := map[string]*tensorView{}
	for i := range m.Shards {
		for _, t := range m.Shards[i].Tensors {
			v := byName[t.Name]
			if v == nil {
				v = &tensorView{Name: t.Name, DType: t.DType, Shape: t.Global, Bytes: t.DType.Size()}
				for _, d := range t.Global {
					v.Bytes *= d
				}
				byName[t.Name] = v
			}
			v.Parts++
			if n := max(t.From, t.Base); n > 0 {
				if in := m.Shards[i].Origins[n-1].Ref().String(); !slices.Contains(v.In, in) {
					v.In = append(v.In, in)
				}
			}
		}
	}
	out := make([]tensorView, 0, len(byName))
	for _, name := range m.TensorNames() {
		out = append(out, *byName[name])
	}
	return out
}

func (a *app) printCheckpoint(v *ckptView) error {
	rows := [][]string{
		{"Checkpoint", v.Name},
		{"Path", v.Path},
		{"Job", v.Job},
		{"Saved", timestamp(v.SavedMS * int64(time.Millisecond))},
		{"Size", checkpoint.BytesText(v.Bytes)},
		{"Holds", v.holds()},
	}
	add := func(name, value string) {
		if value != "" {
			rows = append(rows, []string{name, value})
		}
	}
	add("Metrics", metricsText(v.Metrics))
	add("Notes", v.notes())
	for _, k := range sortedKeys(v.Meta) {
		add("Meta", fmt.Sprintf("%q = %q", k, clip(v.Meta[k], 200)))
	}
	if err := table(a.out, rows); err != nil {
		return err
	}
	fmt.Fprintln(a.out)
	if v.Kind == "files" {
		rows = [][]string{{"FILE", "SIZE"}}
		for _, f := range v.manifest.Files {
			rows = append(rows, []string{printable(f.Name), checkpoint.BytesText(f.Bytes)})
		}
		return table(a.out, rows)
	}
	rows = [][]string{{"TENSOR", "TYPE", "SHAPE", "SIZE", "PARTS"}}
	if len(v.RefersTo) > 0 {
		rows[0] = append(rows[0], "IN")
	}
	for _, x := range tensorsOf(v.manifest) {
		row := []string{printable(x.Name), string(x.DType), fmt.Sprint(x.Shape), checkpoint.BytesText(x.Bytes), fmt.Sprint(x.Parts)}
		if len(v.RefersTo) > 0 {
			row = append(row, strings.Join(x.In, ", "))
		}
		rows = append(rows, row)
	}
	return table(a.out, rows)
}

// printable quotes a name that would disturb a terminal or a table.
func printable(name string) string {
	if q := fmt.Sprintf("%q", name); q != `"`+name+`"` {
		return q
	}
	return name
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
