package hooks

import (
	"fmt"
	"time"

	"github.com/tramo/tramo/storage"
)

// Expiry says when unfinished uploads expire.
type Expiry struct {
	Retention time.Duration `name:"unfinished-retention" help:"How long an unfinished upload is kept after its last byte arrived. All programs need the same value."`
}

// DefaultExpiry is used where nothing is set.
func DefaultExpiry() Expiry { return Expiry{7 * 24 * time.Hour} }

// minRetention leaves a client time to find its network again.
const minRetention = time.Hour

// Validate reports what is wrong with e.
func (e Expiry) Validate() error {
	if e.Retention < minRetention {
		return fmt.Errorf("TRAMO_UNFINISHED_RETENTION: %s is less than %s; a client that lost its network would find its upload gone", e.Retention, minRetention)
	}
	return nil
}

// Of returns when the upload is given up unless more of it arrives (tus 1.0.0, Expiration); false for one that will not be.
func (e Expiry) Of(u storage.Upload) (at time.Time, ok bool) {
	waits := u.UploadedAt != nil && u.FinalID == nil // a partial upload that is complete, for a final one
	if !u.Status.Receiving() || !waits && !u.SizeDeferred && u.Received == u.Size {
		return time.Time{}, false // all bytes are there: it will be finished
	}
	return u.TouchedAt.Add(e.Retention), true
}

// FromNow returns when an upload that has just been touched is given up.
func (e Expiry) FromNow() time.Time { return time.Now().Add(e.Retention) }

// passed reports whether the upload is past its time, also if the reconciler has not expired it yet.
func (e Expiry) passed(u storage.Upload) bool {
	at, ok := e.Of(u)
	return u.Status == storage.Expired || ok && time.Now().After(at)
}
