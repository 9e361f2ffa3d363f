// Package webhook delivers announcements to the endpoints of tenants, as the Standard Webhooks specification 1.0.0 says: it manages
// endpoints and their secrets, decides which deliveries are due and which addresses may be reached, signs, sends, and retries.
package webhook

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/tramo/tramo/telemetry"
)

// Config says which addresses webhooks may reach, and which keys encrypt the secrets that sign them. Servers and workers need the same.
type Config struct {
	Keys      telemetry.Secret `name:"webhook-key" placeholder:"SECRET" help:"Secret of 32 bytes or more that encrypts the secrets which sign webhooks, such as openssl rand -hex 32 prints. To rotate it, give several separated by commas, the new one first. Without it there are no webhooks. All programs need the same value."`
	Allow     []netip.Prefix   `name:"webhook-allow" placeholder:"CIDR" help:"Networks that are not public and may still receive webhooks, such as 10.20.0.0/16, separated by commas."`
	AllowHTTP bool             `name:"webhook-allow-http" help:"Allow endpoints with http://, whose content anyone on the way can read."`
}

// MinKey is the least length of a key, in bytes.
const MinKey = 32

// Validate reports what is wrong with c.
func (c Config) Validate() error {
	if c.Keys == "" {
		return nil
	}
	if _, err := NewVault(string(c.Keys)); err != nil {
		return fmt.Errorf("TRAMO_WEBHOOK_KEY: %w", err)
	}
	return nil
}

// SenderConfig shapes a Sender.
type SenderConfig struct {
	Timeout     time.Duration `name:"webhook-timeout" help:"How long the receiver of a webhook may take to answer."`
	Concurrency int           `name:"webhook-concurrency" help:"How many webhooks are sent at a time."`
	Retention   time.Duration `name:"webhook-retention" help:"How long ended deliveries of webhooks are kept, dead letters among them."`
}

// DefaultSenderConfig is used where nothing is set.
func DefaultSenderConfig() SenderConfig {
	return SenderConfig{Timeout: 15 * time.Second, Concurrency: 256, Retention: 30 * 24 * time.Hour}
}

// Validate reports what is wrong with c.
func (c SenderConfig) Validate() error {
	var errs []error
	if c.Timeout < time.Second || c.Timeout > time.Minute {
		errs = append(errs, fmt.Errorf("TRAMO_WEBHOOK_TIMEOUT: %s is not between 1s and 1m", c.Timeout))
	}
	if c.Concurrency <= window {
		errs = append(errs, fmt.Errorf("TRAMO_WEBHOOK_CONCURRENCY: %d is not more than %d, which is what one endpoint may take", c.Concurrency, window))
	}
	if c.Retention < schedule.span() {
		errs = append(errs, fmt.Errorf("TRAMO_WEBHOOK_RETENTION: %s is less than %s, for which attempts go on", c.Retention, schedule.span()))
	}
	return errors.Join(errs...)
}
