package fleet

import "github.com/gangline/gangline/scheduler/cluster"

// Parts of GPUs are priced in units of 10 thousandths.
const (
	unit  = 10
	units = 1000 / unit
)

// holePrices returns what one share of each size costs at the margin, in GPUs,
// if shares are cut from whole GPUs with the least waste: the duals of the
// cutting-stock problem "fewest GPUs that hold the demand" (Gilmore and Gomory,
// Operations Research 1961). Sizes are in units, ascending, each once, 1..units;
// demands are above 0.
//
// It generates columns by a knapsack and keeps the dense inverse of the basis,
// without a map or a random choice: equal input gives equal prices.
func holePrices(sizes []int, demand []float64) []float64 {
	n := len(sizes)
	inverse := make([][]float64, n)
	amount := make([]float64, n) // of each pattern in the basis
	price := make([]float64, n)
	for i := range inverse {
		inverse[i] = make([]float64, n)
		times := float64(units / sizes[i])
		inverse[i][i] = 1 / times
		amount[i] = demand[i] / times
		price[i] = 1 / times
	}
	pattern, step := make([]float64, n), make([]float64, n)
	for range 20*n + 200 { // far more than it needs: a bound, should rounding make it cycle
		gain := bestPattern(sizes, price, pattern)
		if gain <= 1e-9 {
			break
		}
		leaves, least := -1, 0.0
		for i := range step {
			step[i] = 0
			for k, v := range pattern {
				step[i] += inverse[i][k] * v
			}
			if step[i] > 1e-9 {
				if t := amount[i] / step[i]; leaves < 0 || t < least {
					leaves, least = i, t
				}
			}
		}
		if leaves < 0 {
			break
		}
		row := inverse[leaves]
		for k := range row {
			row[k] /= step[leaves]
		}
		amount[leaves] = least
		for i := range inverse {
			if i == leaves || step[i] == 0 {
				continue
			}
			for k := range row {
				inverse[i][k] -= step[i] * row[k]
			}
			amount[i] = max(amount[i]-step[i]*least, 0)
		}
		for k := range price {
			price[k] -= gain * row[k]
		}
	}
	for k := range price {
		price[k] = max(price[k], 0)
	}
	return price
}

// bestPattern fills in the column that lowers the cost most: the shares of one
// GPU that are worth most at the prices, or demand left over where a price is
// negative. It returns by how much one of it lowers the cost.
func bestPattern(sizes []int, price, pattern []float64) (gain float64) {
	var best [units + 1]float64
	var last [units + 1]int // size index of the last share, -1: none ends here
	for c := 1; c <= units; c++ {
		best[c], last[c] = best[c-1], -1
		for k := 0; k < len(sizes) && sizes[k] <= c; k++ {
			if v := best[c-sizes[k]] + price[k]; v > best[c]+1e-12 {
				best[c], last[c] = v, k
			}
		}
	}
	clear(pattern)
	gain = best[units] - 1
	spare := -1
	for k := range price {
		if -price[k] > gain {
			gain, spare = -price[k], k
		}
	}
	if spare >= 0 {
		pattern[spare] = -1
		return gain
	}
	for c := units; c > 0; {
		if k := last[c]; k >= 0 {
			pattern[k]++
			c -= sizes[k]
		} else {
			c--
		}
	}
	return gain
}

// holeValues returns what a part of a GPU is worth, by its size in units: the
// most that shares in it can cost elsewhere, in GPUs, so that a whole GPU is
// worth 1. Prices are averaged over demands that are varied a little, by a
// fixed sequence: the prices of one demand alone are often one of many corners.
//
// It also returns the takers of each part: how much of the mix is after it, in
// requests. These are shares that fit and are worth as much, or nearly. Parts
// that are worth something only for several shares at once have none.
func holeValues(mix []MixItem) (value, takers *[units + 1]float64) {
	var demand [units + 1]float64
	for i := range mix {
		if m := &mix[i]; m.GPUs > 0 && m.Share < cluster.WholeGPU {
			demand[(m.Share+unit-1)/unit] += float64(m.Weight)
		}
	}
	var sizes []int
	var asked []float64
	for u, d := range demand[:units] {
		if d > 0 {
			sizes, asked = append(sizes, u), append(asked, d)
		}
	}
	prices := averagePrices(sizes, asked)
	value, takers = &[units + 1]float64{}, &[units + 1]float64{}
	for u := 1; u <= units; u++ {
		value[u] = value[u-1]
		for k, size := range sizes {
			if size <= u {
				value[u] = max(value[u], value[u-size]+prices[k])
			}
		}
		value[u] = min(value[u], 1)
		for k, size := range sizes {
			if size <= u && prices[k] >= nearly*value[u] {
				takers[u] += asked[k]
			}
		}
	}
	value[units] = 1
	return value, takers
}

// averagePrices returns the mean of holePrices over varied demands.
func averagePrices(sizes []int, asked []float64) []float64 {
	prices := make([]float64, len(sizes))
	varied := make([]float64, len(sizes))
	seed := uint64(12345)
	for range priceRounds {
		for k := range varied {
			seed = seed*6364136223846793005 + 1442695040888963407
			varied[k] = asked[k] * (1 + priceSpread*(2*float64(seed>>11)/(1<<53)-1))
		}
		for k, price := range holePrices(sizes, varied) {
			prices[k] += price / priceRounds
		}
	}
	return prices
}

// How prices are averaged.
const (
	priceSpread = 0.2 // demands are varied by this part of them
	priceRounds = 32
	nearly      = 0.9 // of a part's value: a share of this price is a taker
)
