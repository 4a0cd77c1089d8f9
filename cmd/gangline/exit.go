package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Exit codes. They are documented by "gangline help exit-codes".
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitUnavailable = 4
	exitRefused     = 5
	exitInterrupted = 130
)

const exitCodesHelp = `Exit codes of every verb:

    0  it worked
    1  it failed for a reason that is printed
    2  the command line or a file is wrong: nothing was done
    3  the job or node does not exist
    4  no server could be reached in time, or no leader was found
    5  the cluster refused: a gang that can never fit, a name taken, a limit reached
  130  interrupted

"gangline run" exits with the exit code of the job's worker that failed first
(128 + the signal's number if a signal ended it), or 0. A job that ends for
another reason, such as its time limit, gives 1; a cancelled one gives 130.`

// exitError carries an exit code up to main. A nil err prints nothing.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func usage(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// exitCode maps an error to the process's exit code and the words to print.
func exitCode(err error) (int, string) {
	var exit *exitError
	if errors.As(err, &exit) {
		if exit.err == nil {
			return exit.code, ""
		}
		return exit.code, err.Error() // all of them, where several are joined
	}
	if errors.Is(err, context.Canceled) {
		return exitInterrupted, ""
	}
	st, ok := status.FromError(err)
	if !ok {
		return exitFailure, err.Error()
	}
	switch st.Code() {
	case codes.NotFound:
		return exitNotFound, st.Message()
	case codes.Unavailable, codes.DeadlineExceeded:
		return exitUnavailable, unreachable(st.Message())
	case codes.InvalidArgument:
		return exitUsage, st.Message()
	case codes.FailedPrecondition, codes.AlreadyExists, codes.ResourceExhausted, codes.PermissionDenied, codes.Unauthenticated:
		return exitRefused, st.Message()
	case codes.Canceled:
		return exitInterrupted, ""
	default:
		return exitFailure, st.Message()
	}
}

// unreachable makes words for people of what gRPC says when nobody answers.
func unreachable(msg string) string {
	has := func(parts ...string) bool {
		return slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(msg, p) })
	}
	if !has("connection refused", "deadline exceeded", "connection error", "balancer error") {
		return msg // a server's own words
	}
	// gRPC wraps the one part that tells into its own words.
	if i := strings.LastIndex(msg, "desc = "); i >= 0 {
		msg = strings.Trim(msg[i+len("desc = "):], `"`)
	}
	for _, p := range []string{"latest balancer error: ", "transport: Error while dialing: ", "transport: "} {
		msg = strings.TrimPrefix(msg, p)
	}
	advice := "is one running there? Name the servers with --server or GANGLINE_SERVER; \"gangline dev\" starts one"
	switch {
	case has("tls: ", "x509: "):
		advice = "the servers and this client do not trust each other's TLS certificates: check --tls-ca, --tls-cert and --tls-key"
	case has("server preface", "broken pipe", "connection reset"):
		advice = "it ended the connection at once: if the cluster uses TLS, check --tls-ca, --tls-cert and --tls-key"
	}
	return "no server answers (" + msg + "): " + advice
}
