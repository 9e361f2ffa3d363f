package webhook

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"code.dny.dev/ssrf"
)

// A URLError tells a person why webhooks are not sent to a URL.
type URLError struct{ Detail string }

func (e *URLError) Error() string { return "webhook URL refused: " + e.Detail }

func refuse(format string, args ...any) error { return &URLError{fmt.Sprintf(format, args...)} }

// A Guard keeps webhooks away from internal addresses: the tenant names the URL, and a worker sends the request (OWASP, Server Side
// Request Forgery). It checks the URL when an endpoint is registered, to tell a person, and the address itself at each connect, so
// that no DNS answer gets around it.
type Guard struct {
	rules     *ssrf.Guardian
	allowHTTP bool
	resolver  *net.Resolver // of this process, unless a test has its own
}

// azureWire is a public address at which every machine in Azure reaches its platform: DHCP, DNS, and the wire server with the
// machine's configuration (Microsoft, "What is IP address 168.63.129.16?"). The metadata addresses of other clouds are in
// networks that are not public.
var azureWire = netip.MustParsePrefix("168.63.129.16/32")

// NewGuard makes a guard.
func NewGuard(c Config) *Guard {
	var v4, v6 []netip.Prefix
	for _, p := range c.Allow {
		if p = p.Masked(); p.Addr().Is4() {
			v4 = append(v4, p)
		} else {
			v6 = append(v6, p)
		}
	}
	return &Guard{
		rules: ssrf.New(ssrf.WithAnyPort(), ssrf.WithDeniedV4Prefixes(azureWire),
			ssrf.WithAllowedV4Prefixes(v4...), ssrf.WithAllowedV6Prefixes(v6...)),
		allowHTTP: c.AllowHTTP,
		resolver:  net.DefaultResolver,
	}
}

const (
	maxURL      = 2048 // bytes
	lookupTime  = 3 * time.Second
	firstPort   = 1024 // below it only 80 and 443 are HTTP's
	notPublic   = "The host must have public addresses only. Check its name, and that it resolves in the public DNS."
	needsScheme = "The URL must begin with https:// and name a host."
)

// CheckURL returns a [*URLError] unless webhooks may be sent to the URL as its host resolves now. A host that does not resolve gets the
// same answer as one that is not public, so that nobody can look for names in the internal network.
func (g *Guard) CheckURL(ctx context.Context, raw string) error {
	u, err := url.Parse(raw)
	if err != nil || u.Hostname() == "" || len(raw) > maxURL {
		return refuse(needsScheme+" It may have %d bytes.", maxURL)
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !g.allowHTTP) {
		return refuse(needsScheme)
	}
	if u.User != nil || u.Fragment != "" {
		return refuse("The URL may have no user, password or fragment. What the request must prove, its signature proves.")
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n != 80 && n != 443 && n < firstPort {
			return refuse("The port must be 80, 443, or %d and above.", firstPort)
		}
	}
	return g.checkHost(ctx, u.Hostname())
}

func (g *Guard) checkHost(ctx context.Context, host string) error {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	addresses, err := g.resolver.LookupNetIP(ctx, "ip", host)
	if err != nil || len(addresses) == 0 {
		return refuse(notPublic)
	}
	for _, a := range addresses {
		if err := g.rules.SafeAddr(a.Unmap()); err != nil {
			return refuse(notPublic)
		}
	}
	return nil
}

// transport makes only connections that the guard allows. It uses no proxy from the environment, whose connections the guard would
// not see.
func (g *Guard) transport(timeout time.Duration) *http.Transport {
	dialer := &net.Dialer{Timeout: timeout, Resolver: g.resolver, Control: g.rules.Safe}
	return &http.Transport{
		Proxy:                  nil,
		DialContext:            dialer.DialContext,
		ForceAttemptHTTP2:      true,
		TLSHandshakeTimeout:    timeout,
		IdleConnTimeout:        30 * time.Second,
		MaxIdleConns:           512,
		MaxIdleConnsPerHost:    window,
		MaxResponseHeaderBytes: 16 << 10,
		DisableCompression:     true,
	}
}

// refusedAddress reports whether err is the guard's.
func refusedAddress(err error) bool {
	return errors.Is(err, ssrf.ErrProhibitedIP) || errors.Is(err, ssrf.ErrProhibitedNetwork) || errors.Is(err, ssrf.ErrProhibitedPort)
}
