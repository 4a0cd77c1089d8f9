package usage

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// The storage's root holds, beside the jobs' directories, an empty file for each job: .users/u-NAME/job-17. The name is escaped as in a URL, and
// led by u- so that it is never . or ..

const (
	usersDir   = ".users"
	userPrefix = "u-"
)

func userDir(root, user string) string {
	return filepath.Join(root, usersDir, userPrefix+url.PathEscape(user))
}

// Own notes that a job's directory, of this name below root, belongs to a user. Noting it again changes nothing.
func Own(root, user, job string) error {
	dir := userDir(root, user)
	path := filepath.Join(dir, job)
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	err := os.MkdirAll(dir, 0o755) //nolint:gosec // as the jobs' directories: any node's agent adds to it
	if err == nil {
		err = os.WriteFile(path, nil, 0o644) //nolint:gosec // likewise
	}
	if err != nil {
		return fmt.Errorf("note that the checkpoints of %s belong to %s: %w", job, user, err)
	}
	return nil
}

// Users lists those who own any job's directory, in the order of their names as they are noted.
func Users(root string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(root, usersDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the users that have checkpoints: %w", err)
	}
	var out []string
	for _, e := range entries {
		name, ok := strings.CutPrefix(e.Name(), userPrefix)
		if user, err := url.PathUnescape(name); ok && err == nil {
			out = append(out, user)
		}
	}
	return out, nil
}

// jobsOf lists a user's jobs by the names of their directories. Notes of directories that are gone are dropped.
func jobsOf(root, user string) ([]string, error) {
	dir := userDir(root, user)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the jobs of %s that have checkpoints: %w", user, err)
	}
	var out []string
	for _, e := range entries {
		_, err := os.Lstat(filepath.Join(root, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			_ = os.Remove(filepath.Join(dir, e.Name())) // the next look tries again
			continue
		}
		out = append(out, e.Name())
	}
	return out, nil
}
