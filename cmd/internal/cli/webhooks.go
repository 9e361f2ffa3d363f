package cli

import (
	"fmt"
	"net/netip"

	"github.com/tramo/tramo/hooks/webhook"
)

// Webhooks says whom webhooks may reach. Servers and workers need the same.
type Webhooks struct {
	WebhookKey       string   `placeholder:"SECRET" help:"Secret of 32 bytes or more that encrypts the secrets which sign webhooks, such as openssl rand -hex 32 prints; several with commas between them, the first for new ones. Without it there are no webhooks. Give all programs the same."`
	WebhookAllow     []string `placeholder:"CIDR" help:"Networks that webhooks may be sent to though they are not public, with commas between them."`
	WebhookAllowHTTP bool     `name:"webhook-allow-http" env:"TRAMO_WEBHOOK_ALLOW_HTTP" help:"Accept http:// for webhooks; their content can then be read on the way."`
}

// Config returns the settings as package webhook takes them.
func (w Webhooks) Config(m *Mistakes) webhook.Config {
	c := webhook.Config{Keys: w.WebhookKey, AllowHTTP: w.WebhookAllowHTTP}
	for _, s := range w.WebhookAllow {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			m.Check("TRAMO_WEBHOOK_ALLOW", fmt.Errorf("%q is not a network such as 10.20.0.0/16", s))
			continue
		}
		c.Allow = append(c.Allow, p.Masked())
	}
	m.Check("TRAMO_WEBHOOK_KEY", c.Validate())
	return c
}
