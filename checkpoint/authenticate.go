package checkpoint

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"fmt"
)

// authKeyLabel derives the key that authenticates manifests from the one that a user gives, so that neither says anything about the other.
const authKeyLabel = "gangline checkpoint manifest"

// authenticate gives the HMAC of an envelope: of its format (a sidecar is no manifest), its version and its body.
func (k *Key) authenticate(e *envelope) mac {
	h := hmac.New(sha256.New, k.auth)
	fmt.Fprintf(h, "%s\x00%d\x00", e.Format, e.Version)
	h.Write(e.Body)
	return mac(h.Sum(nil))
}

func deriveAuth(secret []byte) ([]byte, error) {
	return hkdf.Key(sha256.New, secret, nil, authKeyLabel, sha256.Size)
}

// authenticate says whether a manifest or a sidecar, which has been parsed, was written by somebody with a key of this Store. A Store that
// writes with a key takes nothing else: who can write the storage must not be able to take the key away. One without knows nothing of it.
func (s *Store) authenticate(name string, data []byte) error {
	e, ok := splitEnvelope(data)
	if !ok || len(s.keys) == 0 {
		return nil // an envelope of another form is not parsed
	}
	if e.Key == "" {
		if s.key == nil || s.unauthenticated && e.Format == manifestFormat {
			return nil
		}
		return fmt.Errorf("%s: %w, and this job's must be with key %s. "+
			"If it was saved before there was a key, or by a release before this one, let a start take it with %s=accept; else somebody else has written it",
			name, ErrUnauthenticated, s.key.id, EnvUnauthenticated)
	}
	k := s.findKey(e.Key)
	switch {
	case k == nil && s.key == nil:
		return nil
	case k == nil:
		return fmt.Errorf("%s: %w: it is authenticated with key %s, and what is given is key %s", name, ErrKey, e.Key, s.key.id)
	}
	if want := k.authenticate(&e); !hmac.Equal(want[:], e.MAC[:]) {
		return corrupt(name, -1, "what a holder of key "+k.id+" wrote", "another HMAC: it was changed")
	}
	return nil
}

// encode gives the bytes of a manifest's file, authenticated if this Store has a key to write with.
func (s *Store) encode(m *Manifest) ([]byte, error) {
	if s.key != nil {
		m.AuthKey = s.key.id
	}
	return m.encode(s.key)
}

// ManifestFile gives the bytes of a complete checkpoint's manifest, for a copy elsewhere: as they lie there, so that who has no key can copy one that
// is authenticated. m is what Load gave; if the file has come to say something else, the error is a *CorruptError.
func (s *Store) ManifestFile(m *Manifest) ([]byte, error) {
	name := m.Dir + "/" + manifestName
	data, err := s.readSmall(name)
	if err != nil {
		return nil, err
	}
	if err := SameManifest(data, m); err != nil {
		return nil, corrupt(name, -1, "the manifest that was read before", err.Error())
	}
	return data, s.authenticate(name, data)
}

// SameManifest says how a manifest's file differs from m, but for the version of its envelope: nil, it does not.
func SameManifest(file []byte, m *Manifest) error {
	other, err := ParseManifest(file)
	if err != nil {
		return err
	}
	a, err := json.Marshal(&other)
	if err != nil {
		return err
	}
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if !bytes.Equal(a, b) || other.AuthKey != m.AuthKey {
		return fmt.Errorf("%w: another one, of %s with %d bytes, authenticated with key %q; want %s with %d bytes, key %q",
			ErrInvalid, other.Ref(), other.Bytes(), other.AuthKey, m.Ref(), m.Bytes(), m.AuthKey)
	}
	return nil
}

func (s *Store) findKey(id string) *Key {
	for _, k := range s.keys {
		if k.id == id {
			return k
		}
	}
	return nil
}
