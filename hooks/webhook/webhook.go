// Package webhook tells tenants' endpoints of announcements, as the Standard Webhooks specification 1.0.0 says: it
// chooses what is due, signs it, sends it, tries again, and gives up. It owns which addresses may be reached and how
// secrets are kept, and knows nothing of the API that manages endpoints.
package webhook

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Config says whom webhooks may reach, and with what the secrets that sign them are sealed. Servers and workers need the
// same.
type Config struct {
	Keys      string         // secrets of 32 bytes or more, with commas between them: the first seals, all open; "" turns webhooks off
	Allow     []netip.Prefix // addresses that may be reached though they are not public
	AllowHTTP bool           // http is as good as https
}

// MinKey is the least length of a key, in bytes.
const MinKey = 32

// Validate reports what is wrong with c.
func (c Config) Validate() error {
	if c.Keys == "" {
		return nil
	}
	_, err := NewVault(c.Keys)
	return err
}

// SenderConfig shapes a Sender.
type SenderConfig struct {
	Timeout   time.Duration // of an attempt
	Slots     int           // attempts at a time in this process
	Retention time.Duration // how long what has ended is kept
}

// DefaultSenderConfig is what is used for what is not said.
func DefaultSenderConfig() SenderConfig {
	return SenderConfig{Timeout: 15 * time.Second, Slots: 256, Retention: 30 * 24 * time.Hour}
}

// Validate reports what is wrong with c.
func (c SenderConfig) Validate() error {
	switch {
	case c.Timeout < time.Second || c.Timeout > time.Minute:
		return errors.New("an attempt may take a second to a minute")
	case c.Slots <= window:
		return fmt.Errorf("there must be more than %d slots, which is what one endpoint may take", window)
	case c.Retention < schedule.span():
		return fmt.Errorf("what has ended must be kept for as long as attempts go on, %s, or longer", schedule.span())
	}
	return nil
}
