package checkpoint

import (
	"bytes"
	"strings"
	"testing"
)

// TestAuthenticationIsFixed compares with what Python's hmac module makes of the same key and body, so that later releases read what this one wrote:
//
//	auth = expand(extract(salt=b"", secret=bytes(32)), b"gangline checkpoint manifest", 32)     # RFC 5869, SHA-256
//	hmac.new(auth, b"gangline-checkpoint\0" + b"4\0" + b'{"a":1}', "sha256").hexdigest()
func TestAuthenticationIsFixed(t *testing.T) {
	t.Parallel()
	k, err := NewKey(make([]byte, KeyBytes))
	if err != nil {
		t.Fatal(err)
	}
	file, err := seal(manifestFormat, map[string]int{"a": 1}, k)
	want := `{"format":"gangline-checkpoint","version":4,"xxh3_128":"` + sumOf([]byte(`{"a":1}`)).String() +
		`","key":"539fb3dd095ed534","hmac_sha256":"e0484103d428bc1a31c22724788a5aa592dd4b28cbb2085b3d5d4c4d205f1e94","body":{"a":1}}` + "\n"
	if err != nil || string(file) != want {
		t.Errorf("%v\n%s\nwant\n%s", err, file, want)
	}
	if plain, err := seal(manifestFormat, map[string]int{"a": 1}, nil); err != nil || !strings.Contains(string(plain), `"version":3,`) || bytes.Contains(plain, []byte("hmac")) {
		t.Errorf("without a key: %s, %v", plain, err)
	}
}
