package discovery

import (
	"errors"
	"fmt"
	"net"
	"strings"
)

// Server is one scheduler server of a static list.
type Server struct {
	ID      string // 1..64 bytes
	Address string // host:port for the API, agents and Raft
}

// Parse reads a list of ID=HOST:PORT. It returns all problems at once, joined:
// a wrong form, an id or an address given twice, a number of servers that Raft
// cannot use well. An empty list is fine: a server alone.
func Parse(list []string) ([]Server, error) {
	var out []Server
	var errs []error
	ids, addresses := map[string]bool{}, map[string]bool{}
	for _, item := range list {
		id, address, ok := strings.Cut(item, "=")
		host, port, err := net.SplitHostPort(address)
		switch {
		case !ok || id == "" || err != nil || host == "" || port == "":
			errs = append(errs, fmt.Errorf("%q is not of the form ID=HOST:PORT", item))
		case ids[id]:
			errs = append(errs, fmt.Errorf("server id %q is given twice", id))
		case addresses[address]:
			errs = append(errs, fmt.Errorf("address %s is given twice", address))
		}
		ids[id], addresses[address] = true, true
		out = append(out, Server{ID: id, Address: address})
	}
	if n := len(list); n > 0 && n != 1 && n != 3 && n != 5 {
		errs = append(errs, fmt.Errorf("%d servers: use 1, 3 or 5: an even number survives no more failures than the odd one below it", n))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return out, nil
}
