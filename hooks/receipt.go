package hooks

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

// Why there is no receipt. A [tenant.Refusal] may wrap one of them.
var (
	ErrReceiptsOff     = errors.New("no key to sign receipts with")
	ErrReceiptNotReady = errors.New("upload is not complete yet")
	ErrNoReceipt       = errors.New("upload will never have a receipt")
)

// ReceiptType is the typ header of a receipt. It distinguishes receipts from other kinds of tokens (RFC 8725, section 3.11).
const ReceiptType = "tramo-receipt+jwt"

// A Receipt promises that the server holds Size bytes whose SHA-256 is SHA256 and has enqueued their
// processing: the original may be deleted from the phone. docs/reference/receipts.md says what it does not promise.
type Receipt struct {
	jwt.RegisteredClaims           // iss; sub, the upload's id; iat, when it became uploaded
	Tenant               uuid.UUID `json:"tenant"`
	ClientID             string    `json:"client_id,omitempty"` // the client's own id of the file
	Filename             string    `json:"filename,omitempty"`
	Size                 int64     `json:"size"`        // bytes
	SHA256               string    `json:"sha256"`      // 64 hexadecimal digits
	UploadedAt           time.Time `json:"uploaded_at"` // UTC
}

// ReceiptConfig has the issuer and the keys of receipts.
type ReceiptConfig struct {
	Issuer  string              `kong:"-"` // the claim iss
	Key     ed25519.PrivateKey  `kong:"-"` // nil: no receipts are signed
	Retired []ed25519.PublicKey `kong:"-"` // published for receipts from before a rotation

	// ReadKeys reads Key and Retired from these files.
	KeyFile         string `name:"receipt-key-file" placeholder:"FILE" help:"Ed25519 private key that signs receipts, as PEM, such as openssl genpkey -algorithm ed25519 prints. Without it there are no receipts."`
	RetiredKeysFile string `name:"receipt-retired-keys-file" placeholder:"FILE" help:"Public keys that signed earlier receipts, as PEM, one after another. They are published beside the current one."`
}

// ReadKeys reads the keys from the configured files.
func (c *ReceiptConfig) ReadKeys() error {
	return errors.Join(
		readKeys("TRAMO_RECEIPT_KEY_FILE", c.KeyFile, ParseReceiptKey, &c.Key),
		readKeys("TRAMO_RECEIPT_RETIRED_KEYS_FILE", c.RetiredKeysFile, ParseReceiptPublicKeys, &c.Retired))
}

func readKeys[K any](variable, file string, parse func([]byte) (K, error), keys *K) error {
	if file == "" {
		return nil
	}
	text, err := os.ReadFile(file)
	if err == nil {
		*keys, err = parse(text)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", variable, err)
	}
	return nil
}

// Sign returns the receipt as a JWS in compact serialization (RFC 7515, section 7.1), signed with EdDSA
// (RFC 8037, section 3.1). The same receipt has the same signature each time.
func (c ReceiptConfig) Sign(r Receipt) (string, error) {
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, r)
	token.Header["typ"] = ReceiptType
	token.Header["kid"] = thumbprint(c.Key.Public().(ed25519.PublicKey))
	signed, err := token.SignedString(c.Key)
	if err != nil {
		return "", fmt.Errorf("sign receipt of upload %s: %w", r.Subject, err)
	}
	return signed, nil
}

// Receipts issues receipts for complete uploads.
type Receipts struct {
	db     *storage.DB
	config ReceiptConfig
	jwks   []byte
}

// NewReceipts issues receipts for the uploads in db.
func NewReceipts(db *storage.DB, c ReceiptConfig) (*Receipts, error) {
	jwks, err := c.publicKeys()
	if err != nil {
		return nil, fmt.Errorf("publish receipt keys: %w", err)
	}
	return &Receipts{db: db, config: c, jwks: jwks}, nil
}

// PublicKeys returns the JWK Set (RFC 7517, section 5) that verifies receipts: the key in use first.
func (r *Receipts) PublicKeys() []byte { return r.jwks }

// Issue returns the signed receipt of an upload of the tenant in ctx. It returns the same bytes each time, as long as key and
// issuer stay the same. Errors are [ErrReceiptsOff],
// [storage.ErrNotFound], [ErrReceiptNotReady] and [ErrNoReceipt].
func (r *Receipts) Issue(ctx context.Context, upload uuid.UUID) (string, error) {
	if r.config.Key == nil {
		return "", ErrReceiptsOff
	}
	who, err := tenant.From(ctx)
	if err != nil {
		return "", err
	}
	u, err := storage.InTenant(ctx, r.db, func(tx storage.Tx) (storage.Upload, error) { return tx.Upload(ctx, upload) })
	if err == nil {
		err = checkComplete(u)
	}
	if err != nil {
		return "", err
	}
	receipt := Receipt{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: r.config.Issuer, Subject: u.ID.String(), IssuedAt: jwt.NewNumericDate(*u.UploadedAt),
		},
		Tenant: who.Tenant, Size: u.Size, SHA256: hex.EncodeToString(u.SHA256), UploadedAt: u.UploadedAt.UTC(),
	}
	if u.ClientID != nil {
		receipt.ClientID = *u.ClientID
	}
	if u.Filename != nil {
		receipt.Filename = *u.Filename
	}
	return r.config.Sign(receipt)
}

// checkComplete refuses a receipt for an upload that is not safe.
func checkComplete(u storage.Upload) error {
	switch u.Status {
	case storage.Uploaded, storage.Processing, storage.Completed:
		if u.UploadedAt == nil || len(u.SHA256) == 0 {
			return fmt.Errorf("upload %s is %s without a time or a checksum", u.ID, u.Status)
		}
		return nil
	case storage.Pending, storage.Uploading:
		return ErrReceiptNotReady
	case storage.Failed:
		return tenant.Refuse(ErrNoReceipt, "This upload has failed (%s). Keep the original.", *u.FailureReason)
	}
	return tenant.Refuse(ErrNoReceipt, "This upload is %s. Keep the original, and send it again if it is wanted here.", u.Status)
}

// publicKeys encodes the JWK Set without duplicates.
func (c ReceiptConfig) publicKeys() ([]byte, error) {
	keys := c.Retired
	if c.Key != nil {
		keys = append([]ed25519.PublicKey{c.Key.Public().(ed25519.PublicKey)}, keys...)
	}
	set := jwkset.JWKSMarshal{Keys: []jwkset.JWKMarshal{}}
	seen := make(map[string]bool)
	for _, key := range keys {
		kid := thumbprint(key)
		if seen[kid] {
			continue
		}
		seen[kid] = true
		jwk, err := jwkset.NewJWKFromKey(key, jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{
			ALG: jwkset.AlgEdDSA, KID: kid, USE: jwkset.UseSig,
		}})
		if err != nil {
			return nil, err
		}
		set.Keys = append(set.Keys, jwk.Marshal())
	}
	return json.Marshal(set)
}

const (
	makeKey    = "openssl genpkey -algorithm ed25519"
	makePublic = "openssl pkey -pubout"
)

// ParseReceiptKey reads an Ed25519 private key from PEM (PKCS #8; RFC 8410, section 7).
func ParseReceiptKey(text []byte) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("there is no PEM in it; " + makeKey + " makes a key")
	}
	if block.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("it has a %s, and a PRIVATE KEY (PKCS #8, not encrypted) is needed; %s makes one", block.Type, makeKey)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("its PRIVATE KEY is not PKCS #8; " + makeKey + " makes one that is")
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, errors.New("its key is not an Ed25519 key; " + makeKey + " makes one")
	}
	return private, nil
}

// ParseReceiptPublicKeys reads concatenated Ed25519 public keys from PEM.
func ParseReceiptPublicKeys(text []byte) ([]ed25519.PublicKey, error) {
	var keys []ed25519.PublicKey
	for {
		block, rest := pem.Decode(text)
		switch {
		case block == nil && len(keys) == 0:
			return nil, errors.New("there is no PEM in it; " + makePublic + " prints a key's public half")
		case block == nil:
			return keys, nil
		case block.Type != "PUBLIC KEY":
			return nil, fmt.Errorf("it has a %s, and only PUBLIC KEYs are wanted; %s prints a key's public half", block.Type, makePublic)
		}
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		public, ok := key.(ed25519.PublicKey)
		if err != nil || !ok {
			return nil, fmt.Errorf("its PUBLIC KEY number %d is not an Ed25519 key", len(keys)+1)
		}
		keys, text = append(keys, public), rest
	}
}

// thumbprint returns the thumbprint of a key (RFC 7638, section 3, with the members of RFC 8037, section 2).
func thumbprint(key ed25519.PublicKey) string {
	sum := sha256.Sum256([]byte(`{"crv":"Ed25519","kty":"OKP","x":"` + base64.RawURLEncoding.EncodeToString(key) + `"}`))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
