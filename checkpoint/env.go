package checkpoint

import (
	"context"
	"fmt"
	"path"
	"strconv"
	"strings"
)

// Variables by which the environment of a worker, or of a command, says how checkpoints are stored.
const (
	EnvCompress        = "GANGLINE_CHECKPOINT_COMPRESS"        // zstd, or none
	EnvKey             = "GANGLINE_CHECKPOINT_KEY"             // where the key is, as for LoadKey
	EnvOldKeys         = "GANGLINE_CHECKPOINT_OLD_KEYS"        // where keys are that only read, with commas
	EnvUnauthenticated = "GANGLINE_CHECKPOINT_UNAUTHENTICATED" // Config.AcceptUnauthenticated: accept, or refuse
	EnvDelta           = "GANGLINE_CHECKPOINT_DELTA"           // Config.Delta
	EnvReferences      = "GANGLINE_CHECKPOINT_REFERENCES"      // Config.ReferenceShare, or off
	EnvOlder           = "GANGLINE_CHECKPOINT_OLDER"           // accept, or RefuseOlder: Config.NotBefore, by envResume
	envResume          = "GANGLINE_RESUME_FROM"                // the newest checkpoint that the scheduler has recorded
)

// RefuseOlder is the value of EnvOlder with which a job does not begin from an older checkpoint than it has committed.
const RefuseOlder = "refuse"

// FromEnv sets what the variables above say, which are asked of getenv, such as os.Getenv; what none names stays as it is. Errors name the
// variable: ErrInvalid, those of LoadKey.
func (c *Config) FromEnv(ctx context.Context, getenv func(string) string) error {
	return c.FromEnvBy(getenv, func(ref string) (*Key, error) { return LoadKey(ctx, ref, getenv) })
}

// FromEnvBy does so with keys that load gives, of what LoadKey is given.
func (c *Config) FromEnvBy(getenv func(string) string, load func(ref string) (*Key, error)) error {
	bad := func(name, want string) error {
		return fmt.Errorf("%w: %s=%q: want %s", ErrInvalid, name, getenv(name), want)
	}
	switch v := getenv(EnvCompress); v {
	case "":
	case "none":
		c.Compress = NoCompression
	case string(Zstd):
		c.Compress = Zstd
	default:
		return bad(EnvCompress, "zstd or none")
	}
	if v := getenv(EnvDelta); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 || n == 1 {
			return bad(EnvDelta, "0, or from 2 on how many saves share one whole copy")
		}
		c.Delta = n
	}
	switch v := getenv(EnvReferences); v {
	case "":
	case "off":
		c.ReferenceShare = -1
	default:
		share, err := strconv.ParseFloat(v, 64)
		if err != nil || !(share > 0 && share <= 1) {
			return bad(EnvReferences, "off, or a share above 0 and up to 1")
		}
		c.ReferenceShare = share
	}
	switch v := getenv(EnvOlder); v {
	case "", "accept":
	case RefuseOlder:
		if ref, err := ParseRef(path.Base(getenv(envResume))); err == nil {
			c.NotBefore = ref
		}
	default:
		return bad(EnvOlder, "accept or refuse")
	}
	return c.KeysFromEnv(getenv, load)
}

// KeysFromEnv sets of that only the keys, and what is taken without: all that a program's own files need.
func (c *Config) KeysFromEnv(getenv func(string) string, load func(ref string) (*Key, error)) error {
	switch v := getenv(EnvUnauthenticated); v {
	case "":
	case "accept", "refuse":
		c.AcceptUnauthenticated = v == "accept"
	default:
		return fmt.Errorf("%w: %s=%q: want accept or refuse", ErrInvalid, EnvUnauthenticated, v)
	}
	if v := getenv(EnvKey); v != "" {
		k, err := load(v)
		if err != nil {
			return fmt.Errorf("%s: %w", EnvKey, err)
		}
		c.Key = k
	}
	for v := range strings.SplitSeq(getenv(EnvOldKeys), ",") {
		if v = strings.TrimSpace(v); v == "" {
			continue
		}
		k, err := load(v)
		if err != nil {
			return fmt.Errorf("%s: %w", EnvOldKeys, err)
		}
		c.OldKeys = append(c.OldKeys, k)
	}
	return nil
}
