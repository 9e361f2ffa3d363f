package server_test

import (
	"crypto/ecdsa"
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
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"github.com/tramo/tramo/server"
	"github.com/tramo/tramo/tenant"
)

const secret = "0123456789abcdef0123456789abcdef"

var (
	tenantID = uuid.MustParse("01890a5d-ac96-774b-bcce-b302099a8057")
	crew     = tenant.Identity{Tenant: tenantID, User: "ana", Role: tenant.Empleado}
)

func verifier(t *testing.T, c server.AuthConfig) *server.Verifier {
	t.Helper()
	v, err := server.NewVerifier(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestSignedTokensVerify(t *testing.T) {
	t.Parallel()
	token, err := server.Sign(secret, crew, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	got, err := verifier(t, server.AuthConfig{Secret: secret}).Verify(token)
	if err != nil || !reflect.DeepEqual(got, crew) {
		t.Errorf("%+v, %v", got, err)
	}
}

// claims is a good token's, changed.
func claims(change func(jwt.MapClaims)) jwt.MapClaims {
	c := jwt.MapClaims{
		"sub": "ana", "tenant": tenantID.String(), "role": "empleado", "exp": time.Now().Add(time.Hour).Unix(),
	}
	if change != nil {
		change(c)
	}
	return c
}

func TestTokensThatAreRefused(t *testing.T) {
	t.Parallel()
	v := verifier(t, server.AuthConfig{Secret: secret})
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		method jwt.SigningMethod
		key    any
		change func(jwt.MapClaims)
	}{
		"other secret":       {jwt.SigningMethodHS256, []byte(strings.Repeat("x", 32)), nil},
		"not signed":         {jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, nil},
		"other algorithm":    {jwt.SigningMethodHS512, []byte(secret), nil},
		"asymmetric":         {jwt.SigningMethodRS256, key, nil},
		"expired":            {jwt.SigningMethodHS256, []byte(secret), func(c jwt.MapClaims) { c["exp"] = time.Now().Add(-time.Minute).Unix() }},
		"never expires":      {jwt.SigningMethodHS256, []byte(secret), func(c jwt.MapClaims) { delete(c, "exp") }},
		"not yet":            {jwt.SigningMethodHS256, []byte(secret), func(c jwt.MapClaims) { c["nbf"] = time.Now().Add(time.Hour).Unix() }},
		"no tenant":          {jwt.SigningMethodHS256, []byte(secret), func(c jwt.MapClaims) { delete(c, "tenant") }},
		"tenant is no id":    {jwt.SigningMethodHS256, []byte(secret), func(c jwt.MapClaims) { c["tenant"] = "acme" }},
		"tenant is the zero": {jwt.SigningMethodHS256, []byte(secret), func(c jwt.MapClaims) { c["tenant"] = uuid.Nil.String() }},
		"tenant is a list":   {jwt.SigningMethodHS256, []byte(secret), func(c jwt.MapClaims) { c["tenant"] = []string{tenantID.String()} }},
		"no subject":         {jwt.SigningMethodHS256, []byte(secret), func(c jwt.MapClaims) { delete(c, "sub") }},
		"subject too long":   {jwt.SigningMethodHS256, []byte(secret), func(c jwt.MapClaims) { c["sub"] = strings.Repeat("a", 256) }},
		"subject with NUL":   {jwt.SigningMethodHS256, []byte(secret), func(c jwt.MapClaims) { c["sub"] = "a\x00b" }},
		"unknown role":       {jwt.SigningMethodHS256, []byte(secret), func(c jwt.MapClaims) { c["role"] = "root" }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			token, err := jwt.NewWithClaims(c.method, claims(c.change)).SignedString(c.key)
			if err != nil {
				t.Fatal(err)
			}
			if id, err := v.Verify(token); err == nil {
				t.Errorf("accepted as %+v", id)
			}
		})
	}
}

// Keys that a JWKS publishes verify tokens. A public key is not a secret: a token that uses it as one (the
// confusion of algorithms, RFC 8725, section 2.1) is refused.
func TestJWKS(t *testing.T) {
	t.Parallel()
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public := func(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
	point, err := ec.PublicKey.Bytes() // 4, X, Y
	if err != nil {
		t.Fatal(err)
	}
	set, err := json.Marshal(map[string]any{"keys": []map[string]string{
		{"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "e", "x": public(point[1:33]), "y": public(point[33:])},
		{"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "r", "n": public(rs.N.Bytes()), "e": public(big.NewInt(int64(rs.E)).Bytes())},
	}})
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int32
	published := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = w.Write(set)
	}))
	t.Cleanup(published.Close)
	v := verifier(t, server.AuthConfig{JWKSURL: published.URL})

	sign := func(m jwt.SigningMethod, kid string, key any) string {
		token := jwt.NewWithClaims(m, claims(nil))
		token.Header["kid"] = kid
		s, err := token.SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for name, token := range map[string]string{
		"ES256": sign(jwt.SigningMethodES256, "e", ec), "RS256": sign(jwt.SigningMethodRS256, "r", rs),
	} {
		if got, err := v.Verify(token); err != nil || !reflect.DeepEqual(got, crew) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	der, err := x509.MarshalPKIXPublicKey(&rs.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	confused := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	for name, token := range map[string]string{
		"public key as a secret": sign(jwt.SigningMethodHS256, "r", confused),
		"unknown key":            sign(jwt.SigningMethodES256, "gone", ec),
		"key of another kind":    sign(jwt.SigningMethodES256, "r", ec),
	} {
		if got, err := v.Verify(token); err == nil {
			t.Errorf("%s: accepted as %+v", name, got)
		}
	}
	if n := asked.Load(); n > 2 {
		t.Errorf("the JWKS was fetched %d times for five tokens", n)
	}
}

func TestAuthConfig(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		config server.AuthConfig
		good   bool
	}{
		"neither":      {server.AuthConfig{}, false},
		"both":         {server.AuthConfig{Secret: secret, JWKSURL: "https://id.example.com/keys"}, false},
		"short secret": {server.AuthConfig{Secret: secret[1:]}, false},
		"no URL":       {server.AuthConfig{JWKSURL: "keys"}, false},
		"secret":       {server.AuthConfig{Secret: secret}, true},
		"JWKS":         {server.AuthConfig{JWKSURL: "https://id.example.com/keys"}, true},
	} {
		if err := c.config.Validate(); (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		} else if err != nil && strings.Contains(err.Error(), c.config.Secret) && c.config.Secret != "" {
			t.Errorf("%s: the error tells the secret", name)
		}
	}
}
