package hooks

import (
	"maps"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/tenant"
)

// ThumbnailsCovered is how long one entry in the audit log covers what this server gives a user of the thumbnails of one
// upload: a user who looks through a gallery asks for several sizes, and again when scrolling back.
const ThumbnailsCovered = time.Hour

// maxShown bounds the memory of [shown]: 100 bytes each. Beyond that, entries are written that were not needed.
const maxShown = 1 << 16

// A viewer is a user who is given thumbnails of an upload.
type viewer struct {
	tenant, home, upload uuid.UUID
	user                 string
}

func viewerOf(who tenant.Identity, upload uuid.UUID) viewer {
	return viewer{who.Tenant, who.Home, upload, who.User}
}

// shown has, of this server, until when entries in the audit log cover which viewers. The zero value is ready.
type shown struct {
	mu  sync.Mutex
	all map[viewer]time.Time
}

// until returns until when an entry covers the viewer: one that is there, or one that is still to be written.
func (s *shown) until(v viewer, now time.Time) (until time.Time, covered bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if until = s.all[v]; now.Before(until) {
		return until, true
	}
	return now.Add(ThumbnailsCovered), false
}

// cover records an entry, which is committed.
func (s *shown) cover(v viewer, until, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) >= maxShown {
		maps.DeleteFunc(s.all, func(_ viewer, until time.Time) bool { return !now.Before(until) })
	}
	if s.all == nil || len(s.all) >= maxShown {
		s.all = make(map[viewer]time.Time)
	}
	s.all[v] = until
}
