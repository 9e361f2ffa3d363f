package telemetry

import (
	"fmt"
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
