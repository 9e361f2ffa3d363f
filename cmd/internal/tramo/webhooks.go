package tramo

import (
	"log/slog"

	"github.com/tramo/tramo/hooks/webhook"
	"github.com/tramo/tramo/storage"
)

// endpoints manage where webhooks go.
func endpoints(c webhook.Config, db *storage.DB, log *slog.Logger) (*webhook.Endpoints, error) {
	e := &webhook.Endpoints{DB: db, Guard: webhook.NewGuard(c)}
	if c.Keys == "" {
		log.Warn("no webhooks: TRAMO_WEBHOOK_KEY is not set")
		return e, nil
	}
	var err error
	e.Vault, err = webhook.NewVault(c.Keys)
	return e, err
}
