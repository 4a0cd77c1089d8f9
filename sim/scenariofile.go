package sim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
)

// layOut writes the parts of a scenario in their order, one line for each element of a list.
func layOut(tree map[string]json.RawMessage) ([]byte, error) {
	var out bytes.Buffer
	out.WriteString("{")
	first := true
	for _, key := range [...]string{"gangline_scenario", "commit", "seed", "error", "setting", "nodes", "policy", "jobs", "faults", "mishaps"} {
		raw, ok := tree[key]
		if !ok {
			continue
		}
		if !first {
			out.WriteString(",")
		}
		first = false
		fmt.Fprintf(&out, "\n  %q: ", key)
		var list []json.RawMessage
		if raw[0] != '[' || key == "mishaps" {
			lean, err := pruned(raw, key == "mishaps")
			if err != nil {
				return nil, err
			}
			out.Write(lean)
			continue
		}
		if err := json.Unmarshal(raw, &list); err != nil {
			return nil, err
		}
		out.WriteString("[")
		for i, x := range list {
			lean, err := pruned(x, false)
			if err != nil {
				return nil, err
			}
			if i > 0 {
				out.WriteString(",")
			}
			out.WriteString("\n    ")
			out.Write(lean)
		}
		out.WriteString("\n  ]")
	}
	out.WriteString("\n}\n")
	return out.Bytes(), nil
}

// pruned drops fields without a value, whose zero reading gives back.
func pruned(raw json.RawMessage, whole bool) ([]byte, error) {
	if whole {
		return raw, nil
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	return json.Marshal(prune(v))
}

func prune(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v { // any order: each is judged alone
			if x = prune(x); empty(x) {
				delete(v, k)
			} else {
				v[k] = x
			}
		}
	case []any: // elements keep their places
		for i := range v {
			v[i] = prune(v[i])
		}
	}
	return v
}

func empty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case bool:
		return !v
	case string:
		return v == "" || v == "0s"
	case json.Number:
		return v == "0"
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return false
}

// maxScenarioBytes bounds a scenario's file: some hundred thousand jobs.
const maxScenarioBytes = 256 << 20

// ReadScenario reads what Encode wrote. An unknown field, a value of the wrong kind and a scenario that Validate refuses
// are errors, with the line and column where the file is not what it should be.
func ReadScenario(r io.Reader) (*Scenario, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxScenarioBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxScenarioBytes {
		return nil, fmt.Errorf("a scenario has at most %d MiB", maxScenarioBytes>>20)
	}
	sc := &Scenario{}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(sc); err != nil {
		at := dec.InputOffset()
		var syntax *json.SyntaxError
		var kind *json.UnmarshalTypeError
		switch {
		case errors.As(err, &syntax):
			at = syntax.Offset
		case errors.As(err, &kind):
			at = kind.Offset
		}
		line, col := place(data, at)
		return nil, fmt.Errorf("line %d, column %d: not a scenario: %w", line, col, err)
	}
	if err := sc.Validate(); err != nil {
		return nil, err
	}
	return sc, nil
}

// place is the line and column of an offset, from 1.
func place(data []byte, at int64) (line, col int) {
	before := data[:min(max(int(at), 0), len(data))]
	return 1 + bytes.Count(before, []byte("\n")), len(before) - bytes.LastIndexByte(before, '\n')
}

// clone copies a scenario so that its lists can be changed. What the lists point to is shared, and never changed.
func (sc *Scenario) clone() *Scenario {
	c := *sc
	c.Machines = append([]Machine(nil), sc.Machines...)
	c.Jobs = append([]Submission(nil), sc.Jobs...)
	c.Faults = append([]Happening(nil), sc.Faults...)
	if sc.Mishaps != nil {
		m := *sc.Mishaps
		c.Mishaps = &m
	}
	return &c
}

// same reports whether two scenarios are equal.
func (sc *Scenario) same(o *Scenario) bool { return reflect.DeepEqual(sc, o) }
