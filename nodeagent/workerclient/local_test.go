package workerclient

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestRoomOnTheNodesOwnDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	env := Environment{CheckpointLocal: dir, LocalWorldSize: 4, NumNodes: 2}
	local, err := env.Local(nil)
	if err != nil || local.Alone {
		t.Fatalf("%+v, %v", local, err)
	}
	says := func(bytes int64, want string) {
		t.Helper()
		err := local.Room(bytes)
		if (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("room for %d bytes of each rank: %v, want %q", bytes, err, want)
		}
	}
	says(1, "does not say")
	path := filepath.Join(dir, roomName)
	if err := os.WriteFile(path, []byte(`{"bytes":4000}`), 0o600); err != nil {
		t.Fatal(err)
	}
	says(1000, "")
	says(1001, "need 4004 bytes on its own disk, 4000 are left")
	long := time.Now().Add(-2 * roomFor)
	if err := os.Chtimes(path, long, long); err != nil {
		t.Fatal(err)
	}
	says(1, "last said 2m")
	if local, err := (Environment{}).Local(nil); local != nil || err != nil {
		t.Errorf("without a disk: %v, %v", local, err)
	}
}
