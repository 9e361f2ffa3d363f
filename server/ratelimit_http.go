package server

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

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/tenant"
)

// Too many requests. A client that transfers is told in a way that it survives: on 429, tus-js-client gives a PATCH up,
// and after a HEAD it forgets the upload's address and begins again from byte 0. On 423 it waits and goes on.

// limitAddress holds the address that a request comes from to its rates. It comes before tokens are verified, so
// that guessing them is bounded, too, and behind what answers across origins, so that a browser's client may read why.
func (s *Server) limitAddress(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		p, cause := s.Limits.ofAddress(r)
		err := s.limit(c, p, addressKey(tenant.OriginOf(r.Context()).Address), 1, cause)
		switch {
		case err == nil:
			return next(c)
		case isTransfer(r) || isCreation(r):
			return nameProtocol(func(echo.Context) error { return err })(c)
		}
		return err
	}
}

// limitUser holds the user that a request acts for to its rates.
func (s *Server) limitUser(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if err := s.limitRequest(c); err != nil {
			return err
		}
		return next(c)
	}
}

func (s *Server) limitRequest(c echo.Context) error {
	r := c.Request()
	switch {
	case s.Limits == nil:
		return nil
	case isTransfer(r):
		return s.limitCaller(c, s.Limits.transfers, 1, problem.ErrSlowDown)
	case isCreation(r):
		return s.limitUploads(c, 1)
	}
	return s.limitCaller(c, s.Limits.user, 1, problem.ErrRateLimited)
}

// limitUploads counts n uploads that the request creates. A batch calls it for its entries, beside the request itself.
func (s *Server) limitUploads(c echo.Context, n int) error {
	if s.Limits == nil {
		return nil
	}
	return s.limitCaller(c, s.Limits.uploads, n, problem.ErrRateLimited)
}

// limitCaller counts n for the user that the request acts for.
func (s *Server) limitCaller(c echo.Context, p policy, n int, cause error) error {
	who, err := tenant.From(c.Request().Context())
	if err != nil {
		return err
	}
	home := who.Tenant
	if who.Home != uuid.Nil {
		home = who.Home // whose user it is, wherever it acts
	}
	return s.limit(c, p, home.String()+":"+who.User, n, cause)
}

// limit counts n for the key, tells the client where it stands, and returns a refusal if that is too much.
func (s *Server) limit(c echo.Context, p policy, key string, n int, cause error) error {
	v, ok := s.Limits.take(c.Request().Context(), p, key, n)
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
	return &hooks.Refusal{
		Cause:  cause,
		Detail: fmt.Sprintf("Too many requests at once. Nothing is lost. Go on in %d s; Retry-After says so, too.", wait),
		Facts:  map[string]any{"policy": p.name, "retry_after_seconds": wait},
	}
}

// tellRate adds the policy and what it leaves to the answer (draft-ietf-httpapi-ratelimit-headers: RateLimit-Policy, with
// quota q and window w, and RateLimit, with what remains, r, and the seconds until it is reset, t).
func tellRate(h http.Header, p policy, v verdict) {
	reset := v.reset
	if !v.allowed {
		reset = v.retry // the same point in time as Retry-After
	}
	addItem(h, "RateLimit-Policy", p.name, "q", int64(p.burst), "w", seconds(p.window()))
	addItem(h, "RateLimit", p.name, "r", int64(v.remaining), "t", seconds(reset))
}

// addItem adds a string with two integer parameters to a list (RFC 9651, section 3.1).
func addItem(h http.Header, header, name, key1 string, value1 int64, key2 string, value2 int64) {
	item := httpsfv.NewItem(name)
	item.Params.Add(key1, value1)
	item.Params.Add(key2, value2)
	value, err := httpsfv.Marshal(httpsfv.List{item})
	if err != nil {
		return // names are our own, and numbers small
	}
	if before := h.Get(header); before != "" {
		value = before + ", " + value
	}
	h.Set(header, value)
}

// seconds rounds up: who waits for so long has waited long enough.
func seconds(d time.Duration) int64 { return int64(math.Ceil(max(d, 0).Seconds())) }

func (l *Limits) ofAddress(r *http.Request) (policy, error) {
	switch {
	case l == nil:
		return policy{}, nil
	case isTransfer(r):
		return l.ipTransfers, problem.ErrSlowDown
	}
	return l.ip, problem.ErrRateLimited
}

// isTransfer reports whether the request is one by which clients send, resume or take back an upload.
func isTransfer(r *http.Request) bool {
	switch r.Method {
	case http.MethodPatch, http.MethodHead, http.MethodDelete:
		id, ok := strings.CutPrefix(r.URL.Path, UploadsPath+"/")
		return ok && id != "" && !strings.Contains(id, "/")
	}
	return false
}

// isCreation reports whether the request creates an upload.
func isCreation(r *http.Request) bool {
	return r.Method == http.MethodPost && strings.TrimSuffix(r.URL.Path, "/") == UploadsPath
}

// addressKey is what shares a limit: an IPv4 address, or the 64 bits of an IPv6 address that name a network, of which
// each customer of a provider has at least one (RFC 6177, section 2).
func addressKey(address string) string {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return address
	}
	if a = a.Unmap().WithZone(""); a.Is4() {
		return a.String()
	}
	network, _ := a.Prefix(64) // an IPv6 address has as many bits
	return network.String()
}
