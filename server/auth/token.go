// Package auth says who a request acts for: it verifies tokens with a secret or with an identity provider's keys, maps
// roles, and lets an admin enter another tenant, which is audited. What an identity may do is decided elsewhere.
package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/telemetry"
	"github.com/tramo/tramo/tenant"
)

// clockSkew is how long a token is valid after it has expired.
const clockSkew = 30 * time.Second

// clockAhead is how far the clock of a token's issuer may be ahead of ours, for iat and nbf: a few minutes at most (RFC 7519,
// sections 4.1.5 and 4.1.6). It locks a whole company out, while a token that lives longer than it should helps a thief.
const clockAhead = 2 * time.Minute

// maxSubject is the longest user id, in bytes, as in OpenID Connect (Core 1.0, section 2, sub).
const maxSubject = 255

// MinSecret is the least length of a secret for HS256, in bytes (RFC 7518, section 3.2).
const MinSecret = 32

// errNoAdmins is about the role admin in a token of a tenant that may not have it.
var errNoAdmins = tenant.Refuse(problem.ErrUnauthorized, "Your company may not have admins. The operator of the installation names those that may in TRAMO_ADMIN_TENANTS.")

// maxProjects is how many projects a token may name.
const maxProjects = 256

// Config says which tokens are valid: those signed with one of the Secrets (HS256), or with a key published at JWKSURL (RS256,
// ES256 or EdDSA). Exactly one of the two is needed.
type Config struct {
	Secrets      telemetry.Secret `name:"jwt-secret" placeholder:"SECRET" help:"Secret of 32 bytes or more that verifies HS256 tokens, such as openssl rand -hex 32 prints. The server needs either this or TRAMO_JWKS_URL. Several, separated by commas, all verify; tramo token signs with the first."`
	JWKSURL      string           `name:"jwks-url" placeholder:"URL" help:"URL of the JWK set that verifies RS256, ES256 and EdDSA tokens: https, or http on this machine."`
	Issuer       string           `name:"jwt-issuer" placeholder:"ISSUER" help:"Issuer that tokens must name as iss. Default: any."`
	Audience     string           `name:"jwt-audience" placeholder:"AUDIENCE" help:"Audience that tokens must name in aud; needed with TRAMO_JWKS_URL. Default: any."`
	MaxLifetime  time.Duration    `name:"token-max-lifetime" help:"Longest time from iat, or from now, to exp of a token. Tokens that are valid for longer are refused. 0 for any."`
	AdminTenants Tenants          `name:"admin-tenants" placeholder:"ID" help:"Ids of the tenants that may have admins, separated by commas: those of the operator of the installation. The role admin is refused in tokens of others. Default: none."`
	Roles        RoleMap          `name:"role-map" placeholder:"NAME=ROLE" help:"Role of ours for each role that an identity provider puts into tokens, such as foreman=empleado,owner=constructora. Tokens with other roles are refused. Default: tokens carry our own names."`
}

// Validate reports what is wrong with c.
func (c Config) Validate() error {
	var errs []error
	switch {
	case c.Secrets == "" && c.JWKSURL == "":
		errs = append(errs, errors.New("TRAMO_JWT_SECRET, TRAMO_JWKS_URL: one of them is needed to verify tokens"))
	case c.Secrets != "" && c.JWKSURL != "":
		errs = append(errs, errors.New("TRAMO_JWT_SECRET, TRAMO_JWKS_URL: both are set, which leaves open what tokens are good; set one"))
	case c.Secrets != "":
		for _, s := range c.secrets() {
			if len(s) < MinSecret {
				errs = append(errs, fmt.Errorf("TRAMO_JWT_SECRET: it has %d bytes; HS256 needs at least %d, such as openssl rand -hex 32 prints", len(s), MinSecret))
			}
		}
	case c.JWKSURL != "":
		errs = append(errs, c.validateKeySet())
	}
	if c.MaxLifetime < 0 {
		errs = append(errs, fmt.Errorf("TRAMO_TOKEN_MAX_LIFETIME: %s is less than 0", c.MaxLifetime))
	}
	if err := c.Roles.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("TRAMO_ROLE_MAP: %w", err))
	}
	return errors.Join(errs...)
}

// DefaultConfig is used where nothing is set.
func DefaultConfig() Config { return Config{MaxLifetime: 30 * 24 * time.Hour} }

// validateKeySet wants keys that nobody on the way can exchange, and tokens that the provider made for us: it makes tokens for
// others with the same keys (RFC 8725, sections 3.9 and 3.10).
func (c Config) validateKeySet() error {
	var errs []error
	u, err := url.Parse(c.JWKSURL)
	switch {
	case err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http"):
		errs = append(errs, errors.New("TRAMO_JWKS_URL: not a URL such as https://id.example.com/.well-known/jwks.json"))
	case u.Scheme == "http" && !telemetry.IsThisMachine(u.Hostname()):
		errs = append(errs, errors.New("TRAMO_JWKS_URL: whoever is between here and there could exchange the keys; use https://"))
	}
	if c.Audience == "" {
		errs = append(errs, errors.New("TRAMO_JWT_AUDIENCE: it is needed with TRAMO_JWKS_URL, whose keys sign tokens for others too; name what aud is in tokens for this installation"))
	}
	return errors.Join(errs...)
}

// secrets are the settings, one by one.
func (c Config) secrets() [][]byte {
	var all [][]byte
	for s := range strings.SplitSeq(string(c.Secrets), ",") {
		all = append(all, []byte(strings.TrimSpace(s)))
	}
	return all
}

// Tenants is a set of tenants.
type Tenants map[uuid.UUID]bool

// UnmarshalText reads ids, separated by commas.
func (t *Tenants) UnmarshalText(text []byte) error {
	parsed := Tenants{}
	for field := range strings.SplitSeq(string(text), ",") {
		if strings.TrimSpace(string(text)) == "" {
			break
		}
		id, err := uuid.Parse(strings.TrimSpace(field))
		if err != nil || id == uuid.Nil {
			return fmt.Errorf("%q is not the id of a tenant, as tramo tenant list prints it", strings.TrimSpace(field))
		}
		parsed[id] = true
	}
	*t = parsed
	return nil
}

// A Verifier turns tokens into identities. It is safe for concurrent use.
type Verifier struct {
	parser      *jwt.Parser
	secrets     jwt.VerificationKeySet
	keys        *keyRing // nil where there are secrets
	roles       RoleMap
	admins      Tenants
	maxLifetime time.Duration // 0 for any
}

// NewVerifier makes a verifier, which fetches a JWK set repeatedly until ctx is done. The set need not be reachable yet:
// until it is, [Verifier.Verify] fails, and [Verifier.Ready] returns why.
func NewVerifier(ctx context.Context, c Config, log *slog.Logger) (*Verifier, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	v := &Verifier{roles: c.Roles, admins: c.AdminTenants, maxLifetime: c.MaxLifetime}
	for _, s := range c.secrets() {
		v.secrets.Keys = append(v.secrets.Keys, s)
	}
	// We choose the algorithms, never the token: otherwise a public key would be accepted as an HS256 secret.
	methods := []string{jwt.SigningMethodHS256.Name}
	if c.JWKSURL != "" {
		methods = []string{jwt.SigningMethodRS256.Name, jwt.SigningMethodES256.Name, jwt.SigningMethodEdDSA.Alg()}
		v.keys = followKeys(ctx, c.JWKSURL, keysClient(), log)
	}
	options := []jwt.ParserOption{
		jwt.WithValidMethods(methods), jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(clockAhead),
		jwt.WithStrictDecoding(),
	}
	if c.Issuer != "" {
		options = append(options, jwt.WithIssuer(c.Issuer))
	}
	if c.Audience != "" {
		options = append(options, jwt.WithAudience(c.Audience))
	}
	v.parser = jwt.NewParser(options...)
	return v, nil
}

// Ready returns an error while there are no keys to verify tokens with.
func (v *Verifier) Ready(context.Context) error {
	if v.keys == nil {
		return nil
	}
	return v.keys.fetched()
}

// Verify returns the identity that the token gives its bearer. ctx bounds how long it waits for a new key.
func (v *Verifier) Verify(ctx context.Context, token string) (tenant.Identity, error) {
	// Names of claims are case-sensitive (RFC 7519, section 10.1.1); encoding/json is so only for maps.
	c := jwt.MapClaims{}
	_, err := v.parser.ParseWithClaims(token, c, func(t *jwt.Token) (any, error) { return v.key(ctx, t) })
	if err != nil {
		return tenant.Identity{}, err
	}
	return v.identity(c)
}

// key returns the key that verifies the token's signature.
func (v *Verifier) key(ctx context.Context, t *jwt.Token) (any, error) {
	if _, ok := t.Header["crit"]; ok { // we understand no extension (RFC 7515, section 4.1.11)
		return nil, errors.New("header crit names an extension that is not understood")
	}
	if v.keys == nil {
		return v.secrets, nil
	}
	id, _ := t.Header["kid"].(string)
	if id == "" {
		return nil, errors.New("header kid does not name a key")
	}
	return v.keys.find(ctx, keyName{id, t.Method.Alg()})
}

// identity reads the claims of a token whose signature and times are valid.
func (v *Verifier) identity(c jwt.MapClaims) (tenant.Identity, error) {
	text := func(name string) string { s, _ := c[name].(string); return s }
	id, err := uuid.Parse(text("tenant"))
	if err != nil || id == uuid.Nil {
		return tenant.Identity{}, errors.New("claim tenant is not a tenant's id")
	}
	role, err := v.roles.role(text("role"))
	if err != nil {
		return tenant.Identity{}, fmt.Errorf("claim role: %w", err)
	}
	if role == tenant.Admin && !v.admins[id] {
		return tenant.Identity{}, errNoAdmins
	}
	user := text("sub")
	if err := CheckUser(user); err != nil {
		return tenant.Identity{}, fmt.Errorf("claim sub %w", err)
	}
	projects, err := projectsOf(c)
	if err != nil {
		return tenant.Identity{}, err
	}
	expires, err := c.GetExpirationTime()
	if err != nil || expires == nil {
		return tenant.Identity{}, errors.New("claim exp is not a time")
	}
	end := expires.Add(clockSkew)
	if !time.Now().Before(end) { // the parser is as lenient with this as with a clock that is ahead
		return tenant.Identity{}, jwt.ErrTokenExpired
	}
	who := tenant.Identity{Tenant: id, User: user, Role: role, Projects: projects, Expires: end}
	if issued, err := c.GetIssuedAt(); err != nil {
		return tenant.Identity{}, errors.New("claim iat is not a time")
	} else if issued != nil {
		who.Issued = issued.Time
	}
	if v.maxLifetime > 0 {
		from := who.Issued
		if from.IsZero() {
			from = time.Now()
		}
		if expires.Sub(from) > v.maxLifetime+clockSkew {
			return tenant.Identity{}, tenant.Refuse(problem.ErrUnauthorized, "Your token is valid for longer than %s, which is the most that is accepted. Get one that is not.", v.maxLifetime)
		}
	}
	return who, nil
}

// CheckUser returns what is wrong with a user's id.
func CheckUser(user string) error {
	switch {
	case user == "" || len(user) > maxSubject || !utf8.ValidString(user) || strings.ContainsFunc(user, unicode.IsControl):
		return fmt.Errorf("is empty, longer than %d bytes, or has control characters", maxSubject)
	case strings.TrimSpace(user) != user:
		return errors.New("begins or ends with a space")
	case tenant.IsProgram(user):
		return errors.New("is the name of one of Tramo's programs")
	}
	return nil
}

// projectsOf returns the projects that the token restricts its bearer to, nil for all. A claim without a project is the
// issuer's mistake and must not mean all.
func projectsOf(c jwt.MapClaims) ([]string, error) {
	claim, ok := c["projects"]
	if !ok {
		return nil, nil
	}
	list, ok := claim.([]any)
	if !ok || len(list) == 0 || len(list) > maxProjects {
		return nil, fmt.Errorf("claim projects is not a list of 1 to %d names", maxProjects)
	}
	projects := make([]string, len(list))
	for i, p := range list {
		name, ok := p.(string)
		if !ok || !object.ValidProject(name) {
			return nil, errors.New("claim projects has a name that is not valid")
		}
		projects[i] = name
	}
	return projects, nil
}

// Sign makes a token for id, valid for ttl, that a verifier with c accepts. It needs a secret.
func (c Config) Sign(id tenant.Identity, ttl time.Duration, now time.Time) (string, error) {
	role, err := c.Roles.name(id.Role)
	if err != nil {
		return "", err
	}
	claims := jwt.MapClaims{
		"sub": id.User, "tenant": id.Tenant.String(), "role": role,
		"iat": now.Unix(), "exp": now.Add(ttl).Unix(),
	}
	if id.Projects != nil {
		claims["projects"] = id.Projects
	}
	if c.Issuer != "" {
		claims["iss"] = c.Issuer
	}
	if c.Audience != "" {
		claims["aud"] = c.Audience
	}
	return jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(c.secrets()[0])
}
