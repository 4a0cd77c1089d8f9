package keeper

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gangline/gangline/checkpoint"
)

// TestAKeyByACommand: it runs as the job would run it, once for each watch, and what it prints is told to nobody.
func TestAKeyByACommand(t *testing.T) {
	t.Parallel()
	work := t.TempDir()
	env := []string{"PATH=" + os.Getenv("PATH"), "SECRET=" + strings.Repeat("ab", checkpoint.KeyBytes)}
	var ring keyring
	for range 2 {
		k, err := ring.load(t.Context(), "command:echo ran >>runs; echo nothing of this is kept >&2; echo $SECRET", env, work)
		if err != nil || k.ID() == "" {
			t.Fatalf("%v, %v", k, err)
		}
	}
	if runs := read(t, filepath.Join(work, "runs")); runs != "ran\n" {
		t.Errorf("the command ran as %q, want once in the working directory", runs)
	}
	if _, err := ring.load(t.Context(), "command:echo $SECRET", env, "/no/longer/there"); err != nil {
		t.Errorf("without the working directory: %v", err)
	}
	for what, command := range map[string]string{
		"fails": "echo s3cret; echo s3cret >&2; exit 3", "prints no key": "printf s3; printf cret", "never ends to print": "yes s3''cret",
	} {
		_, err := ring.load(t.Context(), "command:"+command, env, work)
		if !errors.Is(err, checkpoint.ErrKey) || strings.Contains(strings.ReplaceAll(err.Error(), command, ""), "s3cret") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestAKeyCommandThatHangs is killed with all that it has started when its time is over.
func TestAKeyCommandThatHangs(t *testing.T) {
	t.Parallel()
	work := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := new(keyring).load(ctx, "command:mkfifo up; sleep 1000 & echo up >up; wait", []string{"PATH=" + os.Getenv("PATH")}, work)
		ended <- err
	}()
	for {
		if f, err := os.Open(filepath.Join(work, "up")); err == nil { // it blocks until the command writes there
			_ = f.Close()
			break
		}
		if len(ended) > 0 {
			t.Fatal(<-ended)
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) || !errors.Is(err, checkpoint.ErrKey) {
		t.Errorf("%v, want that it was cancelled", err)
	}
}

// TestFilesOfAJobWithAKey: what the agent commits for the job is authenticated, and what is not is not resumed from.
func TestFilesOfAJobWithAKey(t *testing.T) {
	t.Parallel()
	dir, k := t.TempDir(), newKept(t)
	env := []string{checkpoint.EnvKey + "=env:SECRET", "SECRET=" + strings.Repeat("ab", checkpoint.KeyBytes)}
	j := job(dir, 1, 0)
	j.Environ = func() ([]string, string) { return env, "" }
	write(t, dir+"/step-5/model.pt", "weights")
	k.Watch(j, true)
	path := k.next(t).Path
	if manifest := read(t, path+"/MANIFEST.json"); !strings.Contains(manifest, `"hmac_sha256"`) {
		t.Errorf("committed as %s", manifest)
	}
	j.Key.Epoch = 2
	if got, err := Resume(t.Context(), j, true); err != nil || got.Path != path {
		t.Errorf("resume from %q, %v; want %s", got.Path, err, path)
	}
	// Somebody without the key puts a newer one there.
	other := job(dir, 2, 0)
	s, err := other.open()
	if err == nil {
		err = s.Fence(t.Context(), 2)
	}
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/tmp/model.pt", "other weights")
	if _, err := s.CommitFiles(t.Context(), checkpoint.FilesCommit{Epoch: 2, Step: 9, From: "tmp"}); err != nil {
		t.Fatal(err)
	}
	j.Key.Epoch = 3
	if got, err := Resume(t.Context(), j, true); !errors.Is(err, checkpoint.ErrUnauthenticated) {
		t.Errorf("resume from %q, %v; want ErrUnauthenticated", got.Path, err)
	}
	env = append(env, checkpoint.EnvUnauthenticated+"=accept")
	if got, err := Resume(t.Context(), j, true); err != nil || !strings.HasSuffix(got.Path, "step-0000000009.epoch-2") {
		t.Errorf("resume from %q, %v", got.Path, err)
	}
}
