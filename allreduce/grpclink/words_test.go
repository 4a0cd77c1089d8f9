package grpclink

import (
	"errors"
	"io"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestStreamErrorsAreWords: what a person reads of a broken link is a sentence,
// and code can still find the status beneath it.
func TestStreamErrorsAreWords(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want string
	}{
		{status.Error(codes.Canceled, "context canceled"), "the connection ended without a word"},
		{status.Error(codes.Unavailable, "error reading from server: EOF"), "the connection ended without a word"},
		{status.Error(codes.ResourceExhausted, "a frame of 9 bytes"), "a frame of 9 bytes"},
		{io.ErrUnexpectedEOF, io.ErrUnexpectedEOF.Error()},
	} {
		got := inWords(c.err)
		if got.Error() != c.want || !errors.Is(got, c.err) {
			t.Errorf("%v became %q, want %q with the cause inside", c.err, got, c.want)
		}
	}
	if err := inWords(nil); err != nil {
		t.Errorf("no error became %v", err)
	}
}
