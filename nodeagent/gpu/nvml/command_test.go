package nvml_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/gangline/gangline/nodeagent/gpu"
	"github.com/gangline/gangline/nodeagent/gpu/nvml"
)

// TestWrongCommand gives the client programs that are not the probe: each must end in an error that says so.
func TestWrongCommand(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		command []string
		want    string
	}{
		"missing":     {[]string{"/nonexistent/gangline", "gpu-probe"}, "no such file"},
		"exits":       {[]string{"sh", "-c", "echo not today >&2; exit 3"}, "exit status 3: not today"},
		"garbage":     {[]string{"sh", "-c", "echo hello; read a; read b"}, "another program"},
		"wrong id":    {[]string{"sh", "-c", `read line; echo '{"id":7}'; read line`}, "another program"},
		"silent":      {[]string{"sh", "-c", "read a; read b; read c"}, "NVML hangs"},
		"long line":   {[]string{"sh", "-c", "read line; head -c 2000000 /dev/zero | tr '\\0' x; read line"}, "another program"},
		"failed init": {[]string{"sh", "-c", `read line; echo '{"id":1,"code":"failed","error":"bad day"}'; read line`}, "bad day"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := nvml.Config{Command: tc.command}
			if name == "silent" {
				cfg.StartTimeout = time.Second // the others say something, if late on a busy machine
			}
			c := nvml.NewClient(cfg)
			_, err := c.GPUs(t.Context())
			if err == nil || !strings.Contains(err.Error(), tc.want) || errors.Is(err, gpu.ErrNoDriver) {
				t.Errorf("GPUs = %v, want an error with %q", err, tc.want)
			}
			// Within the pause the same answer comes back without a new process.
			if _, again := c.GPUs(t.Context()); again == nil || again.Error() != err.Error() {
				t.Errorf("second call = %v, want %v", again, err)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			if err := c.Close(); err != nil {
				t.Errorf("second Close: %v", err)
			}
		})
	}
}
