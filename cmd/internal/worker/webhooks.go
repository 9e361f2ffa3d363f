package worker

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tramo/tramo/cmd/internal/cli"
	"github.com/tramo/tramo/hooks/webhook"
	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/telemetry"
)

// webhookSettings say how webhooks are sent.
type webhookSettings struct {
	cli.Webhooks
	WebhookTimeout   time.Duration `default:"15s" help:"How long a webhook's receiver may take to answer."`
	WebhookSlots     int           `default:"256" help:"How many webhooks to send at a time."`
	WebhookRetention time.Duration `default:"720h" help:"How long ended deliveries of webhooks are kept, dead letters among them."`
}

// webhookConfig is what webhooks need.
type webhookConfig struct {
	webhook.Config
	sender webhook.SenderConfig
}

func (s webhookSettings) webhooks(m *cli.Mistakes) webhookConfig {
	c := webhookConfig{
		Config: s.Config(m),
		sender: webhook.SenderConfig{Timeout: s.WebhookTimeout, Slots: s.WebhookSlots, Retention: s.WebhookRetention},
	}
	m.Check("TRAMO_WEBHOOK_TIMEOUT, TRAMO_WEBHOOK_SLOTS, TRAMO_WEBHOOK_RETENTION", c.sender.Validate())
	return c
}

// join has the pool send webhooks and returns what dispatches them, until its context is done.
func (c webhookConfig) join(pool *queue.Pool, db *storage.DB, q *queue.Queue, registry *prometheus.Registry, log *slog.Logger) (func(context.Context) error, error) {
	if c.Keys == "" {
		log.Warn("no webhooks: TRAMO_WEBHOOK_KEY is not set")
		return func(context.Context) error { return nil }, nil
	}
	vault, err := webhook.NewVault(c.Keys)
	if err != nil {
		return nil, err
	}
	dispatcher := webhook.NewDispatcher(c.sender, db, q, log)
	registry.MustRegister(&webhook.Backlog{DB: db, Log: log})
	webhook.NewSender(c.sender, dispatcher, vault, webhook.NewGuard(c.Config), webhook.NewMetrics(registry), telemetry.NewTracerProvider(), log).Register(pool)
	return dispatcher.Run, nil
}
