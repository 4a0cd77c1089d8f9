package benchring

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
)

// shapedNet is network namespaces, one for each rank, whose links to a common switch carry no more than a given rate each way: what a
// slower network between machines does to an all-reduce, on one machine.
type shapedNet struct {
	prefix string
	ranks  int
}

// rates are what tc reads as a rate.
var rates = regexp.MustCompile(`^[1-9][0-9]*(kbit|mbit|gbit)$`)

// newShapedNet makes the namespaces. It returns a missingError where that cannot be.
func newShapedNet(ctx context.Context, ranks int, rate string) (*shapedNet, error) {
	for _, tool := range []string{"ip", "tc"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, &missingError{"iproute2", "iproute2"}
		}
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("a link of a given rate needs network namespaces, which root alone can make: run it as root")
	}
	n := &shapedNet{prefix: fmt.Sprintf("gangline%d", os.Getpid()), ranks: ranks}
	steps := []string{"ip netns add " + n.hub(), "ip -n " + n.hub() + " link add br0 type bridge", "ip -n " + n.hub() + " link set br0 up"}
	for r := range ranks {
		ns, port := n.space(r), fmt.Sprintf("port%d", r)
		steps = append(steps,
			"ip netns add "+ns,
			"ip -n "+ns+" link add eth0 type veth peer name "+port+" netns "+n.hub(),
			"ip -n "+ns+" addr add "+n.host(r)+"/24 dev eth0",
			"ip -n "+ns+" link set lo up", "ip -n "+ns+" link set eth0 up",
			"ip -n "+n.hub()+" link set "+port+" master br0 up",
			// A burst of a few milliseconds, as a switch's port has; without the latency's limit the queue would be all that is sent.
			"tc -n "+ns+" qdisc add dev eth0 root tbf rate "+rate+" burst 256kb latency 50ms",
			"tc -n "+n.hub()+" qdisc add dev "+port+" root tbf rate "+rate+" burst 256kb latency 50ms",
		)
	}
	for _, step := range steps {
		words := strings.Fields(step)
		if text, err := exec.CommandContext(ctx, words[0], words[1:]...).CombinedOutput(); err != nil { //nolint:gosec // our own words
			n.remove()
			return nil, fmt.Errorf("%s: %w: %s: may this user make network namespaces here?", step, err, strings.TrimSpace(string(text)))
		}
	}
	return n, nil
}

func (n *shapedNet) hub() string           { return n.prefix + "hub" }
func (n *shapedNet) space(rank int) string { return fmt.Sprintf("%sr%d", n.prefix, rank) }
func (n *shapedNet) host(rank int) string  { return fmt.Sprintf("10.213.77.%d", rank+1) }

// within returns the command that runs another in a rank's namespace; without namespaces it is the command itself.
func (n *shapedNet) within(rank int, command ...string) []string {
	if n == nil {
		return command
	}
	return append([]string{"ip", "netns", "exec", n.space(rank)}, command...)
}

// address returns the host at which others reach a rank.
func (n *shapedNet) address(rank int) string {
	if n == nil {
		return "127.0.0.1"
	}
	return n.host(rank)
}

// device returns the network device of a rank.
func (n *shapedNet) device() string {
	if n == nil {
		return "lo"
	}
	return "eth0"
}

// remove takes all namespaces away, with what is in them.
func (n *shapedNet) remove() {
	if n == nil {
		return
	}
	for r := range n.ranks {
		_ = exec.Command("ip", "netns", "del", n.space(r)).Run() //nolint:noctx,gosec // a moment; one that was not made is not there
	}
	_ = exec.Command("ip", "netns", "del", n.hub()).Run() //nolint:noctx,gosec // as above
}
