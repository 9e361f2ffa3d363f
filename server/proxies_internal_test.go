package server

import (
	"net/http"
	"testing"

	"github.com/tramo/tramo/test/stack"
)

// Addresses to the left of the last one that is not a trusted proxy are not used: the client may have written them.
func TestAddressBehindProxies(t *testing.T) {
	t.Parallel()
	const ours = "10.0.0.0/8, 2001:db8:aa::/48,192.0.2.7"
	for _, c := range []struct {
		name, proxies, peer, want string
		forwarded                 []string
	}{
		{"no proxies, no word", "", "203.0.113.9:4711", "203.0.113.9", nil},
		{"no proxies, a client's word", "", "203.0.113.9:4711", "203.0.113.9", []string{"198.51.100.1"}},
		{"no proxies, from this machine", "", "127.0.0.1:4711", "127.0.0.1", []string{"198.51.100.1"}},
		{"not a proxy of ours", ours, "203.0.113.9:4711", "203.0.113.9", []string{"198.51.100.1"}},
		{"private, and not ours", ours, "192.168.0.2:4711", "192.168.0.2", []string{"198.51.100.1"}},
		{"loopback, and not ours", ours, "[::1]:4711", "::1", []string{"198.51.100.1"}},
		{"by a proxy", ours, "10.1.2.3:4711", "198.51.100.1", []string{"198.51.100.1"}},
		{"by a single one", ours, "192.0.2.7:4711", "198.51.100.1", []string{"198.51.100.1"}},
		{"its neighbour", ours, "192.0.2.8:4711", "192.0.2.8", []string{"198.51.100.1"}},
		{"by a proxy that says nothing", ours, "10.1.2.3:4711", "10.1.2.3", nil},
		{"by two", ours, "10.1.2.3:4711", "198.51.100.1", []string{"198.51.100.1, 10.9.9.9"}},
		{"by two, two headers", ours, "10.1.2.3:4711", "198.51.100.1", []string{"198.51.100.1", "10.9.9.9"}},
		{"spoofed left", ours, "10.1.2.3:4711", "198.51.100.1", []string{"1.1.1.1, 10.0.0.1, 198.51.100.1"}},
		{"spoofed header before", ours, "10.1.2.3:4711", "198.51.100.1", []string{"10.0.0.1", "198.51.100.1,10.9.9.9"}},
		{"junk left", ours, "10.1.2.3:4711", "198.51.100.1", []string{"<script>, ,, 198.51.100.1"}},
		{"junk alone", ours, "10.1.2.3:4711", "10.1.2.3", []string{"unknown"}},
		{"empty", ours, "10.1.2.3:4711", "10.1.2.3", []string{""}},
		{"all ours", ours, "10.1.2.3:4711", "10.9.9.9", []string{"10.9.9.9"}},
		{"IPv6", ours, "[2001:db8:aa::1]:4711", "2001:db8:bb::5", []string{"2001:db8:bb::5"}},
		{"IPv6 in brackets", ours, "[2001:db8:aa::1]:4711", "2001:db8:bb::5", []string{"[2001:db8:bb::5]"}},
		{"IPv6, not ours", ours, "[2001:db8:ab::1]:4711", "2001:db8:ab::1", []string{"2001:db8:bb::5"}},
		{"IPv4 in IPv6", ours, "10.1.2.3:4711", "198.51.100.1", []string{"::ffff:198.51.100.1, ::ffff:10.0.0.4"}},
		{"everybody", "0.0.0.0/0,::/0", "203.0.113.9:4711", "1.1.1.1", []string{"1.1.1.1, 198.51.100.1"}},
	} {
		var ps Proxies
		stack.Must(t, ps.UnmarshalText([]byte(c.proxies)))
		r := &http.Request{RemoteAddr: c.peer, Header: http.Header{}}
		if c.forwarded != nil {
			r.Header["X-Forwarded-For"] = c.forwarded
		}
		stack.Want(t, ps.extractor()(r), c.want, "%s", c.name)
	}
	for _, bad := range []string{"10.0.0.0/33", "proxy.internal", "10.0.0", "::ffff:10.0.0.0/104", "fe80::1%eth0"} {
		var ps Proxies
		if ps.UnmarshalText([]byte(bad)) == nil {
			t.Errorf("%s passes for %v", bad, ps)
		}
	}
}

// Only a trusted proxy can set the address that the client used, and only to a valid one.
func TestForwardedAddress(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, peer, header, said, want string
	}{
		{"trusted host", "10.1.2.3:1", "X-Forwarded-Host", "uploads.example.com:8443", "uploads.example.com:8443"},
		{"trusted proto", "10.1.2.3:1", "X-Forwarded-Proto", "https", "https"},
		{"the last one's", "10.1.2.3:1", "X-Forwarded-Host", "evil.example, uploads.example.com", "uploads.example.com"},
		{"a client's", "203.0.113.9:1", "X-Forwarded-Host", "evil.example", ""},
		{"a client's", "203.0.113.9:1", "X-Forwarded-Proto", "https", ""},
		{"not a host", "10.1.2.3:1", "X-Forwarded-Host", "evil.example/path?", ""},
		{"not a scheme", "10.1.2.3:1", "X-Forwarded-Proto", "javascript", ""},
		{"another standard's", "10.1.2.3:1", "Forwarded", "host=evil.example;proto=https", ""},
		{"no peer", "@", "X-Forwarded-Host", "evil.example", ""},
	} {
		var ps Proxies
		stack.Must(t, ps.UnmarshalText([]byte("10.0.0.0/8")))
		r := &http.Request{RemoteAddr: c.peer, Header: http.Header{}}
		r.Header.Set(c.header, c.said)
		ps.sanitize(r)
		stack.Want(t, r.Header.Get(c.header), c.want, "%s: what is left of %q", c.name, c.said)
	}
}
