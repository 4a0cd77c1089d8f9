package trace

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/gangline/gangline/scheduler/cluster"
)

// nodeColumns are how a node file names what a node has. Empty: it does not tell.
type nodeColumns struct {
	name, gpus, kind, cpu, mem, rack string
	cpuScale                         int64 // thousandths of a CPU in one of its units
	memScale                         int64 // bytes in one of its units
}

// nodeKinds are the node files with a heading that are known. The first is our own, and what an unknown one is taken for.
var nodeKinds = []nodeColumns{ //nolint:gochecknoglobals // table
	{name: "node", gpus: "gpus", kind: "gpu_type", cpu: "cpu", mem: "mem_mib", rack: "rack", cpuScale: milli, memScale: mebibyte},
	{name: "sn", gpus: "gpu", kind: "model", cpu: "cpu_milli", mem: "memory_mib", cpuScale: 1, memScale: mebibyte},                   // openb_node_list_*.csv
	{name: "machine", gpus: "cap_gpu", kind: "gpu_type", cpu: "cap_cpu", mem: "cap_mem", cpuScale: milli, memScale: 1024 * mebibyte}, // pai_machine_spec
	{name: "machineId", gpus: "number of GPUs", cpuScale: milli, memScale: mebibyte},                                                 // Philly's cluster_machine_list
}

// ReadNodes reads a file of nodes: CSV with the columns node and gpus, and perhaps gpu_type, cpu, mem_mib and rack; or
// as Alibaba's openb_node_list, PAI's pai_machine_spec (which needs no heading) and Philly's cluster_machine_list name them;
// or what sinfo -N -h -o "%N %G %c %m" wrote. Nodes without GPUs are left out. All malformed rows (up to a bound) are
// told at once.
func ReadNodes(path string) ([]Node, error) {
	f, err := openText(path, nil)
	if err != nil {
		return nil, err
	}
	head := f.firstLine()
	var nodes []Node
	if isSinfo(head) {
		nodes, err = sinfoNodes(f)
	} else {
		nodes, err = tableNodes(f, head)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if len(nodes) == 0 {
		return nil, fmt.Errorf("%s: names no node with a GPU: nothing could run", path)
	}
	return nodes, nil
}

// tableNodes reads nodes from columns.
func tableNodes(f *text, head string) ([]Node, error) {
	has, c := headingOf(head, ","), nodeKinds[0]
	for _, k := range nodeKinds {
		if has.all(k.name, k.gpus) {
			c = k
			break
		}
	}
	var t *table
	err := error(nil)
	if isPAIMachine(has) {
		t, c = headless(f, paiMachineColumns), nodeKinds[2]
	} else if t, err = newTable(f, c.name, c.gpus); err != nil {
		return nil, err
	}
	var nodes []Node
	err = each(t, func() error {
		gpus, err1 := t.column(c.gpus).scaled(cluster.MaxNodeGPUs, 1)
		cpu, err2 := t.column(c.cpu).scaled(MaxCPUs*milli/float64(c.cpuScale), c.cpuScale)
		mem, err3 := t.column(c.mem).scaled(MaxMiB*mebibyte/float64(c.memScale), c.memScale)
		if err := errors.Join(err1, err2, err3); err != nil {
			return err
		}
		n := Node{
			Name: strings.Clone(t.value(c.name)), GPUs: int32(gpus), Type: t.texts.keep(t.value(c.kind)), //nolint:gosec // bounded above
			CPU: cpu, Mem: mem, Rack: t.texts.keep(t.value(c.rack)),
		}
		if n.Type == "" {
			n.Type = UnknownType
		}
		if n.GPUs > 0 {
			nodes = append(nodes, n)
		}
		return nil
	})
	return nodes, err
}

// isSinfo tells what sinfo wrote: columns between spaces, the second one generic resources.
func isSinfo(head string) bool {
	c := strings.Fields(head)
	return len(c) >= 2 && !strings.Contains(c[0], ",") && (c[1] == "GRES" || c[1] == "(null)" || strings.Contains(c[1], ":"))
}

// sinfoNodes reads what sinfo -N -h -o "%N %G %c %m" wrote, with its heading or without, and whatever follows: name,
// generic resources such as gpu:a100:8(S:0-1), CPUs, memory in MiB. A node that is in several partitions is listed
// for each, and counted once.
func sinfoNodes(f *text) ([]Node, error) {
	var nodes []Node
	seen := map[string]bool{}
	var tells []error
	for line := 1; len(tells) < maxBadToTell; line++ {
		f.begin()
		s, err := f.ReadString('\n')
		if s == "" && errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		c := strings.Fields(s)
		if len(c) == 0 || line == 1 && len(c) > 1 && c[1] == "GRES" {
			continue
		}
		n, err := sinfoNode(c)
		switch {
		case err != nil:
			tells = append(tells, fmt.Errorf("%s:%d: %w: each line must be as sinfo -N -h -o \"%%N %%G %%c %%m\" writes it", f.name, line, err))
		case n.GPUs > 0 && !seen[n.Name]:
			nodes = append(nodes, n)
		}
		seen[n.Name] = true
	}
	return nodes, errors.Join(tells...)
}

// sinfoNode reads a line of sinfo.
func sinfoNode(c []string) (Node, error) {
	if len(c) < 2 {
		return Node{}, fmt.Errorf("%q is not a node and its generic resources", brief(strings.Join(c, " ")))
	}
	n := Node{Name: c[0], Type: UnknownType}
	total := int64(0)
	for _, one := range splitGres(c[1]) {
		one, _, _ = strings.Cut(one, "(") // sockets
		parts := strings.Split(one, ":")
		if parts[0] != "gpu" {
			continue
		}
		count, err := int64(1), error(nil)
		if len(parts) > 1 {
			count, err = strconv.ParseInt(parts[len(parts)-1], 10, 64)
		}
		if total += count; err != nil || count < 0 || total > cluster.MaxNodeGPUs {
			return n, fmt.Errorf("column %%G is %q, not as gpu:a100:8, with 0..%d GPUs", brief(c[1]), cluster.MaxNodeGPUs)
		}
		if len(parts) > 2 {
			if n.Type != UnknownType && n.Type != parts[1] {
				return n, fmt.Errorf("column %%G is %q: a node has GPUs of one type here: make two nodes of it", brief(c[1]))
			}
			n.Type = parts[1]
		}
	}
	n.GPUs = int32(total) //nolint:gosec // bounded above
	for i, into := range []struct {
		to          *int64
		most, scale int64
		name        string
	}{{&n.CPU, MaxCPUs, milli, "%c"}, {&n.Mem, MaxMiB, mebibyte, "%m"}} {
		if len(c) <= i+2 {
			break
		}
		v, err := strconv.ParseInt(strings.TrimSuffix(c[i+2], "+"), 10, 64)
		if err != nil || v < 0 || v > into.most {
			return n, fmt.Errorf("column %s is %q, not a whole number in 0..%d", into.name, brief(c[i+2]), into.most)
		}
		*into.to = v * into.scale
	}
	return n, nil
}

// splitGres splits a list of generic resources by commas that are not within brackets, as in gpu:8(S:0,2),shard:16.
func splitGres(s string) []string {
	var out []string
	depth, from := 0, 0
	for i := range len(s) {
		switch s[i] {
		case '(', '[':
			depth++
		case ')', ']':
			depth--
		case ',':
			if depth == 0 {
				out = append(out, s[from:i])
				from = i + 1
			}
		}
	}
	return append(out, s[from:])
}
