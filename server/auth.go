package server

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/tenant"
)

// clockSkew is how far a token issuer's clock may be from ours.
const clockSkew = 30 * time.Second

// maxSubject is the longest user id, in bytes. OpenID Connect allows as much (Core 1.0, section 2, sub).
const maxSubject = 255

// MinSecret is the least length of a secret for HS256, in bytes (RFC 7518, section 3.2).
const MinSecret = 32

// AuthConfig says which tokens are good: those signed with Secret (HS256), or with a key that JWKSURL
// publishes (RS256, ES256 or EdDSA). One of the two is needed.
type AuthConfig struct {
	Secret  string
	JWKSURL string
}

// Validate reports what is wrong with c.
func (c AuthConfig) Validate() error {
	switch {
	case c.Secret == "" && c.JWKSURL == "":
		return errors.New("a secret or a JWKS URL is needed to verify tokens")
	case c.Secret != "" && c.JWKSURL != "":
		return errors.New("a secret and a JWKS URL are given; which tokens are good would be ambiguous, so give one")
	case c.Secret != "" && len(c.Secret) < MinSecret:
		return fmt.Errorf("the secret has %d bytes; HS256 needs at least %d, such as openssl rand -hex 32 prints", len(c.Secret), MinSecret)
	case c.JWKSURL != "":
		if u, err := url.Parse(c.JWKSURL); err != nil || u.Host == "" {
			return errors.New("the JWKS URL is not a URL such as https://id.example.com/.well-known/jwks.json")
		}
	}
	return nil
}

// Claims are what a token says of its bearer.
type Claims struct {
	jwt.RegisteredClaims
	Tenant string `json:"tenant"` // the tenant's id
	Role   string `json:"role"`   // see package tenant
}

// A Verifier turns tokens into identities. It is safe for concurrent use.
type Verifier struct {
	parser *jwt.Parser
	key    jwt.Keyfunc
}

// NewVerifier makes a verifier. A JWKS is fetched, and refreshed, until ctx is done.
func NewVerifier(ctx context.Context, c AuthConfig) (*Verifier, error) {
	// The algorithms are ours to choose, never the token's: a public key must not pass for a secret.
	methods := []string{jwt.SigningMethodHS256.Name}
	key := func(*jwt.Token) (any, error) { return []byte(c.Secret), nil }
	if c.JWKSURL != "" {
		methods = []string{jwt.SigningMethodRS256.Name, jwt.SigningMethodES256.Name, jwt.SigningMethodEdDSA.Alg()}
		set, err := keyfunc.NewDefaultCtx(ctx, []string{c.JWKSURL})
		if err != nil {
			return nil, fmt.Errorf("follow the JWKS: %w", err)
		}
		key = set.Keyfunc
	}
	return &Verifier{
		parser: jwt.NewParser(jwt.WithValidMethods(methods), jwt.WithExpirationRequired(), jwt.WithLeeway(clockSkew)),
		key:    key,
	}, nil
}

// Verify returns whom the token speaks for.
func (v *Verifier) Verify(token string) (tenant.Identity, error) {
	var c Claims
	if _, err := v.parser.ParseWithClaims(token, &c, v.key); err != nil {
		return tenant.Identity{}, err
	}
	id, err := uuid.Parse(c.Tenant)
	if err != nil || id == uuid.Nil {
		return tenant.Identity{}, errors.New("claim tenant is not a tenant's id")
	}
	role, err := tenant.ParseRole(c.Role)
	if err != nil {
		return tenant.Identity{}, fmt.Errorf("claim role: %w", err)
	}
	if c.Subject == "" || len(c.Subject) > maxSubject || strings.ContainsRune(c.Subject, 0) {
		return tenant.Identity{}, fmt.Errorf("claim sub is empty, longer than %d bytes, or has a NUL", maxSubject)
	}
	return tenant.Identity{Tenant: id, User: c.Subject, Role: role}, nil
}

// Sign makes a token for id that is good for ttl, with the HS256 secret.
func Sign(secret string, id tenant.Identity, ttl time.Duration, now time.Time) (string, error) {
	return jwt.NewWithClaims(jwt.SigningMethodHS256, Claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Subject:   id.User,
			IssuedAt:  jwt.NewNumericDate(now),
			ExpiresAt: jwt.NewNumericDate(now.Add(ttl)),
		},
		Tenant: id.Tenant.String(),
		Role:   string(id.Role),
	}).SignedString([]byte(secret))
}

// authenticate lets a request with a good token pass, acting for whom it names.
func (s *Server) authenticate(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return errUnauthorized
		}
		id, err := s.Verifier.Verify(strings.TrimSpace(token))
		if err != nil {
			return fmt.Errorf("%w: %w", errUnauthorized, err)
		}
		c.SetRequest(r.WithContext(tenant.With(r.Context(), id)))
		return next(c)
	}
}
