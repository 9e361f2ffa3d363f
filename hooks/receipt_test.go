package hooks_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/hooks/hookstest"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

// seeded is the key of RFC 8037, appendix A.1.
func seeded(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	seed, err := base64.RawURLEncoding.DecodeString("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")
	stack.Must(t, err)
	return ed25519.NewKeyFromSeed(seed)
}

// thumbprint is that key's (RFC 8037, appendix A.3).
const thumbprint = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"

func (s *site) receipts(t *testing.T, c hooks.ReceiptConfig) *hooks.Receipts {
	t.Helper()
	r, err := hooks.NewReceipts(s.API, c)
	stack.Must(t, err)
	return r
}

// open takes a receipt apart by hand, and checks its signature.
func open(t *testing.T, receipt string, key ed25519.PublicKey) (header, claims map[string]any) {
	t.Helper()
	parts := strings.Split(receipt, ".")
	if len(parts) != 3 {
		t.Fatalf("%q is no JWS in compact serialization", receipt)
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	stack.Must(t, err)
	if !ed25519.Verify(key, []byte(parts[0]+"."+parts[1]), signature) {
		t.Error("the signature is not good")
	}
	for i, into := range []*map[string]any{&header, &claims} {
		text, err := base64.RawURLEncoding.DecodeString(parts[i])
		stack.Must(t, err)
		stack.Must(t, json.Unmarshal(text, into))
	}
	return header, claims
}

// A receipt names the tenant, the upload and its content, and is the same before, during and after processing.
func TestReceipt(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	key := seeded(t)
	receipts := s.receipts(t, hooks.ReceiptConfig{Issuer: "https://uploads.example.com", Key: key})
	ctx := s.NewTenant(t, 1000)
	id := s.admit(t, ctx, hooks.Request{Size: 10, Metadata: map[string]string{"filename": "obra.jpg", "client_id": "IMG_1"}})
	_, err := receipts.Issue(ctx, id)
	stack.WantErr(t, err, hooks.ErrReceiptNotReady)
	object, sum := s.Store(t, ctx, id, make([]byte, 10))
	stack.Must(t, s.Uploads.Record(ctx, s.Upload(t, ctx, id), object, sum))

	first, err := receipts.Issue(ctx, id)
	stack.Must(t, err)
	u := s.Upload(t, ctx, id)
	who, err := tenant.From(ctx)
	stack.Must(t, err)
	header, claims := open(t, first, key.Public().(ed25519.PublicKey))
	stack.Want(t, header, map[string]any{"alg": "EdDSA", "typ": "tramo-receipt+jwt", "kid": thumbprint}, "header")
	want := map[string]any{
		"iss": "https://uploads.example.com", "sub": id.String(), "iat": float64(u.UploadedAt.Unix()), "tenant": who.Tenant.String(),
		"client_id": "IMG_1", "filename": "obra.jpg", "size": 10.0, "sha256": hex.EncodeToString(sum),
		"uploaded_at": u.UploadedAt.UTC().Format(time.RFC3339Nano),
	}
	stack.Want(t, claims, want, "claims")

	for _, to := range []func(tx storage.Tx) error{
		func(tx storage.Tx) error { return tx.MarkProcessing(ctx, id, 1) },
		func(tx storage.Tx) error { return tx.Complete(ctx, id, storage.Results{}) },
	} {
		stack.Must(t, s.Worker.InTenant(ctx, to))
		again, err := receipts.Issue(hookstest.As(ctx, who.Tenant, "iris", tenant.Constructora), id)
		stack.Must(t, err)
		stack.Want(t, again, first, "another receipt")
	}
	_, err = receipts.Issue(s.NewTenant(t, 1000), id)
	stack.WantErr(t, err, storage.ErrNotFound)
	_, err = receipts.Issue(t.Context(), id)
	stack.WantErr(t, err, tenant.ErrNoIdentity)
	_, err = s.receipts(t, hooks.ReceiptConfig{}).Issue(ctx, id)
	stack.WantErr(t, err, hooks.ErrReceiptsOff)
}

// An upload that has ended otherwise than completed has no receipt, and the refusal says why.
func TestNoReceipt(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	receipts := s.receipts(t, hooks.ReceiptConfig{Key: seeded(t)})
	ctx := s.NewTenant(t, 1000)
	for word, end := range map[string]func(context.Context, uuid.UUID) error{
		"cancelled": s.Uploads.CancelRows,
		"lost":      s.Uploads.LoseRows,
		"infected": func(ctx context.Context, id uuid.UUID) error {
			object, sum := s.Store(t, ctx, id, make([]byte, 10))
			stack.Must(t, s.Uploads.Record(ctx, s.Upload(t, ctx, id), object, sum))
			return s.API.InTenant(ctx, func(tx storage.Tx) error {
				return tx.Move(ctx, id, storage.MoveFail.Because(storage.Failure{Reason: storage.ReasonInfected}))
			})
		},
		"expired": func(_ context.Context, id uuid.UUID) error {
			_, err := s.Admin(t).Exec(t.Context(), `update uploads set status = 'expired' where id = $1`, id)
			return err
		},
	} {
		a := s.admit(t, ctx, hooks.Request{Size: 10})
		stack.Must(t, end(ctx, a))
		receipt, err := receipts.Issue(ctx, a)
		var r *tenant.Refusal
		if receipt != "" || !errors.Is(err, hooks.ErrNoReceipt) || !errors.As(err, &r) || !strings.Contains(r.Detail, word) || !strings.Contains(r.Detail, "Keep the original") {
			t.Errorf("%s: %q, %v", word, receipt, err)
		}
	}
}

// The key in use and the retired ones are published, each once, and no private half is.
func TestPublishedKeys(t *testing.T) {
	t.Parallel()
	retired, _, err := ed25519.GenerateKey(nil)
	stack.Must(t, err)
	key := seeded(t)
	public := key.Public().(ed25519.PublicKey)
	for name, c := range map[string]struct {
		config hooks.ReceiptConfig
		want   []ed25519.PublicKey
	}{
		"none":         {hooks.ReceiptConfig{}, nil},
		"in use":       {hooks.ReceiptConfig{Key: key}, []ed25519.PublicKey{public}},
		"rotated":      {hooks.ReceiptConfig{Key: key, Retired: []ed25519.PublicKey{retired, public, retired}}, []ed25519.PublicKey{public, retired}},
		"only retired": {hooks.ReceiptConfig{Retired: []ed25519.PublicKey{retired}}, []ed25519.PublicKey{retired}},
	} {
		r, err := hooks.NewReceipts(nil, c.config)
		stack.Must(t, err)
		var set struct{ Keys []map[string]string }
		stack.Must(t, json.Unmarshal(r.PublicKeys(), &set))
		if set.Keys == nil {
			t.Errorf("%s: %s is no JWK Set", name, r.PublicKeys())
		}
		var got []ed25519.PublicKey
		for _, jwk := range set.Keys {
			x, err := base64.RawURLEncoding.DecodeString(jwk["x"])
			stack.Must(t, err)
			got = append(got, x)
			if jwk["d"] != "" || jwk["kty"] != "OKP" || jwk["crv"] != "Ed25519" || jwk["alg"] != "EdDSA" || jwk["use"] != "sig" || jwk["kid"] == "" {
				t.Errorf("%s: %v", name, jwk)
			}
		}
		if !slices.EqualFunc(got, c.want, func(a, b ed25519.PublicKey) bool { return a.Equal(b) }) {
			t.Errorf("%s: published are %s", name, r.PublicKeys())
		}
	}
}

// A key is read as openssl writes it; each mistake is answered with what would be right, and none with the key.
func TestReceiptKeyFiles(t *testing.T) {
	t.Parallel()
	encode := func(kind string, key any) []byte {
		marshal := x509.MarshalPKCS8PrivateKey
		if kind == "PUBLIC KEY" {
			marshal = x509.MarshalPKIXPublicKey
		}
		der, err := marshal(key)
		stack.Must(t, err)
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	ed := seeded(t)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	stack.Must(t, err)
	private, public := encode("PRIVATE KEY", ed), encode("PUBLIC KEY", ed.Public())
	if got, err := hooks.ParseReceiptKey(private); err != nil || !got.Equal(ed) {
		t.Errorf("a good key: %v", err)
	}
	two := slices.Concat([]byte("key of 2025\n"), public, []byte("key of 2026\n"), public)
	if got, err := hooks.ParseReceiptPublicKeys(two); err != nil || len(got) != 2 || !got[1].Equal(ed.Public()) {
		t.Errorf("two good keys: %v", err)
	}
	for name, c := range map[string]struct {
		text []byte
		want [2]string // as private, as public keys
	}{
		"nothing":   {nil, [2]string{"openssl genpkey", "openssl pkey"}},
		"no PEM":    {[]byte(base64.StdEncoding.EncodeToString(ed)), [2]string{"openssl genpkey", "openssl pkey"}},
		"wrong way": {slices.Concat(public, private), [2]string{"PUBLIC KEY", "openssl pkey"}},
		"encrypted": {pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: ed}), [2]string{"not encrypted", "ENCRYPTED"}},
		"no PKCS8":  {pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: ed}), [2]string{"PKCS #8", "PRIVATE"}},
		"EC":        {encode("PRIVATE KEY", ec), [2]string{"not an Ed25519", "PRIVATE"}},
		"EC public": {slices.Concat(public, encode("PUBLIC KEY", ec.Public())), [2]string{"PUBLIC KEY", "number 2 is not"}},
	} {
		_, asPrivate := hooks.ParseReceiptKey(c.text)
		_, asPublic := hooks.ParseReceiptPublicKeys(c.text)
		for i, err := range []error{asPrivate, asPublic} {
			if err == nil || !strings.Contains(err.Error(), c.want[i]) {
				t.Errorf("%s: got %v, want %q", name, err, c.want[i])
			}
		}
	}
}
