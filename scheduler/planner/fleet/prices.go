package fleet

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
	cost := make([]float64, n)   // of each: 1 for a pattern, 0 for unused demand
	price := make([]float64, n)
	for i := range inverse {
		inverse[i] = make([]float64, n)
		times := float64(units / sizes[i])
		inverse[i][i] = 1 / times
		amount[i] = demand[i] / times
		cost[i] = 1
		price[i] = 1 / times
	}
	pattern, step := make([]float64, n), make([]float64, n)
	for range 20*n + 200 { // far more than it needs: a bound, should rounding make it cycle
		gain, enters := bestPattern(sizes, price, pattern)
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
		amount[leaves], cost[leaves] = least, enters
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
// negative. It returns by how much one of it lowers the cost, and what it costs.
func bestPattern(sizes []int, price, pattern []float64) (gain, cost float64) {
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
	gain, spare := best[units]-1, -1
	for k := range price {
		if -price[k] > gain {
			gain, spare = -price[k], k
		}
	}
	if spare >= 0 {
		pattern[spare] = -1
		return gain, 0
	}
	for c := units; c > 0; {
		if k := last[c]; k >= 0 {
			pattern[k]++
			c -= sizes[k]
		} else {
			c--
		}
	}
	return gain, 1
}
