package api

import (
	"bytes"
	"testing"
)

// TestSecretIsMadeOfAllShares: who has the same shares has the same secret; another job, epoch, order or share has another; none is made
// while a share is missing.
func TestSecretIsMadeOfAllShares(t *testing.T) {
	t.Parallel()
	of := func(shares ...string) *meeting {
		m := &meeting{epoch: 3}
		for _, s := range shares {
			m.shares = append(m.shares, []byte(s))
		}
		return m
	}
	secret := of("a", "b").secret(7)
	if len(secret) != 32 || !bytes.Equal(secret, of("a", "b").secret(7)) {
		t.Errorf("a leader made %x, the next one %x of the same shares", secret, of("a", "b").secret(7))
	}
	later := of("a", "b")
	later.epoch = 4
	for what, other := range map[string][]byte{
		"another share": of("a", "c").secret(7), "another order": of("b", "a").secret(7), "another job": of("a", "b").secret(8),
		"another epoch": later.secret(7),
	} {
		if bytes.Equal(secret, other) {
			t.Errorf("%s has the same secret", what)
		}
	}
	if got := of("a", "").secret(7); got != nil {
		t.Errorf("a secret of one share of two: %x", got)
	}
}
