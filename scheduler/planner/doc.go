// Package planner decides which pending jobs start now, and on which GPUs.
//
// Its main function is [Make]: from a state it makes a [Plan] with the gangs
// to start and a reason for each job left waiting. It is pure: equal states
// give equal plans, and it changes nothing; scheduler/control turns the plan
// into commands, and cluster.State.Apply checks them again.
//
// It must not read a clock, keep anything between calls, or depend on the
// order of a map. Read next: order.go (who is next), place.go (where it fits),
// hold.go (what is kept free), reason.go (why not), then scheduler/control.
package planner
