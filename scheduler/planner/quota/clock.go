package quota

import "github.com/gangline/gangline/scheduler/cluster"

// Fair share adds up the decayed use of thousands of accounts at a moment, and
// the moment moves on. What makes that cheap is that decay is the same for all.
// Instead of letting old use shrink, let new use count for more: a unit of
// period k weighs 2^(k/64), counted from the first period of a block of
// half-lives. Then the use of an account in these units is
//
//	c + rate x g(now)
//
// where g grows for all alike, and c and rate change only when the account
// does. Sums of c and of rate over any set of accounts are exact whole numbers,
// whatever the order in which they were made, so an index that was fed with
// every change equals one built anew. Once in a block, all c are made anew.

const (
	perHalf   = 64 // decay periods of a half-life, as in cluster.Account
	blockSize = 8 * perHalf
	fracBits  = 20 // of weights, after the point
	quantum   = cluster.Time(10_000_000_000)
)

// inflation holds 2^(k/64) as fractions of 2^fracBits.
var inflation = [perHalf]int64{ //nolint:gochecknoglobals // table
	1048576, 1059994, 1071537, 1083205, 1095000, 1106924, 1118978, 1131163,
	1143480, 1155932, 1168519, 1181244, 1194106, 1207109, 1220254, 1233542,
	1246974, 1260553, 1274279, 1288155, 1302182, 1316362, 1330696, 1345187,
	1359835, 1374642, 1389611, 1404743, 1420040, 1435503, 1451135, 1466937,
	1482910, 1499058, 1515382, 1531883, 1548564, 1565427, 1582474, 1599706,
	1617125, 1634735, 1652536, 1670531, 1688722, 1707110, 1725700, 1744491,
	1763488, 1782691, 1802103, 1821727, 1841564, 1861617, 1881889, 1902381,
	1923097, 1944038, 1965207, 1986607, 2008240, 2030108, 2052214, 2074562,
}

// clock converts moments into weights of use.
type clock struct {
	length int64              // of a period, nanoseconds
	before [perHalf + 1]int64 // sums of inflation below each index
	block  int64              // the sums of the tree are in units of this block
	ready  bool               // whether they have been made

	at     cluster.Time                  // the moment of the last tick
	weight int64                         // of use at that moment
	grown  wide                          // g at that moment: nanoseconds x weight
	about  struct{ grown, hour float64 } // as floats: grown, and what hour makes of 1
}

func newClock(p *cluster.Policy) clock {
	c := clock{length: int64(p.DecayPeriod())}
	for i, w := range inflation {
		c.before[i+1] = c.before[i] + w
	}
	return c
}

// moment rounds up to the next 10 s. All of an order is then judged at one
// moment, which no account's last change lies after.
func moment(now cluster.Time) cluster.Time { return (now/quantum + 1) * quantum }

// start is the first period of the block.
func (c *clock) start() int64 { return c.block * blockSize }

// weightOf is the weight of use in a period of this block or shortly after.
func (c *clock) weightOf(period int64) int64 {
	d := max(period-c.start(), 0)
	return inflation[d%perHalf] << min(d/perHalf, 16)
}

// growth is g at a moment that is not before the block: the nanoseconds since
// the block's start, each by its weight.
func (c *clock) growth(at cluster.Time) wide {
	period := int64(at) / c.length
	d := period - c.start()
	if d < 0 {
		return wide{}
	}
	halves, rest := min(d/perHalf, 16), d%perHalf
	whole := c.before[perHalf]*(1<<halves-1) + c.before[rest]<<halves
	return product(c.length, whole).plus(product(int64(at)-period*c.length, c.weightOf(period)))
}

// base is c of an account: what it has used, less what g would count too much
// for it.
func (c *clock) base(a *cluster.Account, p *cluster.Policy) wide {
	const nanos = 1_000_000 // accounts are in milliseconds
	if a.Period < c.start() {
		return product(a.UsedAt(cluster.Time(c.start()*c.length), p), nanos<<fracBits)
	}
	return product(a.Used, nanos).times(c.weightOf(a.Period)).minus(c.growth(a.Since).times(a.Rate))
}
