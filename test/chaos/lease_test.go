package chaos

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// settling is how long a server may take to give its leases back, once its requests have ended.
	settling = 5 * time.Second
	// answering is how long a HEAD may be answered 423 of an upload that nobody writes.
	answering = 15 * time.Second
)

// checkLeases: nobody holds a lease whose request has ended, unless an answer of Postgres was lost, or the server died. A HEAD
// at any replica makes even those free. Servers must run, and no client.
func checkLeases(ctx context.Context, s *site, uploads []*upload) {
	var left []lease
	await(ctx, settling, func() bool {
		left = slices.DeleteFunc(s.leases(ctx), func(l lease) bool { return !l.Alive || s.severed(l.Replica) })
		return len(left) == 0
	})
	for _, l := range left {
		s.journal.violate(l.Upload, "its lease is left with %s, where nobody holds it", l.Replica)
	}
	for _, u := range uploads {
		if !u.done {
			continue
		}
		for _, url := range s.urls() {
			var told string
			if !await(ctx, answering, func() bool { told = s.head(ctx, url+"/api/uploads/"+u.id()); return told == strconv.Itoa(len(u.data)) }) {
				s.journal.violate(u.name, "in the end HEAD at %s is answered %s, not with offset %d", url, told, len(u.data))
			}
		}
	}
	if !await(ctx, settling, func() bool { left = s.leases(ctx); return len(left) == 0 }) {
		s.journal.violate("", "leases are left after HEADs: %+v", left)
	}
}

// A lease is a row, and whether the process lives that has it.
type lease struct {
	Upload, Replica string
	Alive           bool
}

// leases returns the leases of uploads that clients were told to be complete.
func (s *site) leases(ctx context.Context) []lease {
	conn, err := s.connect(ctx)
	if err != nil {
		return []lease{{Upload: err.Error()}}
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, `
		select coalesce(u.client_id, ''), h.replica, h.expires_at > clock_timestamp()
		from upload_leases l join lease_holders h on h.id = l.holder_id join uploads u on u.id = l.upload_id where u.uploaded_at is not null`)
	if err != nil {
		return []lease{{Upload: err.Error()}}
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[lease])
	if err != nil {
		return []lease{{Upload: err.Error()}}
	}
	return all
}

func (s *site) severed(name string) bool {
	return slices.ContainsFunc(s.replicas, func(r *replica) bool { return r.name == name && r.severed.Load() })
}

// head returns the offset that a HEAD is told, or what went wrong.
func (s *site) head(ctx context.Context, url string) string {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, url, nil)
	if err != nil {
		return err.Error()
	}
	req.Header.Set("Tus-Resumable", "1.0.0")
	req.Header.Set("Authorization", "Bearer "+s.token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	if res.StatusCode >= 300 {
		return res.Status
	}
	return res.Header.Get("Upload-Offset")
}

// await reports whether something is reached in time.
func await(ctx context.Context, limit time.Duration, reached func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for !reached() {
		if ctx.Err() != nil {
			return false
		}
		pause(ctx, 50*time.Millisecond)
	}
	return true
}
