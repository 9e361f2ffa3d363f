// Package api has the handlers of the JSON resources, one file a resource. A handler parses the request, calls the package
// that decides, and answers. It returns errors; only package problem knows their statuses.
package api

import (
	"log/slog"
	"net/http"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/hooks/erasure"
	"github.com/tramo/tramo/hooks/webhook"
	"github.com/tramo/tramo/processing/deadletter"
	"github.com/tramo/tramo/server/ratelimit"
	"github.com/tramo/tramo/server/resource"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
)

// An API has a handler for each route of the JSON resources.
type API struct {
	DB          *storage.DB
	Bucket      *object.Bucket
	Uploads     *resource.Reader
	Admission   *hooks.Admission
	Batches     *hooks.Batches
	Receipts    *hooks.Receipts
	Webhooks    *webhook.Endpoints
	Erasures    *erasure.Service
	DeadLetters *deadletter.Service
	Quarantine  *hooks.Quarantine
	Log         *slog.Logger

	// Base returns the scheme and host of absolute addresses in the answer to a request.
	Base func(*http.Request) string
	// MaxUploads is how many uploads of a tenant may send to this server at the same time, unless it has a maximum of its
	// own; 0 for any number.
	MaxUploads int
	Limits     *ratelimit.Limits // nil for none
}
