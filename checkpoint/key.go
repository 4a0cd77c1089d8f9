package checkpoint

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// KeyBytes is the length of a key: AES-256.
const KeyBytes = 32

// keyIDBytes is the length of a key's id before it is written in hexadecimal.
const keyIDBytes = 8

// Key encrypts checkpoints at rest, and authenticates their manifests. It is never written anywhere; manifests hold its ID.
type Key struct {
	secret [KeyBytes]byte
	auth   []byte // authenticates manifests; derived
	id     string
}

// NewKey gives the key of 32 secret bytes. They are copied.
func NewKey(secret []byte) (*Key, error) {
	if len(secret) != KeyBytes {
		return nil, fmt.Errorf("%w: a key has %d bytes, want %d", ErrInvalid, len(secret), KeyBytes)
	}
	auth, err := deriveAuth(secret)
	if err != nil {
		return nil, err
	}
	k := &Key{secret: [KeyBytes]byte(secret), auth: auth}
	k.id = hex.EncodeToString(k.mac("gangline checkpoint key id", nil)[:keyIDBytes])
	return k, nil
}

// ID tells keys apart, in 16 hexadecimal digits; the key can not be found from it.
func (k *Key) ID() string { return k.id }

// String gives the ID, so that a key that is printed by mistake gives nothing away.
func (k *Key) String() string { return "key " + k.id }

// GoString is as String.
func (k *Key) GoString() string { return k.String() }

func (k *Key) mac(what string, data []byte) []byte {
	h := hmac.New(sha256.New, k.secret[:])
	h.Write([]byte(what))
	h.Write(data)
	return h.Sum(nil)
}

// fileKey gives the key of one shard's file: of its salt, and bound to where the file belongs, so that no chunk of another file, job or
// step can be read in its place. Each is used for one file, so that chunk numbers can be its nonces.
func (k *Key) fileKey(salt []byte, job string, ref Ref, rank, worldSize int, bytes, chunkBytes int64) ([]byte, error) {
	bind := fmt.Sprintf("gangline checkpoint file\x00%q %d %d %d %d %d %d", job, ref.Epoch, ref.Step, rank, worldSize, bytes, chunkBytes)
	return hkdf.Key(sha256.New, k.secret[:], salt, bind, KeyBytes)
}

// maxKeySource bounds what is read in search of a key.
const maxKeySource = 4096

// LoadKey reads a key from where ref says: "file:PATH", "env:NAME" (asked of getenv), or "command:COMMAND", which the shell runs and which
// prints it, with this process's standard error. Errors name ref, and never what was found there.
func LoadKey(ctx context.Context, ref string, getenv func(string) string) (*Key, error) {
	kind, at, _ := strings.Cut(ref, ":")
	var data []byte
	var err error
	switch kind {
	case "file":
		data, err = readKeyFile(at)
	case "env":
		if data = []byte(getenv(at)); len(data) == 0 {
			err = errors.New("the variable is not set")
		}
	case "command":
		data, err = commandOutput(ctx, at)
	default:
		err = fmt.Errorf("%w: want file:PATH, env:NAME or command:COMMAND", ErrInvalid)
		at = "" // somebody may have put the key itself there
	}
	if err != nil {
		return nil, fmt.Errorf("key from %s:%s: %w", clipKind(kind, at), at, err)
	}
	k, err := ParseKey(data)
	if err != nil {
		return nil, fmt.Errorf("key from %s: %w", ref, err)
	}
	return k, nil
}

// ParseKey gives the key of 32 raw bytes, or of those in hexadecimal or base64 with blanks around. Errors do not quote data.
func ParseKey(data []byte) (*Key, error) {
	secret, err := decodeKey(data)
	if err != nil {
		return nil, err
	}
	return NewKey(secret)
}

// clipKind hides a reference of no known kind.
func clipKind(kind, at string) string {
	if at == "" && kind != "file" && kind != "env" && kind != "command" {
		return "..."
	}
	return kind
}

func readKeyFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was only read from
	return io.ReadAll(io.LimitReader(f, maxKeySource))
}

func commandOutput(ctx context.Context, command string) ([]byte, error) {
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	cmd.Stdout, cmd.Stderr = &limited{w: &out, left: maxKeySource}, os.Stderr
	err := cmd.Run()
	return out.Bytes(), err
}

// limited takes so many bytes and then fails.
type limited struct {
	w    io.Writer
	left int
}

// Write passes on what fits.
func (l *limited) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, fmt.Errorf("it prints more than %d bytes, which is no key", maxKeySource)
	}
	return l.w.Write(p)
}

// decodeKey reads a key in one of its forms.
func decodeKey(data []byte) ([]byte, error) {
	if len(data) == KeyBytes {
		return data, nil
	}
	text := string(bytes.TrimSpace(data))
	if b, err := hex.DecodeString(text); err == nil && len(b) == KeyBytes {
		return b, nil
	}
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		if b, err := enc.DecodeString(text); err == nil && len(b) == KeyBytes {
			return b, nil
		}
	}
	return nil, fmt.Errorf("%w: what is there is no key: want %d bytes, raw, in hexadecimal or in base64, such as of: openssl rand -hex %d", ErrInvalid, KeyBytes, KeyBytes)
}
