package auth_test

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"github.com/tramo/tramo/server/auth"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/telemetry"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

const secret = "0123456789abcdef0123456789abcdef"

var (
	tenantID = uuid.MustParse("01890a5d-ac96-774b-bcce-b302099a8057")
	crew     = tenant.Identity{Tenant: tenantID, User: "ana", Role: tenant.Empleado}
)

func verifier(t testing.TB, c auth.Config) *auth.Verifier {
	t.Helper()
	v, err := auth.NewVerifier(t.Context(), c, slog.New(slog.DiscardHandler))
	stack.Must(t, err)
	return v
}

func TestSignedTokensVerify(t *testing.T) {
	t.Parallel()
	narrow := crew
	narrow.Projects = []string{"torre-norte", "Puente_2"}
	for _, c := range []auth.Config{
		{Secrets: secret}, {Secrets: secret, Issuer: "https://id.example.com", Audience: "tramo"},
	} {
		for _, id := range []tenant.Identity{crew, narrow} {
			token, err := c.Sign(id, time.Hour, time.Now())
			stack.Must(t, err)
			got, err := verifier(t, c).Verify(t.Context(), token)
			if err != nil || !sameIdentity(got, id) {
				t.Errorf("%+v, %v", got, err)
			}
		}
	}
}

// claims is a good token's, changed: names and values one after the other, nil takes a claim away.
func claims(change ...any) jwt.MapClaims {
	c := jwt.MapClaims{
		"sub": "ana", "tenant": tenantID.String(), "role": "empleado", "exp": in(time.Hour),
		"iss": "https://id.example.com", "aud": []string{"other", "tramo"},
	}
	for i := 0; i < len(change); i += 2 {
		if c[change[i].(string)] = change[i+1]; change[i+1] == nil {
			delete(c, change[i].(string))
		}
	}
	return c
}

// in is a time as claims have it.
func in(d time.Duration) int64 { return time.Now().Add(d).Unix() }

// null is a claim that is there and is JSON's null.
var null = json.RawMessage("null")

// forge signs with the tests' secret.
func forge(t testing.TB, c jwt.MapClaims, header ...any) string {
	t.Helper()
	return forgeWith(t, jwt.SigningMethodHS256, []byte(secret), c, header...)
}

func forgeWith(t testing.TB, m jwt.SigningMethod, key any, c jwt.MapClaims, header ...any) string {
	t.Helper()
	token := jwt.NewWithClaims(m, c)
	for i := 0; i < len(header); i += 2 {
		token.Header[header[i].(string)] = header[i+1]
	}
	s, err := token.SignedString(key)
	stack.Must(t, err)
	return s
}

// signText signs claims that no encoder would write.
func signText(t testing.TB, header, payload string) string {
	t.Helper()
	text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(payload))
	sig, err := jwt.SigningMethodHS256.Sign(text, []byte(secret))
	stack.Must(t, err)
	return text + "." + base64.RawURLEncoding.EncodeToString(sig)
}

func TestTokensThatAreRefused(t *testing.T) {
	t.Parallel()
	v := verifier(t, auth.Config{Secrets: secret, Issuer: "https://id.example.com", Audience: "tramo"})
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	stack.Must(t, err)
	good := forge(t, claims())
	if _, err := v.Verify(t.Context(), good); err != nil {
		t.Fatalf("the token that the others differ from: %v", err)
	}
	many := make([]string, 257)
	for i := range many {
		many[i] = fmt.Sprint("p", i)
	}
	parts := strings.Split(good, ".")
	plain := func(header string) string {
		return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + parts[1] + "."
	}
	for name, token := range map[string]string{
		"nothing":            "",
		"no token":           "token",
		"other secret":       forgeWith(t, jwt.SigningMethodHS256, []byte(strings.Repeat("x", 32)), claims()),
		"not signed":         forgeWith(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, claims()),
		"nOnE":               plain(`{"alg":"nOnE","typ":"JWT"}`),
		"no algorithm":       plain(`{"typ":"JWT"}`),
		"other algorithm":    forgeWith(t, jwt.SigningMethodHS512, []byte(secret), claims()),
		"asymmetric":         forgeWith(t, jwt.SigningMethodRS256, rs, claims()),
		"signature cut off":  parts[0] + "." + parts[1] + ".",
		"signature of other": parts[0] + "." + strings.Split(forge(t, claims("sub", "eva")), ".")[1] + "." + parts[2],
		"padded":             good + "=",
		"critical header":    forge(t, claims(), "crit", []string{"exp"}),
		"critical, empty":    forge(t, claims(), "crit", []string{}),
		"critical, b64":      forge(t, claims(), "crit", []string{"b64"}, "b64", false),

		"expired":                  forge(t, claims("exp", in(-time.Minute))),
		"never expires":            forge(t, claims("exp", nil)),
		"expires at zero":          forge(t, claims("exp", 0)),
		"expires in words":         forge(t, claims("exp", "tomorrow")),
		"expires under other name": forge(t, claims("exp", nil, "EXP", in(time.Hour))),
		"not yet":                  forge(t, claims("nbf", in(5*time.Minute))),
		"not yet, in words":        forge(t, claims("nbf", "now")),
		"issued later":             forge(t, claims("iat", in(5*time.Minute))),

		"no issuer":         forge(t, claims("iss", nil)),
		"other issuer":      forge(t, claims("iss", "https://id.example.com.evil.org")),
		"issuer is a list":  forge(t, claims("iss", []string{"https://id.example.com"})),
		"no audience":       forge(t, claims("aud", nil)),
		"other audience":    forge(t, claims("aud", []string{"other"})),
		"empty audience":    forge(t, claims("aud", []string{})),
		"audience in a map": forge(t, claims("aud", map[string]string{"tramo": "tramo"})),

		"no tenant":               forge(t, claims("tenant", nil)),
		"tenant is no id":         forge(t, claims("tenant", "acme")),
		"tenant is the zero":      forge(t, claims("tenant", uuid.Nil.String())),
		"tenant is a list":        forge(t, claims("tenant", []string{tenantID.String()})),
		"tenant under other name": forge(t, claims("tenant", nil, "Tenant", tenantID.String())),

		"no subject":               forge(t, claims("sub", nil)),
		"empty subject":            forge(t, claims("sub", "")),
		"subject is a number":      forge(t, claims("sub", 7)),
		"subject too long":         forge(t, claims("sub", strings.Repeat("a", 256))),
		"subject with NUL":         forge(t, claims("sub", "a\x00b")),
		"subject of spaces":        forge(t, claims("sub", " ")),
		"subject after a space":    forge(t, claims("sub", " ana")),
		"subject before a space":   forge(t, claims("sub", "ana\u00a0")),
		"subject is a worker's":    forge(t, claims("sub", "worker")),
		"subject is the eraser's":  forge(t, claims("sub", "Eraser")),
		"subject is an operator's": forge(t, claims("sub", "operator")),
		"subject is the rescan's":  forge(t, claims("sub", "rescan")),
		"subject was erased":       forge(t, claims("sub", "erased")),
		"subject with line break":  forge(t, claims("sub", "a\nb")),

		"no role":         forge(t, claims("role", nil)),
		"unknown role":    forge(t, claims("role", "root")),
		"role in capital": forge(t, claims("role", "Admin")),
		"roles":           forge(t, claims("role", []string{"admin"})),

		"no project":                forge(t, claims("projects", []string{})),
		"projects are null":         forge(t, claims("projects", null)),
		"projects are a name":       forge(t, claims("projects", "torre")),
		"projects are numbers":      forge(t, claims("projects", []int{1})),
		"projects are a map":        forge(t, claims("projects", map[string]bool{"torre": true})),
		"project without name":      forge(t, claims("projects", []string{""})),
		"project and one without":   forge(t, claims("projects", []string{"torre", ""})),
		"project that is a path":    forge(t, claims("projects", []string{"../x"})),
		"project with a comma":      forge(t, claims("projects", []string{"torre,puente"})),
		"project with a quote":      forge(t, claims("projects", []string{"a', true), set_config('app.tenant_id', 'x"})),
		"project with a line end":   forge(t, claims("projects", []string{"torre\n"})),
		"more projects than most":   forge(t, claims("projects", many)),
		"payload that is no object": signText(t, `{"alg":"HS256"}`, `[]`),
		"payload that is null":      signText(t, `{"alg":"HS256"}`, `null`),
		"header that is a list":     signText(t, `["HS256"]`, `{}`),
	} {
		if id, err := v.Verify(t.Context(), token); err == nil {
			t.Errorf("%s: accepted as %+v", name, id)
		}
	}
}

// What is neither wrong nor ours to judge passes.
func TestTokensThatAreGood(t *testing.T) {
	t.Parallel()
	strict := auth.Config{Secrets: secret, Issuer: "https://id.example.com", Audience: "tramo"}
	for name, c := range map[string]struct {
		config auth.Config
		claims jwt.MapClaims
	}{
		"expired within the skew":                      {strict, claims("exp", in(-20*time.Second))},
		"not yet, within the skew":                     {strict, claims("nbf", in(time.Minute))},
		"issued within the skew":                       {strict, claims("iat", in(time.Minute))},
		"issued and not yet, by a clock that is ahead": {strict, claims("iat", in(110*time.Second), "nbf", in(110*time.Second))},
		"one audience":                                 {strict, claims("aud", "tramo")},
		"issuer and audience any":                      {auth.Config{Secrets: secret}, claims("iss", "whoever", "aud", "whatever")},
		"neither issuer nor audience":                  {auth.Config{Secrets: secret}, claims("iss", nil, "aud", nil)},
		"claims of others":                             {strict, claims("Tenant", uuid.NewString(), "ROLE", "admin", "Projects", []string{}, "name", "Ana")},
	} {
		got, err := verifier(t, c.config).Verify(t.Context(), forge(t, c.claims))
		if err != nil || !sameIdentity(got, crew) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	// RFC 7519, section 4: of a name that is there twice the last one counts, or the token is refused.
	text := signText(t, `{"alg":"HS256"}`, fmt.Sprintf(`{"role":"admin","sub":"ana","tenant":%q,"exp":%d,"role":"empleado"}`, tenantID, in(time.Hour)))
	if got, err := verifier(t, auth.Config{Secrets: secret}).Verify(t.Context(), text); err == nil && got.Role != tenant.Empleado {
		t.Errorf("of two roles %+v counts", got)
	}
}

// Whatever is in a token that somebody signed for us, and whatever is not: nobody comes out of it who is nobody, or
// who might break out of the statement that tells Postgres who asks.
func FuzzVerify(f *testing.F) {
	v := verifier(f, auth.Config{Secrets: secret})
	for _, payload := range []string{
		`{"sub":"ana","tenant":"01890a5d-ac96-774b-bcce-b302099a8057","role":"empleado","exp":9999999999}`,
		`{"sub":"ana","tenant":"01890a5d-ac96-774b-bcce-b302099a8057","role":"admin","exp":9999999999,"projects":["a","b"]}`,
		`{"sub":"ana","tenant":"{01890a5d-ac96-774b-bcce-b302099a8057}","role":"admin","exp":1e300,"projects":[]}`,
		`{"exp":-1,"nbf":1e400,"iat":{},"aud":[[]],"projects":null}`, `null`, `[]`, ``, "\xff",
	} {
		f.Add(`{"alg":"HS256","typ":"JWT"}`, payload)
	}
	f.Add(`{"alg":"none"}`, `{}`)
	f.Add(`{"alg":"HS256","crit":[],"kid":7}`, `{}`)
	f.Fuzz(func(t *testing.T, header, payload string) {
		token := signText(t, header, payload)
		id, err := v.Verify(t.Context(), token)
		if err == nil {
			checkIdentity(t, header, payload, id)
		} else if !reflect.DeepEqual(id, tenant.Identity{}) {
			t.Errorf("refused, and yet %+v", id)
		}
		if id, err := v.Verify(t.Context(), token+"A"); err == nil {
			t.Errorf("another signature is accepted for %+v", id)
		}
		if id, err := v.Verify(t.Context(), payload); err == nil {
			t.Errorf("%q is accepted as %+v", payload, id)
		}
	})
}

// checkIdentity compares an identity with what its token says, read by other means.
func checkIdentity(t *testing.T, header, payload string, id tenant.Identity) {
	t.Helper()
	var h, c map[string]any
	if json.Unmarshal([]byte(header), &h) != nil || json.Unmarshal([]byte(payload), &c) != nil || h["alg"] != "HS256" || h["crit"] != nil {
		t.Fatalf("accepted %s %s", header, payload)
	}
	exp, _ := c["exp"].(float64)
	_, known := tenant.ParseRole(string(id.Role))
	if exp < float64(time.Now().Add(-time.Minute).Unix()) || known != nil || id.Tenant == uuid.Nil || id.Home != uuid.Nil ||
		id.User == "" || id.User != c["sub"] || string(id.Role) != c["role"] {
		t.Errorf("%s is %+v", payload, id)
	}
	if _, narrowed := c["projects"]; narrowed != (id.Projects != nil) || narrowed && len(id.Projects) == 0 {
		t.Errorf("%s has the projects %q", payload, id.Projects)
	}
	for _, p := range id.Projects {
		if !object.ValidProject(p) {
			t.Errorf("%s has the project %q", payload, p)
		}
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		config auth.Config
		good   bool
	}{
		"neither":      {auth.Config{}, false},
		"both":         {auth.Config{Secrets: secret, JWKSURL: "https://id.example.com/keys", Audience: "tramo"}, false},
		"short secret": {auth.Config{Secrets: telemetry.Secret(secret[1:])}, false},
		"no URL":       {auth.Config{JWKSURL: "keys", Audience: "tramo"}, false},
		"a file":       {auth.Config{JWKSURL: "file://host/keys", Audience: "tramo"}, false},
		"secret":       {auth.Config{Secrets: secret}, true},
		"JWKS":         {auth.Config{JWKSURL: "https://id.example.com/keys", Audience: "tramo"}, true},

		"JWKS for any audience":     {auth.Config{JWKSURL: "https://id.example.com/keys"}, false},
		"JWKS in plain text":        {auth.Config{JWKSURL: "http://id.example.com/keys", Audience: "tramo"}, false},
		"JWKS on a private network": {auth.Config{JWKSURL: "http://10.0.0.1/keys", Audience: "tramo"}, false},
		"JWKS on a name like ours":  {auth.Config{JWKSURL: "http://localhost.example.com/keys", Audience: "tramo"}, false},
		"JWKS on this machine":      {auth.Config{JWKSURL: "http://127.0.0.1:9000/keys", Audience: "tramo"}, true},
		"two secrets":               {auth.Config{Secrets: telemetry.Secret(secret + "," + second)}, true},
		"a short one of two":        {auth.Config{Secrets: telemetry.Secret(secret + "," + second[1:])}, false},
		"an empty one of two":       {auth.Config{Secrets: secret + ","}, false},
		"a negative lifetime":       {auth.Config{Secrets: secret, MaxLifetime: -1}, false},
	} {
		if err := c.config.Validate(); (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		} else if err != nil && strings.Contains(err.Error(), string(c.config.Secrets)) && c.config.Secrets != "" {
			t.Errorf("%s: the error tells the secret", name)
		}
	}
}

// second is the other secret, while they are rotated.
const second = "fedcba9876543210fedcba9876543210"

// While secrets are rotated, tokens that either has signed are good, and new ones are signed with the first.
func TestSecretsRotate(t *testing.T) {
	t.Parallel()
	sign := func(c auth.Config) string {
		t.Helper()
		token, err := c.Sign(crew, time.Hour, time.Now())
		stack.Must(t, err)
		return token
	}
	only, both, after := auth.Config{Secrets: secret}, auth.Config{Secrets: telemetry.Secret(second + ", " + secret)}, auth.Config{Secrets: second}
	for name, c := range map[string]struct {
		token string
		by    auth.Config
		good  bool
	}{
		"old, during":           {sign(only), both, true},
		"new, during":           {sign(both), both, true},
		"new, afterwards":       {sign(both), after, true},
		"old, afterwards":       {sign(only), after, false},
		"new, before":           {sign(both), only, false},
		"of neither":            {forgeWith(t, jwt.SigningMethodHS256, []byte(strings.Repeat("x", 32)), claims()), both, false},
		"of both as one secret": {forgeWith(t, jwt.SigningMethodHS256, []byte(second+", "+secret), claims()), both, false},
		"not signed":            {forgeWith(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, claims()), both, false},
	} {
		if _, err := verifier(t, c.by).Verify(t.Context(), c.token); (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A token that is valid for longer than the maximum is refused, whatever it says of when it was issued.
func TestTokensThatLiveTooLong(t *testing.T) {
	t.Parallel()
	v := verifier(t, auth.Config{Secrets: secret, MaxLifetime: time.Hour})
	for name, c := range map[string]struct {
		claims jwt.MapClaims
		good   bool
	}{
		"an hour":                    {claims("iat", in(0), "exp", in(time.Hour)), true},
		"an hour, half of it gone":   {claims("iat", in(-30*time.Minute), "exp", in(30*time.Minute)), true},
		"an hour, issued at no time": {claims("exp", in(time.Hour)), true},
		"two hours":                  {claims("iat", in(0), "exp", in(2*time.Hour)), false},
		"two hours, most of it gone": {claims("iat", in(-110*time.Minute), "exp", in(10*time.Minute)), false},
		"two, issued at no time":     {claims("exp", in(2*time.Hour)), false},
		"for ever":                   {claims("iat", in(0), "exp", int64(253402300799)), false},
		"issued in words":            {claims("iat", "now"), false},
	} {
		_, err := v.Verify(t.Context(), forge(t, c.claims))
		if (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := verifier(t, auth.Config{Secrets: secret}).Verify(t.Context(), forge(t, claims("exp", in(1000*time.Hour)))); err != nil {
		t.Errorf("without a maximum: %v", err)
	}
}

// Only the tenants that the operator names have admins, under whatever name the role comes.
func TestAdminsOfOtherTenants(t *testing.T) {
	t.Parallel()
	other := uuid.New()
	c := auth.Config{Secrets: secret, AdminTenants: auth.Tenants{tenantID: true}}
	mapped := auth.Config{Secrets: secret, AdminTenants: auth.Tenants{tenantID: true}, Roles: auth.RoleMap{"root": tenant.Admin}}
	for name, c := range map[string]struct {
		config auth.Config
		claims jwt.MapClaims
		good   bool
	}{
		"of the operator":           {c, claims("role", "admin"), true},
		"of another":                {c, claims("role", "admin", "tenant", other.String()), false},
		"where nobody may":          {auth.Config{Secrets: secret}, claims("role", "admin"), false},
		"of the operator, mapped":   {mapped, claims("role", "root"), true},
		"of another, mapped":        {mapped, claims("role", "root", "tenant", other.String()), false},
		"the manager of another":    {c, claims("role", "constructora", "tenant", other.String()), true},
		"of another, in upper case": {c, claims("role", "admin", "tenant", strings.ToUpper(other.String())), false},
	} {
		if _, err := verifier(t, c.config).Verify(t.Context(), forge(t, c.claims)); (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// sameIdentity compares all but when the token begins and ends, which differs from test to test.
func sameIdentity(a, b tenant.Identity) bool {
	a.Issued, a.Expires = b.Issued, b.Expires
	return reflect.DeepEqual(a, b)
}
