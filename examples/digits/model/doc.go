// Package model is the arithmetic of the digits example: the data set, a network with one hidden layer, its gradient,
// the order of the samples, and the optimizer.
//
// Its main type is [Network]. Everything here is a pure function of its arguments, and its float32 operations happen in
// a fixed order without fused multiply-add and without the library functions that differ between processors, so that
// the same training gives the same bits everywhere.
//
// It must not know ranks, rings, files or clocks. Read network.go next, then order.go, and the loop in package main.
package model
