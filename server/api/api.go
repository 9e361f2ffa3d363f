// Package api has the handlers of the JSON resources and of forms, one file a resource. A handler parses the request, calls the package
// that decides, and answers. It returns errors; only package problem knows their statuses.
package api

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/hooks/batch"
	"github.com/tramo/tramo/hooks/erasure"
	"github.com/tramo/tramo/hooks/webhook"
	"github.com/tramo/tramo/processing/deadletter"
	"github.com/tramo/tramo/processing/quarantine"
	"github.com/tramo/tramo/server/ratelimit"
	"github.com/tramo/tramo/server/resource"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
)

// Services are what the handlers call.
type Services struct {
	DB          *storage.DB
	Bucket      *object.Bucket
	Uploads     *hooks.Uploads
	Batches     *batch.Service
	Receipts    *hooks.Receipts
	Webhooks    *webhook.Endpoints
	Erasures    *erasure.Service
	DeadLetters *deadletter.Service
	Quarantine  *quarantine.Service
	Limits      *ratelimit.Limits
	Log         *slog.Logger
}

// An API has a handler for each route of the JSON resources.
type API struct {
	Config
	Services
	Contents *hooks.Contents
	Reader   *resource.Reader
	Base     func(*http.Request) string // scheme and host of absolute addresses in the answer to a request
}

// Config has the limits of an [API].
type Config struct {
	MaxUploads   int  // concurrent uploads of a tenant without a maximum of its own; 0 for no limit
	ServeContent bool // send content instead of redirecting to S3

	// Of forms.
	PublicURL       string        // of this server, for the addresses of uploads; "" for addresses without a host
	NetworkTimeout  time.Duration // how long a body may be idle
	LeaseTimeout    time.Duration // how long a request waits for the lease of its upload
	ShutdownTimeout time.Duration // how long requests may run after the server was told to stop
}
