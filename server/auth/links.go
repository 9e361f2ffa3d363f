package auth

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/telemetry"
	"github.com/tramo/tramo/tenant"
)

// linkLife bounds how long a link works. A user gets the same link for half of that, so that a browser finds the picture in
// its cache.
const linkLife = time.Hour

// linkTag is how many bytes of the HMAC a link has (RFC 2104, section 5: at least half of them).
const linkTag = sha256.Size / 2

// LinkConfig is the settings of [Links].
type LinkConfig struct {
	Keys telemetry.Secret `name:"link-key" placeholder:"SECRET" help:"Secret of 32 bytes or more that signs links to thumbnails; several, separated by commas, for a rotation: the first signs. Default: derived from the server's other secrets. A server with TRAMO_JWKS_URL and neither TRAMO_WEBHOOK_KEY nor TRAMO_RECEIPT_KEY_FILE has none, and needs this."`
}

// Validate reports what is wrong with c.
func (c LinkConfig) Validate() error {
	var errs []error
	for key := range strings.SplitSeq(string(c.Keys), ",") {
		if len(key) < MinSecret && c.Keys != "" {
			errs = append(errs, fmt.Errorf("TRAMO_LINK_KEY: a key has %d bytes and needs %d or more, such as openssl rand -hex 32 prints", len(key), MinSecret))
		}
	}
	return errors.Join(errs...)
}

// Links signs and verifies links to thumbnails, for img elements, which send no header. A link stands for the user who got
// it, for one thumbnail of one upload, for an hour at most and no longer than the user's token: it is revoked with that.
type Links struct{ keys [][]byte }

// NewLinks derives keys from secrets (RFC 5869). The first signs; all of them verify. The label of the derivation has the version
// of what links say: whoever changes that counts it up, so that no server reads what another release has written.
func NewLinks(secrets ...string) (*Links, error) {
	if len(secrets) == 0 {
		return nil, errors.New("no secret to sign links with")
	}
	l := &Links{}
	for _, secret := range secrets {
		key, err := hkdf.Key(sha256.New, []byte(secret), nil, "tramo links to thumbnails 1", sha256.Size)
		if err != nil {
			return nil, fmt.Errorf("derive the key of links: %w", err)
		}
		l.keys = append(l.keys, key)
	}
	return l, nil
}

// Sign returns the signature of a link to a thumbnail of the upload, which is in that project.
func (l *Links) Sign(who tenant.Identity, project string, upload uuid.UUID, size int) string {
	return l.signAt(who, project, upload, size, time.Now())
}

func (l *Links) signAt(who tenant.Identity, project string, upload uuid.UUID, size int, now time.Time) string {
	expires := now.Truncate(linkLife / 2).Add(linkLife)
	if who.Expires.Before(expires) {
		expires = who.Expires
	}
	if who.Projects == nil {
		project = "" // the user sees the upload in any project
	}
	b := append(append([]byte{}, who.Tenant[:]...), who.Home[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(expires.Unix()))
	b = binary.BigEndian.AppendUint64(b, uint64(who.Issued.Unix()))
	b = appendText(appendText(b, string(who.Role)), project)
	b = append(b, who.User...)
	return base64.RawURLEncoding.EncodeToString(append(b, tag(l.keys[0], b, upload, size)...))
}

func appendText(b []byte, s string) []byte { return append(append(b, byte(len(s))), s...) }

// tag is computed over what the link says and the thumbnail that it leads to. The suffix has a fixed length, so no other link
// yields the same bytes.
func tag(key, said []byte, upload uuid.UUID, size int) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write(said)
	mac.Write(upload[:])
	mac.Write(binary.BigEndian.AppendUint64(nil, uint64(size)))
	return mac.Sum(nil)[:linkTag]
}

// verify returns the identity that a link stands for, narrowed to the project of its upload if the user's token was narrowed,
// or [problem.ErrBadLink].
func (l *Links) verify(link string, upload uuid.UUID, size int, now time.Time) (who tenant.Identity, err error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(link)
	if err != nil || len(b) < linkTag {
		return who, problem.ErrBadLink
	}
	said, sent := b[:len(b)-linkTag], b[len(b)-linkTag:]
	for _, key := range l.keys {
		if hmac.Equal(tag(key, said, upload, size), sent) {
			if who = readLink(said); now.Before(who.Expires) {
				return who, nil
			}
		}
	}
	return tenant.Identity{}, problem.ErrBadLink
}

// readLink reads what a link of ours says: its tag was correct.
func readLink(b []byte) (who tenant.Identity) {
	next := func(n int) (part []byte) { part, b = b[:n], b[n:]; return part }
	text := func() string { return string(next(int(next(1)[0]))) }
	who.Tenant, who.Home = uuid.UUID(next(16)), uuid.UUID(next(16))
	who.Expires = time.Unix(int64(binary.BigEndian.Uint64(next(8))), 0)
	if issued := time.Unix(int64(binary.BigEndian.Uint64(next(8))), 0); !issued.IsZero() {
		who.Issued = issued
	}
	who.Role = tenant.Role(text())
	if project := text(); project != "" {
		who.Projects = []string{project}
	}
	who.User = string(b)
	return who
}

// AuthenticateByLink is [Authenticator.Authenticate] for the route of thumbnails, which takes a link instead of a token: the
// parameter of that name.
func (a *Authenticator) AuthenticateByLink(parameter string) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		withToken := a.Authenticate(next)
		return func(c echo.Context) error {
			if !c.QueryParams().Has(parameter) {
				return withToken(c)
			}
			who, err := a.Links.verifyFor(c, c.QueryParam(parameter))
			if err != nil {
				return err
			}
			return a.Admit(c, who, next)
		}
	}
}

// verifyFor verifies a link to the thumbnail that the request's path names.
func (l *Links) verifyFor(c echo.Context, link string) (tenant.Identity, error) {
	upload, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return tenant.Identity{}, problem.ErrBadLink
	}
	size, err := strconv.Atoi(c.Param("size"))
	if err != nil {
		return tenant.Identity{}, problem.ErrBadLink
	}
	return l.verify(link, upload, size, time.Now())
}
