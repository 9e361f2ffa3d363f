package webhook

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"
)

// A Vault encrypts secrets, so that readers of rows or backups cannot sign webhooks.
type Vault struct{ keys []cipher.AEAD }

// NewVault makes a vault from keys separated by commas. The first encrypts; all of them decrypt.
func NewVault(keys string) (*Vault, error) {
	v := &Vault{}
	for key := range strings.SplitSeq(keys, ",") {
		if len(key) < MinKey {
			return nil, fmt.Errorf("a key has %d bytes and needs %d or more, such as openssl rand -hex 32 prints", len(key), MinKey)
		}
		derived, err := hkdf.Key(sha256.New, []byte(key), nil, "tramo webhook secrets", 32)
		if err != nil {
			return nil, err
		}
		block, err := aes.NewCipher(derived)
		if err != nil {
			return nil, err
		}
		aead, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			return nil, err
		}
		v.keys = append(v.keys, aead)
	}
	return v, nil
}

const (
	secretPrefix = "whsec_" // Standard Webhooks 1.0.0, "Signature scheme"
	secretSize   = 32       // bytes; the specification asks for 24 to 64
)

// newSecret returns a secret in the form that people see.
func newSecret() string {
	b := make([]byte, secretSize)
	_, _ = rand.Read(b) // never fails
	return secretPrefix + base64.StdEncoding.EncodeToString(b)
}

// seal encrypts the secret of the tenant's endpoint. It can be decrypted for that endpoint only.
func (v *Vault) seal(tenant, endpoint uuid.UUID, secret string) []byte {
	return v.keys[0].Seal(nil, nil, []byte(secret), owner(tenant, endpoint)) //nolint:gosec // the cipher draws the nonce itself
}

var errSealed = errors.New("no key in TRAMO_WEBHOOK_KEY opens the endpoint's secret")

func (v *Vault) open(tenant, endpoint uuid.UUID, sealed []byte) (string, error) {
	for _, key := range v.keys {
		if secret, err := key.Open(nil, nil, sealed, owner(tenant, endpoint)); err == nil {
			return string(secret), nil
		}
	}
	return "", errSealed
}

func owner(tenant, endpoint uuid.UUID) []byte { return append(tenant[:], endpoint[:]...) }
