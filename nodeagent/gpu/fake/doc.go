// Package fake emulates the GPUs of a node, for laptops, demonstrations and tests.
//
// The main type is Prober. Equal configurations give equal GPUs, UUIDs included, so a restarted agent finds the
// GPUs that it had. Readings follow an injected busy function and the injected clock, and nothing else.
//
// It must not touch a driver, keep a goroutine, or read the wall clock or a random source.
//
// Read next: nodeagent/gpu (the Prober interface), products.go (the table of real products).
package fake
