// Package web serves a server's HTTP pages: metrics for Prometheus, a health
// check for load balancers, and a plain status page for people.
//
// Its main function is [Handler]. It only reads: from the newest state that
// this server has applied, which may be a moment old. It must not change
// anything, and must not need scripts or anything from elsewhere. Read next:
// page.go, scheduler/api.
package web
