package main

import (
	"fmt"

	"github.com/gangline/gangline/bench/results/model"
)

// Where others' figures come from.
const (
	helios = "HeliosArtifact's simulator (S-Lab-System-Group, bdaae10), run"
	rules  = "a model of HeliosArtifact's rules, checked against its simulator"
	ticks  = "a model with decisions each 60 s, not checked against others' code"
	muri   = "Muri's simulator (Rivendile, 4e69a78), run"
	fgdPub = "published with FGD's artifact (hkust-adsl, 8f3d641)"
)

// sections are all that the page shows.
func sections() []section {
	out := []section{pool(), calm(), teams(), partitions(), murisVC(3), murisVC(1), september()}
	out = append(out, arrivals()...)
	return append(out, departures(0.97), departures(1.05), lifetimes(0.97), lifetimes(1.05))
}

const onPool = "--jobs philly_2017oct.csv.gz --nodes philly_pool72_nodes.csv --drop-queue 795a4c"

func pool() section {
	return section{
		title: "Philly, October 2017, one pool of 576 GPUs, a restart costs 60 s",
		text:  "50,143 jobs. A copy is the trace less 2 % of its jobs, chosen at random.",
		rows: []row{
			best(run("gangline, nothing known of lengths", onPool+" --restart-cost 60")),
			copied(1, "gangline", onPool+" --restart-cost 60"),
			copied(2, "gangline", onPool+" --restart-cost 60"),
			copied(3, "gangline", onPool+" --restart-cost 60"),
			run("las", onPool+" --restart-cost 60 --order las"),
			run("qssf, lengths learned", onPool+" --restart-cost 60 --order qssf"),
			run("fifo with backfill", onPool+" --restart-cost 60 --order fifo"),
			run("srtf, exact lengths", onPool+" --restart-cost 60 --order srtf"),
			stopped(known("multi-level LAS", ticks, 14255, none, 267302, none), 4355),
			stopped(known("Tiresias, two queues", ticks, 18270, none, 429691, none), 20317),
			stopped(known("SRTF, exact lengths", ticks, 13198, none, 241623, none), 14530),
		},
	}
}

func calm() section {
	return section{
		title: "The same, nothing is stopped for another job",
		text:  "`calm.yaml` is `preemption: {enabled: false}`. Strict: what cannot start blocks all behind it. Strictly ordered, first come first served hangs on who comes first of the 5,000 jobs that share their second with another: in the file's order its average is 76,328, in four random ones 69,720 to 81,015, backwards 69,158.",
		rows: []row{
			best(run("gangline, nothing known of lengths", onPool+" --policy calm.yaml")),
			run("qssf, lengths learned", onPool+" --policy calm.yaml --order qssf"),
			run("fifo with backfill", onPool+" --policy calm.yaml --order fifo"),
			run("fifo, strict", onPool+" --strict --order fifo"),
			run("sjf, strict, exact lengths", onPool+" --strict --order sjf"),
			known("FIFO, strict", rules, 76328, 41179, 425756, 64485),
			known("QSSF, strict, noisy lengths", rules, 17385, 2912, 307992, 5541),
			known("SJF, strict, exact lengths", rules, 15829, 2453, 288827, 3985),
		},
	}
}

const onTeams = "--jobs philly_2017oct.csv.gz --nodes philly_anchor91_nodes.csv --drop-queue 795a4c"

func teams() section {
	return section{
		title: "The same jobs of 11 teams on 728 GPUs, a restart costs 60 s",
		text:  "With `--quotas` each team is promised as many GPUs as it has nodes for in `--partitions`, and lends what it does not use.",
		teams: true,
		rows: []row{
			best(run("gangline, quotas", onTeams+" --restart-cost 60 --quotas")),
			run("gangline, partitions", onTeams+" --restart-cost 60 --partitions"),
			run("gangline, one pool", onTeams+" --restart-cost 60"),
			known("SRTF, exact lengths, partitions", ticks, 26446, 2813, 319824, 14602),
			known("Tiresias, partitions", ticks, 43259, 12942, 411301, 31415),
			known("QSSF, noisy lengths, partitions", rules, 37860, 6757, 414135, 26016),
			known("FIFO, one pool", rules, 16031, 2492, 235385, 4187),
			known("Tiresias, one pool", ticks, 12164, 1601, 240329, 320),
			known("SRTF, exact lengths, one pool", ticks, 12059, 1600, 231548, 215),
		},
	}
}

func partitions() section {
	const few = ",6214e9,6c71a0,11cb48"
	return section{
		title: "The same jobs in strict partitions: is the replay right?",
		text:  "The rules of others' simulators, to see that ours gives their figures. The peer sorts jobs of one second unstably, hence two figures for FIFO.",
		rows: []row{
			run("fifo, strict, 11 partitions", onTeams+" --strict --partitions --order fifo"),
			known("FIFO, 11 partitions", helios, 105703, 57608, 1180843, 93859),
			known("FIFO, 11 partitions", rules, 103470, none, none, none),
			run("sjf, strict, 11 partitions", onTeams+" --strict --partitions --order sjf"),
			known("SJF, 11 partitions", rules, 32966, 5431, 376310, 21122),
			run("fifo, strict, 8 partitions", onTeams+few+" --strict --partitions --order fifo"),
			known("FIFO, 8 partitions", helios, 118562, 16612, 1182188, 86839),
			run("sjf, strict, 8 partitions", onTeams+few+" --strict --partitions --order sjf"),
			known("SJF, 8 partitions", helios, 49790, 7180, 710768, 18067),
		},
	}
}

func murisVC(n int) section {
	file := fmt.Sprintf("muri_philly_vc%d.csv.gz", n)
	on := "--jobs " + file + " --nodes muri_n8g8_nodes.csv --restart-cost 30"
	s := section{
		title: fmt.Sprintf("Philly's virtual cluster %d on 64 GPUs, a restart costs 30 s", n),
		text:  "992 jobs, most of them gangs. Muri's own policies let jobs share GPUs, from profiles of the jobs; Gangline does not.",
		rows: []row{
			best(run("gangline, nothing known of lengths", on)),
			copied(1, "gangline", on),
			copied(2, "gangline", on),
			run("las", on+" --order las"),
			run("fifo with backfill", on+" --order fifo"),
			run("srtf, exact lengths", on+" --order srtf"),
			byModel("SRTF, exact lengths", file, model.Remaining),
			byModel("Gittins index, the distribution of lengths known beforehand", file, model.Gittins),
		},
	}
	const bound = " How near can an order come to SRTF that is told nothing? The Gittins index is the best that is known, and here it is even given beforehand how long the trace's jobs of each size are, as a distribution; no scheduler has that."
	if n == 3 {
		s.text += bound
		s.rows = append(s.rows,
			known("Tiresias", muri, 347213, 12267, 4973474, 300348),
			known("AntMan", muri, 305454, 89426, 3888283, 258589),
			known("SRTF, exact lengths", muri, 193082, 3748, 4411619, 146217),
			known("SRSF, exact GPU times", muri, 185022, 3748, 3789301, 138157),
			known("Muri-S, lengths and profiles, GPUs shared", muri, 83242, 4620, 940761, 36378),
			known("Muri-L, profiles, GPUs shared", muri, 88687, 4674, 926050, 41822))
		return s
	}
	s.text = "1,494 jobs, more than the cluster can do: hence the waits." + bound
	s.rows = append(s.rows,
		known("Tiresias", muri, 3330371, 473103, 14705082, 3079920),
		known("AntMan", muri, 5476391, 4657663, 13543811, 5225940),
		known("SRTF, exact lengths", muri, 1370603, 14653, 16257222, 1120151),
		known("SRSF, exact GPU times", muri, 980141, 14650, 15435658, 729689))
	return s
}

func september() section {
	const on = "--jobs philly_2017sep.csv.gz --nodes philly_anchor91_nodes.csv --restart-cost 60"
	return section{
		title: "Philly, September 2017, 728 GPUs, a restart costs 60 s",
		text:  "5,657 jobs on which nothing was tuned. Nobody has published figures for them.",
		rows: []row{
			best(run("gangline, nothing known of lengths", on)),
			run("las", on+" --order las"),
			run("fifo with backfill", on+" --order fifo"),
			run("srtf, exact lengths", on+" --order srtf"),
		},
	}
}

// arrivals are the three published orders.
func arrivals() []section {
	var out []section
	for i, seed := range []int{42, 43, 44} {
		on := fmt.Sprintf("--order-file openb_fgd_order_seed%d.csv.gz --nodes openb_nodes.csv", seed)
		s := section{
			title: fmt.Sprintf("openb: 1,213 nodes, 6,212 GPUs, arrivals only, 130 %% of the GPUs asked for, order %d", seed),
			place: true,
			rows: []row{
				best(placed("gangline, the mix of requests learned as they come", on+" --score gangline")),
				placed("fgd, the mix learned", on+" --score fgd"),
				placed("fgd, the mix known from the start", on+" --score fgd --known-mix"),
				placed("bestfit", on+" --score bestfit"),
				allocated("FGD", fgdPub, []float64{95.29, 95.32, 95.44}[i]),
				allocated("BestFit", fgdPub, []float64{93.13, 93.25, 93.09}[i]),
				allocated("GpuPacking", fgdPub, []float64{91.57, 92.06, 92.10}[i]),
				allocated("GpuClustering", fgdPub, []float64{91.53, 91.97, 91.88}[i]),
				allocated("DotProd", fgdPub, []float64{90.54, 90.84, 91.03}[i]),
				allocated("Random", fgdPub, []float64{87.26, 88.03, 87.83}[i]),
			},
		}
		out = append(out, s)
	}
	return out
}

// departures are runs in which pods leave again.
func departures(load float64) section {
	s := section{
		title: fmt.Sprintf("openb with departures, load %.2f", load),
		text:  "Pods of the first order arrive as a Poisson process and stay for exponential times; what finds no room is lost. GPUs allocated on average over time. Nobody has published such figures; fgd gives equal scores to the first node by name, as its authors' scheduler does, which suits arrivals alone better than departures. In some runs fewer 8-GPU pods find room under gangline than under another score: see their column.",
		place: true,
	}
	for seed := 1; seed <= 5; seed++ {
		on := fmt.Sprintf("--order-file openb_fgd_order_seed42.csv.gz --nodes openb_nodes.csv --departures %.2f --seed %d", load, seed)
		for _, score := range []string{"gangline", "fgd", "bestfit"} {
			s.rows = append(s.rows, placed(fmt.Sprintf("%s, seed %d", score, seed), on+" --score "+score))
		}
	}
	return s
}

// lifetimes are runs with departures in which pods stay as long as they did in the trace.
func lifetimes(load float64) section {
	s := section{
		title: fmt.Sprintf("openb by its own lifetimes, load %.2f", load),
		text: "Pods of the trace that had ended or ran arrive as a Poisson process and stay for as long as they did there (9.4 h on average over the GPUs in use, from seconds to 145 days); what finds no room is lost. The trace itself never holds more than 65 GPUs, " +
			"hence the load. GPUs allocated on average over time. Nobody has published such figures. Under gangline fewer 8-GPU pods find room in some runs: see their column.",
		place: true,
	}
	for seed := 1; seed <= 3; seed++ {
		on := fmt.Sprintf("--order-file openb_default.csv.gz --nodes openb_nodes.csv --departures %.2f --own-lifetimes --seed %d", load, seed)
		for _, score := range []string{"gangline", "fgd", "bestfit"} {
			s.rows = append(s.rows, placed(fmt.Sprintf("%s, seed %d", score, seed), on+" --score "+score))
		}
	}
	return s
}
