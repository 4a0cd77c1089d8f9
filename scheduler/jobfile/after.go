package jobfile

import (
	"fmt"
	"regexp"
	"strconv"

	"go.yaml.in/yaml/v4"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/yamlfile"
)

// afterForm is a condition and a job, or a member of an array by its index:
// ok:12, any:12_3. A number alone means ok.
var afterForm = regexp.MustCompile(`^(?:([a-z]+):)?([1-9]\d{0,17})(?:_(\d{1,9}))?$`)

// setAfter reads dependencies: a list, or words with commas.
func setAfter(s *schedulerv1.JobSpec, n *yaml.Node) error {
	var words []string
	if err := list(func(*schedulerv1.JobSpec) *[]string { return &words })(s, n); err != nil {
		return err
	}
	s.After = nil
	for _, w := range words {
		d, err := parseAfter(w)
		if err != nil {
			return yamlfile.At(n, "%s", err)
		}
		s.After = append(s.After, d)
	}
	return nil
}

func parseAfter(word string) (*schedulerv1.Dependency, error) {
	m := afterForm.FindStringSubmatch(word)
	if m == nil {
		return nil, fmt.Errorf("%q is not a job to wait for such as ok:12, notok:12, any:12, or ok:12_3 (index 3 of array 12)", word)
	}
	d := &schedulerv1.Dependency{Condition: schedulerv1.Condition_CONDITION_OK}
	d.Job, _ = strconv.ParseUint(m[2], 10, 64) // at most 18 digits
	if m[3] != "" {
		i, _ := strconv.ParseInt(m[3], 10, 32) // at most nine digits
		index := int32(i)
		d.Index = &index
	}
	switch m[1] {
	case "", "ok":
	case "notok":
		d.Condition = schedulerv1.Condition_CONDITION_NOT_OK
	case "any":
		d.Condition = schedulerv1.Condition_CONDITION_ANY
	case "each":
		if d.Each = true; d.Index != nil {
			return nil, fmt.Errorf("%q: each waits member by member: name the array alone, each:%d", word, d.GetJob())
		}
	default:
		return nil, fmt.Errorf("%q: %q is not a condition: allowed are ok, notok, any and each%s", word, m[1], slurmWord(m[1]))
	}
	return d, nil
}

// slurmWord tells those who come from Slurm which word they mean.
func slurmWord(word string) string {
	ours := map[string]string{"afterok": "ok", "afternotok": "notok", "afterany": "any", "aftercorr": "each"}[word]
	if ours == "" {
		return ""
	}
	return fmt.Sprintf(" (%s is %s here)", word, ours)
}
