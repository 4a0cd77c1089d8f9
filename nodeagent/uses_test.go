package nodeagent

import (
	"fmt"
	"testing"
	"time"

	"github.com/gangline/gangline/checkpoint/usage"
)

// TestUsesAreToldOnce, and again to another leader, with their age.
func TestUsesAreToldOnce(t *testing.T) {
	t.Parallel()
	var u uses
	now := time.Now()
	u.set("bob", usage.Use{Bytes: 7}, now)
	u.set("ann", usage.Use{Bytes: 500, Checkpoints: 5, Jobs: 2, Unreadable: 1}, now.Add(-3*time.Second))
	got := u.takeNew(now)
	if len(got) != 2 || got[0].GetUser() != "ann" || got[0].GetBytes() != 500 || got[0].GetCheckpoints() != 5 || got[0].GetUnreadable() != 1 || got[0].GetAgeMs() != 3000 {
		t.Errorf("told %v", got)
	}
	u.set("bob", usage.Use{Bytes: 8}, now)
	if got := u.takeNew(now); len(got) != 1 || got[0].GetBytes() != 8 {
		t.Errorf("told %v, want what is new", got)
	}
	if u.tellAgain(); len(u.takeNew(now)) != 2 || len(u.takeNew(now)) != 0 {
		t.Error("another leader is not told all of it once")
	}
	if !u.fresh("bob", now) || u.fresh("bob", now.Add(measureEvery)) || u.fresh("cara", now) {
		t.Error("what has been measured of late is not known")
	}
	for i := range 3 * maxUses {
		u.set(fmt.Sprint(i), usage.Use{}, now)
	}
	if n := len(u.takeNew(now)); n == 0 || n > maxUses {
		t.Errorf("%d users are remembered", n)
	}
	var full uses
	for i := range maxUses {
		full.set(fmt.Sprint(i), usage.Use{}, now)
	}
	if full.set("7", usage.Use{Bytes: 1}, now); len(full.takeNew(now)) != maxUses {
		t.Error("a user who is measured again makes all others forgotten")
	}
}
