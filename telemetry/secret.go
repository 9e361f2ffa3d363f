package telemetry

import (
	"fmt"
	"net/netip"
)

// A Secret is a setting that is never printed: logs, errors and JSON show [redacted] in its place. string(s) reads it.
type Secret string

const redacted = "[redacted]"

// Format implements [fmt.Formatter], for every verb.
func (s Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.shown()) }

// MarshalText implements [encoding.TextMarshaler].
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.shown()), nil }

func (s Secret) shown() string {
	if s == "" {
		return ""
	}
	return redacted
}

// IsThisMachine reports whether nobody can listen on the way to a host: it is this machine, by its loopback addresses, or the
// path of a socket. "" is this machine too.
func IsThisMachine(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "" || host == "localhost" || host[0] == '/' || err == nil && ip.Unmap().IsLoopback()
}
