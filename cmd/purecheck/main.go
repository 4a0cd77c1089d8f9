package main

import (
	"cmp"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

func main() {
	os.Exit(run(os.Args[1:], ".", policies, os.Stdout, os.Stderr))
}

// run checks the packages named by args (folders such as ./scheduler/cluster), or all of table when none is named, as
// seen from folder dir, and returns the exit status.
func run(args []string, dir string, table []policy, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("purecheck", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintln(stderr, "usage: purecheck [FOLDER...]   (no folder: every package in the policy table)")
	}
	if err := flags.Parse(args); err != nil {
		return 2
	}
	chosen, err := choose(table, flags.Args())
	if err != nil {
		fmt.Fprintln(stderr, "purecheck:", err)
		return 2
	}
	found, err := checkAll(dir, chosen)
	if err != nil {
		fmt.Fprintln(stderr, "purecheck:", err)
		return 2
	}
	for _, f := range found {
		fmt.Fprintln(stdout, f)
	}
	if len(found) > 0 {
		fmt.Fprintf(stderr, "purecheck: %d finding(s) in %d package(s)\n", len(found), len(chosen))
		return 1
	}
	fmt.Fprintf(stderr, "purecheck: %d package(s) are clean\n", len(chosen))
	return 0
}

// checkAll loads the packages of the chosen policies and returns every finding, ordered by position.
func checkAll(dir string, chosen []policy) ([]finding, error) {
	graph, err := load(dir, chosen)
	if err != nil {
		return nil, err
	}
	var found []finding
	for _, p := range chosen {
		got, err := checkPackage(graph, p)
		if err != nil {
			return nil, err
		}
		found = append(found, got...)
	}
	slices.SortFunc(found, func(a, b finding) int {
		return cmp.Or(strings.Compare(a.pos.Filename, b.pos.Filename), cmp.Compare(a.pos.Line, b.pos.Line),
			cmp.Compare(a.pos.Column, b.pos.Column), strings.Compare(a.text, b.text))
	})
	return found, nil
}
