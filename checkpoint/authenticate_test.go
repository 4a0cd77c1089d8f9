package checkpoint_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/zeebo/xxh3"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/faultfs"
)

const manifest = "/MANIFEST.json"

// forge changes the body of a manifest's or sidecar's file, or its format, as somebody without the key can: the checksum is right again.
func forge(t *testing.T, data []byte, from, to string) []byte {
	t.Helper()
	head, body, ok := bytes.Cut(data, []byte(`,"body":`))
	changed := bytes.Replace(body[:len(body)-2], []byte(from), []byte(to), 1)
	if !ok || bytes.Equal(changed, body[:len(body)-2]) {
		t.Fatalf("%q is not in the body of %.200s", from, data)
	}
	at := bytes.Index(head, []byte(`"xxh3_128":"`)) + len(`"xxh3_128":"`)
	copy(head[at:], fmt.Sprintf("%x", xxh3.Hash128(changed).Bytes()))
	return append(append(append(head, `,"body":`...), changed...), '}', '\n')
}

// TestForgedManifestsAreRefused: who can write the storage, and has no key, changes the newest checkpoint in all ways. Nothing of that is taken:
// it is an older one, or an error.
func TestForgedManifestsAreRefused(t *testing.T) {
	t.Parallel()
	k := testKey(t, 3)
	for what, attack := range map[string]struct {
		change func(d *faultfs.FS, m *checkpoint.Manifest, file []byte) []byte
		want   error // of Latest; nil: it gives the one before
	}{
		"a changed number": {change: func(_ *faultfs.FS, _ *checkpoint.Manifest, file []byte) []byte {
			return forge(t, file, `"lr":"0.1"`, `"lr":"9.9"`)
		}},
		"two tensors' names swapped": {change: func(_ *faultfs.FS, _ *checkpoint.Manifest, file []byte) []byte {
			file = forge(t, file, `"name":"rng/0"`, `"name":"tmp/0"`)
			file = forge(t, file, `"name":"rng/1"`, `"name":"rng/0"`)
			return forge(t, file, `"name":"tmp/0"`, `"name":"rng/1"`)
		}},
		"the one before under its name": {change: func(d *faultfs.FS, m *checkpoint.Manifest, _ []byte) []byte {
			return readAll(t, d, ref(1, 1).String()+manifest)
		}},
		"the one before with its step": {change: func(d *faultfs.FS, m *checkpoint.Manifest, _ []byte) []byte {
			return forge(t, readAll(t, d, ref(1, 1).String()+manifest), `"step":1,`, `"step":2,`)
		}},
		"another HMAC": {change: func(_ *faultfs.FS, _ *checkpoint.Manifest, file []byte) []byte {
			at := bytes.Index(file, []byte(`"hmac_sha256":"`)) + len(`"hmac_sha256":"`)
			file[at] ^= 1
			return file
		}},
		"a sidecar for a manifest": {change: func(d *faultfs.FS, m *checkpoint.Manifest, _ []byte) []byte {
			return readAll(t, d, m.Dir+"/shard-0000-of-0002.json")
		}},
		"no HMAC": {change: func(_ *faultfs.FS, m *checkpoint.Manifest, _ []byte) []byte {
			plain, err := m.Encode()
			if err != nil {
				t.Fatal(err)
			}
			return plain
		}, want: checkpoint.ErrUnauthenticated},
		"another's key": {change: func(_ *faultfs.FS, m *checkpoint.Manifest, _ []byte) []byte {
			other := faultfs.New()
			s := openAs(t, other, checkpoint.Config{Key: testKey(t, 66)})
			mustFence(t, s, 1)
			mustMix(t, s, m.Ref(), 2)
			return readAll(t, other, m.Dir+manifest)
		}, want: checkpoint.ErrKey},
	} {
		disk := faultfs.New()
		s := openAs(t, disk, checkpoint.Config{Key: k, ReferenceShare: -1})
		mustFence(t, s, 1)
		mustMix(t, s, ref(1, 1), 2)
		m := mustMix(t, s, ref(1, 2), 2)
		put(t, disk, m.Dir+manifest, attack.change(disk, &m, readAll(t, disk, m.Dir+manifest)))
		fresh := openAs(t, disk, checkpoint.Config{Key: k})
		got, skipped, err := fresh.Latest(t.Context())
		switch {
		case !errors.Is(err, attack.want):
			t.Errorf("%s: %v, want %v", what, err, attack.want)
		case attack.want == nil && (got.Ref() != ref(1, 1) || len(skipped) != 1):
			t.Errorf("%s: latest is %v, skipped %v", what, got.Ref(), skipped)
		}
		if _, err := fresh.Load(t.Context(), m.Ref()); err == nil {
			t.Errorf("%s: was loaded", what)
		}
	}
}

// TestForgedShardsAreNotCommitted: the one who commits takes only what ranks with the key have written, and nothing that was committed for it.
func TestForgedShardsAreNotCommitted(t *testing.T) {
	t.Parallel()
	k := testKey(t, 3)
	for what, attack := range map[string]func(d *faultfs.FS, dir, side string){
		"a changed sidecar": func(d *faultfs.FS, dir, side string) {
			put(t, d, dir+side, forge(t, readAll(t, d, dir+side), `"data_position":"1"`, `"data_position":"7"`))
		},
		"a sidecar without a key": func(d *faultfs.FS, dir, side string) {
			if _, err := openAs(t, d, checkpoint.Config{}).WriteShard(t.Context(), mixed(ref(1, 1), 1, 2)); err != nil {
				t.Fatal(err)
			}
		},
		"a manifest": func(d *faultfs.FS, dir, side string) {
			if _, err := openAs(t, d, checkpoint.Config{}).Commit(t.Context(), commitOf(ref(1, 1), 2)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		disk := faultfs.New()
		s := openAs(t, disk, checkpoint.Config{Key: k, AcceptUnauthenticated: what == "a sidecar without a key"})
		mustFence(t, s, 1)
		for rank := range 2 {
			if _, err := s.WriteShard(t.Context(), mixed(ref(1, 1), rank, 2)); err != nil {
				t.Fatal(err)
			}
		}
		attack(disk, ref(1, 1).String()+"/", "shard-0001-of-0002.json")
		if _, err := s.Commit(t.Context(), commitOf(ref(1, 1), 2)); err == nil {
			t.Errorf("%s: was committed", what)
		}
		if m, _, err := openAs(t, disk, checkpoint.Config{Key: k}).Latest(t.Context()); err == nil {
			t.Errorf("%s: %v is resumed from", what, m.Ref())
		}
	}
}

// TestWhoHasNoKeyPassesItOn: agents that settle and copy need no key, and what they pass on is authenticated as it was.
func TestWhoHasNoKeyPassesItOn(t *testing.T) {
	t.Parallel()
	k := testKey(t, 3)
	shared, own := faultfs.New(), faultfs.New()
	s := openAs(t, shared, checkpoint.Config{Key: k, Local: &checkpoint.Local{FS: own}})
	mustFence(t, s, 1)
	m := mustMix(t, s, ref(1, 1), 2)
	agent := openAs(t, shared, checkpoint.Config{})
	for _, sh := range m.Shards {
		p, err := agent.LocalShard(t.Context(), m.Ref(), sh.File)
		if err != nil {
			t.Fatal(err)
		}
		src, err := own.Open(p.File())
		if err == nil {
			err = agent.Drain(t.Context(), p, src, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	m, _, err := agent.Settle(t.Context(), m.Ref())
	if err != nil || m.AuthKey != k.ID() {
		t.Fatalf("settled: %v, authenticated with %q", err, m.AuthKey)
	}
	wantMixed(t, openAs(t, shared, checkpoint.Config{Key: k}), m.Ref())

	file, err := agent.ManifestFile(&m)
	if err != nil {
		t.Fatal(err)
	}
	away := faultfs.New()
	_, err = openAs(t, away, checkpoint.Config{}).Receive(t.Context(), file, func(_ context.Context, name string, at int64, dst []byte) error {
		copy(dst, readAll(t, shared, m.Dir+"/"+name)[at:])
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	wantMixed(t, openAs(t, away, checkpoint.Config{Key: k}), m.Ref())
	if _, err := openAs(t, faultfs.New(), checkpoint.Config{Key: k}).Receive(t.Context(), forge(t, file, `"lr":"0.1"`, `"lr":"9.9"`), nil); err == nil {
		t.Error("a forged manifest was received")
	}
}

// TestBeforeThereWasAKey: what was saved in the clear is taken once a person says so; the next save is authenticated, and Collect counts none
// that it can not judge among those that stay, and removes none of them for want of others.
func TestBeforeThereWasAKey(t *testing.T) {
	t.Parallel()
	disk := faultfs.New()
	s := openAs(t, disk, checkpoint.Config{})
	mustFence(t, s, 1)
	for step := uint64(1); step <= 3; step++ {
		mustMix(t, s, ref(1, step), 2)
	}
	k := testKey(t, 3)
	strict := openAs(t, disk, checkpoint.Config{Key: k})
	if _, _, err := strict.Latest(t.Context()); !errors.Is(err, checkpoint.ErrUnauthenticated) || !strings.Contains(err.Error(), checkpoint.EnvUnauthenticated) {
		t.Errorf("%v, want ErrUnauthenticated and what to do", err)
	}
	s = openAs(t, disk, checkpoint.Config{Key: k, AcceptUnauthenticated: true})
	mustFence(t, s, 2)
	wantLatest(t, s, ref(1, 3))
	mustMix(t, s, ref(2, 4), 2)
	wantMixed(t, strict, ref(2, 4))
	wantLatest(t, strict, ref(2, 4))
	if out, err := strict.Collect(t.Context(), checkpoint.CollectRequest{Epoch: 2, Keep: 2}); err != nil || len(out.Removed) > 0 {
		t.Errorf("removed %v, %v", out.Removed, err)
	}
	// A change of the key: the old one still vouches for what it has written.
	next := openAs(t, disk, checkpoint.Config{Key: testKey(t, 4), OldKeys: []*checkpoint.Key{k}})
	wantLatest(t, next, ref(2, 4))
	// Encryption that was given up: what comes then is in the clear, and is taken.
	off := openAs(t, disk, checkpoint.Config{OldKeys: []*checkpoint.Key{k}})
	mustFence(t, off, 3)
	wantMixed(t, off, ref(2, 4))
	mustMix(t, off, ref(3, 5), 2)
	wantLatest(t, off, ref(3, 5))
}
