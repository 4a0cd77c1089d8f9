package grpclink

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"

	"github.com/gangline/gangline/allreduce"
)

// nonceBytes makes each greeting one of its own: what proves one proves no other.
const nonceBytes = 16

// newNonce returns a random text.
func newNonce() string {
	b := make([]byte, nonceBytes)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// Who proves what. Each proof is for one use: it is worth nothing in the place of another.
const (
	roleServer     = "the next rank greets"
	roleClient     = "the previous rank chooses"
	roleData       = "the previous rank connects"
	roleDataServer = "the next rank is connected to"
)

// session is one exchange of greetings, as both sides saw it.
type session struct {
	secret         []byte
	client, server allreduce.Header // the two hellos; Token holds each side's nonce
}

// prove returns what only who knows the secret can say of this exchange: a text of 64 hexadecimal digits. said is what it says further.
func (s *session) prove(role, said string) string {
	return hex.EncodeToString(s.sum(role, said))
}

// proves checks a proof in constant time.
func (s *session) proves(role, said, proof string) bool {
	shown, err := hex.DecodeString(proof)
	return err == nil && hmac.Equal(shown, s.sum(role, said))
}

func (s *session) sum(role, said string) []byte {
	mac := hmac.New(sha256.New, s.secret)
	text := func(t string) { // with its length, so that no two sequences of texts look alike
		_ = binary.Write(mac, binary.LittleEndian, uint64(len(t))) // a hash takes everything
		_, _ = mac.Write([]byte(t))                                // as above
	}
	text("gangline ring 1")
	text(role)
	for _, h := range []*allreduce.Header{&s.client, &s.server} {
		for _, v := range []uint64{
			h.Job, h.Epoch, uint64(h.Formation), h.Index, h.Length, uint64(h.Rank), uint64(h.WorldSize), uint64(h.Window), uint64(h.ChunkBytes), //nolint:gosec // none is negative
		} {
			_ = binary.Write(mac, binary.LittleEndian, v) // as above
		}
		text(h.Token)
		text(h.Socket)
	}
	text(said)
	return mac.Sum(nil)
}
