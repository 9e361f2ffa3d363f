package server

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strings"

	"github.com/labstack/echo/v4"
)

// Proxies are the networks whose forwarding headers are trusted.
type Proxies []netip.Prefix

// UnmarshalText implements [encoding.TextUnmarshaler], for networks such as 10.0.0.0/8 or 2001:db8::/32, or single addresses,
// with commas between them.
func (ps *Proxies) UnmarshalText(list []byte) error {
	*ps = nil
	for s := range strings.SplitSeq(string(list), ",") {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		p, err := netip.ParsePrefix(s)
		if a, single := netip.ParseAddr(s); single == nil && a.Zone() == "" {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil || p.Addr().Is4In6() {
			return fmt.Errorf("%q is not a network such as 10.0.0.0/8", s)
		}
		*ps = append(*ps, p.Masked())
	}
	return nil
}

// extractor finds the client's address: of those in X-Forwarded-For, and the peer's, the last one that is not one of the
// proxies. Any client can have written the addresses to its left.
func (ps Proxies) extractor() echo.IPExtractor {
	if len(ps) == 0 {
		return echo.ExtractIPDirect()
	}
	// By default echo trusts all private networks.
	options := []echo.TrustOption{echo.TrustLoopback(false), echo.TrustLinkLocal(false), echo.TrustPrivateNet(false)}
	for _, p := range ps {
		options = append(options, echo.TrustIPRange(&net.IPNet{
			IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen()),
		}))
	}
	return echo.ExtractIPFromXFFHeader(options...)
}

// trusts reports whether the request's peer is one of the proxies.
func (ps Proxies) trusts(r *http.Request) bool {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	return ps.contain(peer.Addr())
}

// contain reports whether the address is that of one of the proxies.
func (ps Proxies) contain(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	for _, p := range ps {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

var (
	forwardedHost  = regexp.MustCompile(`^[A-Za-z0-9.:\[\]-]+$`)
	forwardedProto = regexp.MustCompile(`^https?$`)
)

// sanitize removes the forwarding headers that name the address that the client used, unless one of the proxies sent
// them: then it keeps the last value. Later code can trust those that are left.
func (ps Proxies) sanitize(r *http.Request) {
	trusted := ps.trusts(r)
	for name, valid := range map[string]*regexp.Regexp{"X-Forwarded-Host": forwardedHost, "X-Forwarded-Proto": forwardedProto} {
		values := r.Header.Values(name)
		if len(values) == 0 {
			continue
		}
		last := values[len(values)-1]
		last = strings.TrimSpace(last[strings.LastIndexByte(last, ',')+1:])
		if r.Header.Del(name); trusted && valid.MatchString(last) {
			r.Header.Set(name, last)
		}
	}
	r.Header.Del("Forwarded") // RFC 7239; nothing here reads it, and it could contradict the others
}
