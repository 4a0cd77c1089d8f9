package checkpoint

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

const (
	manifestFormat = "gangline-checkpoint"
	sidecarFormat  = "gangline-shard"
	// plainVersion is what is written without a key, and the highest that may have none.
	plainVersion = 3
)

// mac is an HMAC-SHA256.
type mac [32]byte

// MarshalText gives it in hexadecimal.
func (m mac) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, m[:]), nil }

// UnmarshalText reads 64 hexadecimal digits.
func (m *mac) UnmarshalText(text []byte) error {
	if len(text) != 2*len(m) {
		return fmt.Errorf("HMAC has %d digits, want %d", len(text), 2*len(m))
	}
	_, err := hex.Decode(m[:], text)
	return err
}

// envelope is the outer object of all JSON files: the checksum, and the HMAC of an authenticated one, are of the body's bytes as they stand.
type envelope struct {
	Format  string          `json:"format"`
	Version int             `json:"version"`
	Sum     Sum             `json:"xxh3_128"`
	Key     string          `json:"key"` // Key.ID of the key that it is authenticated with; "": it is not
	MAC     mac             `json:"hmac_sha256"`
	Body    json.RawMessage `json:"body"`
}

// seal encodes a body in its envelope, authenticated with k unless that is nil. It writes the outer object by hand, because the encoder would
// rewrite the body whose bytes have been summed.
func seal(format string, body any, k *Key) ([]byte, error) {
	raw, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", format, err)
	}
	e := envelope{Format: format, Version: plainVersion, Sum: sumOf(raw), Body: raw}
	if k != nil {
		e.Version, e.Key = FormatVersion, k.id
		e.MAC = k.authenticate(&e)
	}
	out := e.bytes()
	if len(out) > MaxManifestBytes {
		return nil, fmt.Errorf("%w: %s would have %d bytes, at most %d are allowed: use larger chunks or fewer tensors",
			ErrInvalid, format, len(out), MaxManifestBytes)
	}
	return out, nil
}

// bytes gives the file.
func (e *envelope) bytes() []byte {
	out := fmt.Appendf(make([]byte, 0, MaxNameBytes+len(e.Body)), `{"format":%q,"version":%d,"xxh3_128":%q`, e.Format, e.Version, e.Sum)
	if e.Key != "" {
		out = fmt.Appendf(out, `,"key":%q,"hmac_sha256":"%x"`, e.Key, e.MAC[:])
	}
	out = append(out, `,"body":`...)
	return append(append(out, e.Body...), '}', '\n')
}

// unseal checks an envelope but for its authentication, and decodes its body.
func unseal(format string, data []byte, body any) (envelope, error) {
	e, ok := splitEnvelope(data)
	if !ok { // whatever it is, say it well
		if err := json.Unmarshal(data, &e); err != nil {
			return e, fmt.Errorf("not JSON: %w", err)
		}
	}
	if e.Format != format {
		return e, fmt.Errorf("format is %q, want %q", e.Format, format)
	}
	if e.Version < 1 || e.Version > FormatVersion {
		return e, fmt.Errorf("format version is %d, this release reads 1 to %d: use the release that wrote it", e.Version, FormatVersion)
	}
	if got := sumOf(e.Body); got != e.Sum {
		return e, fmt.Errorf("checksum of the body is %s, the file says %s", got, e.Sum)
	}
	// JSON forgives a key's changed case, blanks, and more; a damaged file gets no such grace.
	if !bytes.Equal(data, e.bytes()) {
		return e, errors.New("the outer object is not as this package writes it")
	}
	if (e.Version > plainVersion) != (e.Key != "") || e.Key != "" && len(e.Key) != 2*keyIDBytes {
		return e, fmt.Errorf("format version %d with key %.40q: from version %d on there is a key of %d digits, and none below", e.Version, e.Key, plainVersion+1, 2*keyIDBytes)
	}
	if err := json.Unmarshal(e.Body, body); err != nil {
		return e, fmt.Errorf("body: %w", err)
	}
	return e, nil
}

// splitEnvelope takes an envelope apart that has the form in which it is written, without a look at the body: scanning a manifest of
// ten thousand tensors costs as much as decoding it. False: it has another form.
func splitEnvelope(data []byte) (e envelope, ok bool) {
	head, body, ok := bytes.Cut(data, []byte(`,"body":`))
	if !ok || len(body) < 2 || len(head) > MaxNameBytes {
		return e, false
	}
	if err := json.Unmarshal(append(slices.Clone(head), '}'), &e); err != nil {
		return e, false
	}
	e.Body = body[:len(body)-2]
	return e, true
}
