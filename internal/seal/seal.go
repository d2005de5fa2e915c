package seal

import (
	"crypto/cipher"
	"crypto/rand"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/openworkload/skyport"
)

const (
	keySize = chacha20poly1305.KeySize
	// version is the first byte of a box: it, then the nonce, then what the
	// cipher made of the plain bytes, with its tag at the end.
	version = 1
	// overhead is how much longer a box is than what is in it.
	overhead = 1 + chacha20poly1305.NonceSizeX + chacha20poly1305.Overhead
	// maxPlain bounds what is sealed: secrets are small.
	maxPlain = 16 << 20
)

// Sealer seals and opens boxes with one key. Safe for concurrent use.
type Sealer struct{ aead cipher.AEAD }

// New returns the sealer of a key of 32 bytes.
func New(key []byte) (*Sealer, error) {
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, skyport.Errorf(skyport.CodeInvalid, "sealing key: %w", err)
	}
	return &Sealer{aead}, nil
}

// Seal returns a box with the plain bytes, which opens under the same context
// only.
func (s *Sealer) Seal(context string, plain []byte) ([]byte, error) {
	if len(plain) > maxPlain {
		return nil, skyport.Errorf(skyport.CodeTooLarge, "seal %s: more than %d bytes", context, maxPlain)
	}
	box := make([]byte, 1+chacha20poly1305.NonceSizeX, overhead+len(plain))
	box[0] = version
	nonce := box[1:]
	_, _ = rand.Read(nonce) // never fails: the program ends when there is no randomness
	return s.aead.Seal(box, nonce, plain, additional(context)), nil
}

// Open returns what was sealed under the context. Any other box, key or
// context is CodeConflict; the error tells nothing of what is inside.
func (s *Sealer) Open(context string, box []byte) ([]byte, error) {
	switch {
	case len(box) > 0 && box[0] != version:
		return nil, skyport.Errorf(skyport.CodeConflict, "open %s: it was sealed in format %d, this program knows %d", context, box[0], version).
			WithHint("use the newer skyport that sealed it")
	case len(box) < overhead || len(box) > overhead+maxPlain:
		return nil, errCannotOpen(context)
	}
	plain, err := s.aead.Open(nil, box[1:1+chacha20poly1305.NonceSizeX], box[1+chacha20poly1305.NonceSizeX:], additional(context))
	if err != nil {
		return nil, errCannotOpen(context)
	}
	return plain, nil
}

// additional binds a box to its format and what it is for.
func additional(context string) []byte { return append([]byte{version}, context...) }

func errCannotOpen(context string) error {
	return skyport.Errorf(skyport.CodeConflict, "open %s: it is damaged, or was sealed with another key", context).
		WithHint("restore the sealing key from the backup that the database is of, or set the secret again")
}
