package ratelimit

import (
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/dunglas/httpsfv"
	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/server/resource"
	"github.com/tramo/tramo/tenant"
)

// A class is what a request counts as.
type class int

const (
	request   class = iota
	creation        // of one upload
	transfer        // sends, resumes or cancels an upload
	thumbnail       // a gallery asks for hundreds
)

func classOf(c echo.Context) class {
	if c.Path() == resource.UploadsPath+"/:id/thumbnails/:size" {
		return thumbnail
	}
	switch c.Request().Method {
	case http.MethodPatch, http.MethodHead, http.MethodDelete:
		if c.Path() == resource.UploadsPath+"/:id" {
			return transfer
		}
	case http.MethodPost:
		if strings.TrimSuffix(c.Path(), "/") == resource.UploadsPath {
			return creation
		}
	}
	return request
}

// refusal is the error for a request of a class. After a 429 tus-js-client gives a PATCH up, and after a 429 to HEAD it
// drops the upload's URL and starts again from byte 0; after a 423 it waits and resumes. So transfers get 423.
func (cl class) refusal() error {
	if cl == transfer {
		return problem.ErrSlowDown
	}
	return problem.ErrRateLimited
}

// Address is middleware that holds the address of a request to its rates. It comes before tokens are verified, so that
// it limits guessing them as well, and after CORS, so that a page can read why its request was refused.
func (l *Limits) Address(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		p, cl := l.ip, classOf(c)
		if cl == transfer || cl == thumbnail {
			p = l.ipTransfers
		}
		if err := l.limit(c, p, AddressKey(tenant.OriginOf(c.Request().Context()).Address), 1, cl); err != nil {
			return err
		}
		return next(c)
	}
}

// User is middleware that holds the user that a request acts for to its rates.
func (l *Limits) User(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		p, cl := l.user, classOf(c)
		switch cl {
		case transfer:
			p = l.transfers
		case creation:
			p = l.uploads
		case thumbnail:
			p = l.thumbnails
		}
		if err := l.limitUser(c, p, 1, cl); err != nil {
			return err
		}
		return next(c)
	}
}

// Uploads counts n uploads that a request creates in addition to the request itself.
func (l *Limits) Uploads(c echo.Context, n int) error {
	return l.limitUser(c, l.uploads, n, creation)
}

// limitUser counts n for the user that the request acts for.
func (l *Limits) limitUser(c echo.Context, p Limit, n int, cl class) error {
	who, err := tenant.From(c.Request().Context())
	if err != nil {
		return err
	}
	return l.limit(c, p, userKey(who), n, cl)
}

// userKey is the key of a user.
func userKey(who tenant.Identity) string {
	home := who.Tenant
	if who.Home != uuid.Nil {
		home = who.Home // an admin counts as a user of its own tenant, whichever tenant it enters
	}
	return home.String() + ":" + who.User
}

// limit counts n for the key, tells the client what remains, and returns a refusal if the limit is exceeded.
func (l *Limits) limit(c echo.Context, p Limit, key string, n int, cl class) error {
	v, ok := l.take(c.Request().Context(), p, key, n)
	if !ok {
		return nil
	}
	h := c.Response().Header()
	tellRate(h, p, v)
	if v.allowed {
		return nil
	}
	wait := seconds(v.retry)
	h.Set("Retry-After", strconv.FormatInt(wait, 10))
	return &tenant.Refusal{
		Cause:  cl.refusal(),
		Detail: fmt.Sprintf("Too many requests. Nothing is lost. Continue in %d s, as Retry-After says.", wait),
		Facts:  map[string]any{"policy": p.Name, "retry_after_seconds": wait},
	}
}

// tellRate adds the policy and what it leaves to the answer (draft-ietf-httpapi-ratelimit-headers: RateLimit-Policy, with
// quota q and window w, and RateLimit, with what remains, r, and the seconds until it is reset, t).
func tellRate(h http.Header, p Limit, v verdict) {
	reset := v.reset
	if !v.allowed {
		reset = v.retry // the same time as Retry-After
	}
	addItem(h, "RateLimit-Policy", p.Name, "q", int64(p.Burst), "w", seconds(p.window()))
	addItem(h, "RateLimit", p.Name, "r", int64(v.remaining), "t", seconds(reset))
}

// addItem adds a string with two integer parameters to a list (RFC 9651, section 3.1).
func addItem(h http.Header, header, name, key1 string, value1 int64, key2 string, value2 int64) {
	item := httpsfv.NewItem(name)
	item.Params.Add(key1, value1)
	item.Params.Add(key2, value2)
	value, err := httpsfv.Marshal(httpsfv.List{item})
	if err != nil {
		return // cannot happen: names are ours, and numbers are small
	}
	if before := h.Get(header); before != "" {
		value = before + ", " + value
	}
	h.Set(header, value)
}

// seconds rounds up, so that a client that waits for so long has waited long enough.
func seconds(d time.Duration) int64 { return int64(math.Ceil(max(d, 0).Seconds())) }

// AddressKey is the key of an address: an IPv4 address, or the first 64 bits of an IPv6 address. They name a network, and
// each customer of a provider has at least one (RFC 6177, section 2).
func AddressKey(address string) string {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return address
	}
	if a = a.Unmap().WithZone(""); a.Is4() {
		return a.String()
	}
	network, _ := a.Prefix(64) // cannot fail: an IPv6 address has 128 bits
	return network.String()
}
