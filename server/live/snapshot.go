package live

import (
	"context"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
)

const (
	// maxSnapshotUploads and maxSnapshotBatches bound a snapshot.
	maxSnapshotUploads = 1000
	maxSnapshotBatches = 100
	// snapshotReach is how long ago an upload of a snapshot may have ended: a client that listed uploads a moment before
	// misses none.
	snapshotReach = 5 * time.Minute
	// maxAbsence is how long a client may have been disconnected and still get only what it missed.
	maxAbsence = 24 * time.Hour
)

// A snapshot is what a listener is sent first.
type snapshot struct {
	now      time.Time
	messages []*message
	more     bool // it does not have all that there is
}

// catchUp sends what has changed since the client was connected last. If there was no last time, or too much has changed,
// it sends what there is. It returns the versions of uploads that it sent. Only the last message has an id to resume
// from: a client that disconnects in between starts again.
func (h *Hub) catchUp(ctx context.Context, l *listener, st stream, lastID string) (map[uuid.UUID]version, error) {
	var s snapshot
	since, why := parseResumeID(lastID)
	if why == "" {
		var err error
		if s, err = h.missed(ctx, l, since); err != nil {
			return nil, err
		}
		if s.more {
			why = "too_many"
		}
	}
	if why != "" {
		reset, err := newMessage(eventReset, map[string]string{"reason": why})
		if err != nil {
			return nil, err
		}
		if s, err = h.present(ctx, l); err != nil {
			return nil, err
		}
		s.messages = append([]*message{reset}, s.messages...)
	}
	ready, err := newMessage(eventReady, map[string]bool{"complete": !s.more})
	if err != nil {
		return nil, err
	}
	ready.id = formatResumeID(s.now)
	sent := make(map[uuid.UUID]version, len(s.messages))
	for _, m := range s.messages {
		if m.event == eventUpload {
			sent[m.subject] = m.version
		}
	}
	return sent, h.sendAll(ctx, st, append(s.messages, ready))
}

// A resume id is the time up to which a client has been sent all changes, in microseconds.
func formatResumeID(at time.Time) string { return strconv.FormatInt(at.UnixMicro(), 10) }

// parseResumeID returns the time of a resume id, or why a client cannot resume from it.
func parseResumeID(id string) (since time.Time, why string) {
	if id == "" {
		return since, "new"
	}
	micros, err := strconv.ParseInt(id, 10, 64)
	if err != nil {
		return since, "unknown"
	}
	since = time.UnixMicro(micros)
	switch absence := time.Since(since); {
	case absence > maxAbsence:
		return since, "too_old"
	case absence < -maxAbsence:
		return since, "unknown"
	}
	return since, ""
}

// missed reads what has changed since then and concerns the listener.
func (h *Hub) missed(ctx context.Context, l *listener, since time.Time) (s snapshot, err error) {
	since = since.Add(-h.Overlap)
	var as []announced
	var batches []*message
	s.messages, err = h.readUploads(ctx, func(ctx context.Context, tx storage.Tx) (us []storage.Upload, err error) {
		if s.now, err = clock(ctx, tx); err != nil {
			return nil, err
		}
		if as, err = announcementsSince(ctx, tx, since); err != nil {
			return nil, err
		}
		us, err = watched(ctx, tx, l.filter, since, false, maxSnapshotUploads+1)
		if s.more = len(us) > maxSnapshotUploads; s.more || err != nil {
			return nil, err
		}
		batches, err = l.readBatches(ctx, tx, since, us, false)
		return us, err
	})
	if err != nil || s.more {
		return s, err
	}
	ms, err := announcementMessages(as)
	for _, m := range append(batches, ms...) {
		if l.filter.concerns(m, l.who) {
			s.messages = append(s.messages, m)
		}
	}
	return s, err
}

// present reads what a listener that knows nothing is sent.
func (h *Hub) present(ctx context.Context, l *listener) (s snapshot, err error) {
	var batches []*message
	s.messages, err = h.readUploads(ctx, func(ctx context.Context, tx storage.Tx) (us []storage.Upload, err error) {
		if s.now, err = clock(ctx, tx); err != nil {
			return nil, err
		}
		since := s.now.Add(-snapshotReach)
		us, err = watched(ctx, tx, l.filter, since, true, maxSnapshotUploads+1)
		if err != nil {
			return nil, err
		}
		if s.more = len(us) > maxSnapshotUploads; s.more {
			us = us[1:] // drops the one that changed first
		}
		batches, err = l.readBatches(ctx, tx, since, us, true)
		return us, err
	})
	s.messages = append(s.messages, batches...)
	return s, err
}

// readBatches makes messages of the batches of a snapshot: those that have changed since then, those of the uploads, and,
// if open is true, those that are open.
func (l *listener) readBatches(ctx context.Context, tx storage.Tx, since time.Time, us []storage.Upload, open bool) ([]*message, error) {
	if l.filter.uploads != nil {
		return nil, nil
	}
	var changed []uuid.UUID
	for _, u := range us {
		if u.BatchID != nil {
			changed = append(changed, *u.BatchID)
		}
	}
	bs, err := watchedBatches(ctx, tx, l.filter, since, changed, open, maxSnapshotBatches)
	if err != nil {
		return nil, err
	}
	return batchMessages(ctx, tx, bs)
}
