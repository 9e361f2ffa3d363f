package auth_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/tramo/tramo/server/auth"
	"github.com/tramo/tramo/test/stack"
)

// signers are an identity provider's private keys.
type signers struct {
	rs, weak *rsa.PrivateKey
	ec, p384 *ecdsa.PrivateKey
	ed       ed25519.PrivateKey
}

func newSigners(t *testing.T) (s signers) {
	t.Helper()
	var err error
	s.rs, err = rsa.GenerateKey(rand.Reader, 2048)
	stack.Must(t, err)
	s.weak, err = rsa.GenerateKey(rand.Reader, 1024)
	stack.Must(t, err)
	s.ec, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	stack.Must(t, err)
	s.p384, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	stack.Must(t, err)
	_, s.ed, err = ed25519.GenerateKey(rand.Reader)
	stack.Must(t, err)
	return s
}

func text(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// jwk is a public key as a JWKS has it; more are further members.
func jwk(t *testing.T, kid string, key crypto.PublicKey, more ...any) map[string]any {
	t.Helper()
	m := map[string]any{"kid": kid}
	switch k := key.(type) {
	case *rsa.PublicKey:
		m["kty"], m["n"], m["e"] = "RSA", text(k.N.Bytes()), text(big.NewInt(int64(k.E)).Bytes())
	case *ecdsa.PublicKey:
		point, err := k.Bytes() // 4, X, Y
		stack.Must(t, err)
		half := len(point) / 2
		m["kty"], m["crv"], m["x"], m["y"] = "EC", k.Params().Name, text(point[1:half+1]), text(point[half+1:])
	case ed25519.PublicKey:
		m["kty"], m["crv"], m["x"] = "OKP", "Ed25519", text(k)
	}
	for i := 0; i < len(more); i += 2 {
		if m[more[i].(string)] = more[i+1]; more[i+1] == nil {
			delete(m, more[i].(string))
		}
	}
	return m
}

// publish serves a JWKS.
func publish(t *testing.T, keys ...map[string]any) auth.Config {
	t.Helper()
	set, err := json.Marshal(map[string]any{"keys": keys})
	stack.Must(t, err)
	published := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(set)
	}))
	t.Cleanup(published.Close)
	return auth.Config{JWKSURL: published.URL, Audience: "tramo"}
}

// Keys that a JWKS publishes verify tokens, each those of its own algorithm. A public key is not a secret: a token that
// uses it as one (the confusion of algorithms, RFC 8725, section 2.1) is refused. What is no public key for signatures
// verifies nothing, and does not hide the others.
func TestJWKS(t *testing.T) {
	t.Parallel()
	k := newSigners(t)
	shared := bytes.Repeat([]byte("k"), 32)
	v := verifier(t, publish(t,
		jwk(t, "r", k.rs.Public(), "alg", "RS256", "use", "sig"),
		jwk(t, "e", k.ec.Public(), "key_ops", []string{"verify"}),
		jwk(t, "d", k.ed.Public()),
		map[string]any{"kty": "oct", "kid": "o", "alg": "HS256", "k": text(shared)},
		map[string]any{"kty": "oct", "kid": "oe", "k": text(shared)},
		map[string]any{"kty": "new", "kid": "n"},
		map[string]any{"kty": []int{1}},
		jwk(t, "weak", k.weak.Public()),
		jwk(t, "p384", k.p384.Public()),
		jwk(t, "", k.ec.Public(), "kid", nil),
		jwk(t, "enc", k.ec.Public(), "use", "enc"),
		jwk(t, "ops", k.ec.Public(), "key_ops", []string{"sign"}),
		jwk(t, "ps", k.rs.Public(), "alg", "PS256"),
		jwk(t, "mixed", k.ec.Public(), "alg", "RS256"),
		jwk(t, "private", k.ec.Public(), "d", text(k.ec.D.Bytes())), //nolint:staticcheck // what nobody should publish
		jwk(t, "far", k.ec.Public(), "x5u", "https://127.0.0.1:1/certificate"),
		jwk(t, "two", k.ec.Public()), jwk(t, "two", k.rs.Public()),
	))
	sign := func(m jwt.SigningMethod, kid any, key any) string { return forgeWith(t, m, key, claims(), "kid", kid) }
	for name, token := range map[string]string{
		"ES256": sign(jwt.SigningMethodES256, "e", k.ec), "RS256": sign(jwt.SigningMethodRS256, "r", k.rs),
		"EdDSA": sign(jwt.SigningMethodEdDSA, "d", k.ed), "certificate elsewhere": sign(jwt.SigningMethodES256, "far", k.ec),
		"one of two of a name": sign(jwt.SigningMethodES256, "two", k.ec), "the other": sign(jwt.SigningMethodRS256, "two", k.rs),
	} {
		if got, err := v.Verify(t.Context(), token); err != nil || !sameIdentity(got, crew) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}

	der, err := x509.MarshalPKIXPublicKey(k.rs.Public())
	stack.Must(t, err)
	asPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	other := newSigners(t)
	// Tokens that name an unknown key all wait for the same fetch.
	for name, token := range map[string]string{
		"public key as a secret, PEM":     sign(jwt.SigningMethodHS256, "r", asPEM),
		"public key as a secret, DER":     sign(jwt.SigningMethodHS256, "r", der),
		"public key as a secret, modulus": sign(jwt.SigningMethodHS256, "r", k.rs.N.Bytes()),
		"published secret":                sign(jwt.SigningMethodHS256, "o", shared),
		"not signed":                      sign(jwt.SigningMethodNone, "r", jwt.UnsafeAllowNoneSignatureType),
		"somebody's key under the name":   sign(jwt.SigningMethodRS256, "r", other.rs),
		"unknown key":                     sign(jwt.SigningMethodES256, "gone", k.ec),
		"no key named":                    forgeWith(t, jwt.SigningMethodES256, k.ec, claims()),
		"empty name":                      sign(jwt.SigningMethodES256, "", k.ec),
		"name is a number":                sign(jwt.SigningMethodES256, 7, k.ec),
		"ES256 by the name of RS256":      sign(jwt.SigningMethodES256, "r", k.ec),
		"RS256 by the name of ES256":      sign(jwt.SigningMethodRS256, "e", k.rs),
		"RS512":                           sign(jwt.SigningMethodRS512, "r", k.rs),
		"PS256":                           sign(jwt.SigningMethodPS256, "r", k.rs),
		"PS256 by its name":               sign(jwt.SigningMethodPS256, "ps", k.rs),
		"RS256 by the name of PS256":      sign(jwt.SigningMethodRS256, "ps", k.rs),
		"weak key":                        sign(jwt.SigningMethodRS256, "weak", k.weak),
		"other curve":                     sign(jwt.SigningMethodES384, "p384", k.p384),
		"key for encryption":              sign(jwt.SigningMethodES256, "enc", k.ec),
		"key for signing only":            sign(jwt.SigningMethodES256, "ops", k.ec),
		"key of another algorithm":        sign(jwt.SigningMethodES256, "mixed", k.ec),
		"key that is no secret any more":  sign(jwt.SigningMethodES256, "private", k.ec),
		"critical header":                 forgeWith(t, jwt.SigningMethodES256, k.ec, claims(), "kid", "e", "crit", []string{"kid"}),
		"key of its own": forgeWith(t, jwt.SigningMethodES256, other.ec, claims(), "kid", "e",
			"jwk", jwk(t, "e", other.ec.Public()), "jku", "http://127.0.0.1:1/", "x5c", []string{text(der)}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, err := v.Verify(t.Context(), token); err == nil {
				t.Errorf("accepted as %+v", got)
			}
		})
	}
}
