package object

import (
	"fmt"
	"net/http"
	"time"

	"github.com/tus/tusd/v2/pkg/handler"

	"github.com/tramo/tramo/storage"
)

// ErrExpired says that nothing of the upload has arrived for so long that it was given up.
var ErrExpired = handler.NewError("ERR_UPLOAD_EXPIRED", "upload has expired", http.StatusGone)

// minExpiry leaves a client time to find its network again.
const minExpiry = time.Hour

// ExpiryConfig says when unfinished uploads expire.
type ExpiryConfig struct {
	Expiry time.Duration `name:"unfinished-retention" help:"How long an unfinished upload is kept after its last byte arrived. All programs need the same value."`
}

// DefaultExpiryConfig is used where nothing is set.
func DefaultExpiryConfig() ExpiryConfig { return ExpiryConfig{Expiry: 7 * 24 * time.Hour} }

// Validate reports what is wrong with c.
func (c ExpiryConfig) Validate() error {
	if c.Expiry < minExpiry {
		return fmt.Errorf("TRAMO_UNFINISHED_RETENTION: %s is less than %s; a client that lost its network would find its upload gone", c.Expiry, minExpiry)
	}
	return nil
}

// Expires returns when the upload is given up unless more of it arrives (tus 1.0.0, Expiration); false for one
// that will not be.
func (s *Store) Expires(u storage.Upload) (at time.Time, ok bool) {
	waits := u.UploadedAt != nil && u.FinalID == nil // a partial upload that is complete, for a final one
	if !u.Status.Receiving() || !waits && !u.SizeDeferred && u.Received == u.Size {
		return time.Time{}, false // all bytes are there: it will be finished
	}
	return u.TouchedAt.Add(s.conf.Expiry), true
}

// ExpiresAfterNow returns when an upload that has just been touched is given up.
func (s *Store) ExpiresAfterNow() time.Time { return time.Now().Add(s.conf.Expiry) }

// expired reports whether the upload is past its time, also if nobody has swept it yet.
func (s *Store) expired(u storage.Upload) bool {
	at, ok := s.Expires(u)
	return u.Status == storage.Expired || ok && time.Now().After(at)
}

// An Expiring is an upload of a [Store] that knows when it expires.
type Expiring interface {
	// Expires is [Store.Expires] for the upload as it is now.
	Expires() (at time.Time, ok bool)
}

// Expires implements [Expiring].
func (u *upload) Expires() (time.Time, bool) {
	row := u.row
	row.Received = u.content.Received
	return u.store.Expires(row)
}
