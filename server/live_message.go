package server

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/server/resource"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

// Names of what listeners are told; docs/reference/events.md explains them to clients.
const (
	eventUpload       = "upload"       // an upload is as GET tells it
	eventBatch        = "batch"        // a batch is as GET tells it
	eventAnnouncement = "announcement" // something happened that is nobody's state
	eventReset        = "reset"        // what follows does not continue what was told before
	eventReady        = "ready"        // all is told that there was; from now on, changes are
	eventEnd          = "end"          // the stream ends, and why
)

// A message is told to many listeners: nothing of it is changed once it is offered.
type message struct {
	event string
	id    string // where to go on from; "" for where the one before said
	data  []byte // JSON in one line

	// Whom it concerns.
	subject   uuid.UUID // an upload or a batch; the zero id for none
	version   storage.Version
	moved     time.Time // when it changed
	batch     uuid.UUID // the zero id for none
	label     string    // of an upload's batch, "" for none
	project   string
	user      string
	everybody bool // it is about the whole tenant
	managers  bool // it is about its endpoints, which are for managers of all projects, as at /api/webhooks
}

func newMessage(event string, data any) (*message, error) {
	b, err := json.Marshal(data)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", event, err)
	}
	return &message{event: event, data: b}, nil
}

// readUploads makes messages of the uploads that read returns.
func (h *hub) readUploads(ctx context.Context, read func(context.Context, storage.Tx) ([]storage.Upload, error)) ([]*message, error) {
	us, items, err := h.reader.Uploads(ctx, read)
	if err != nil {
		return nil, err
	}
	ms := make([]*message, len(us))
	for i, u := range us {
		if ms[i], err = newMessage(eventUpload, items[i]); err != nil {
			return nil, err
		}
		ms[i].subject, ms[i].version, ms[i].project, ms[i].user = u.ID, u.Version(), u.Project, u.UserID
		if ms[i].moved = u.UpdatedAt; u.Status.Receiving() && u.TouchedAt.After(u.UpdatedAt) {
			ms[i].moved = u.TouchedAt
		}
		if u.BatchID != nil {
			ms[i].batch = *u.BatchID
		}
		if u.Batch != nil {
			ms[i].label = *u.Batch
		}
	}
	return ms, nil
}

// countBatches makes messages of batches, with their totals.
func countBatches(ctx context.Context, tx storage.Tx, bs []storage.Batch) ([]*message, error) {
	if len(bs) == 0 {
		return nil, nil
	}
	ids := make([]uuid.UUID, len(bs))
	for i, b := range bs {
		ids[i] = b.ID
	}
	totals, err := tx.BatchTotals(ctx, ids...)
	if err != nil {
		return nil, err
	}
	ms := make([]*message, len(bs))
	for i, b := range bs {
		if ms[i], err = newMessage(eventBatch, resource.CountedBatchOf(b, totals[b.ID])); err != nil {
			return nil, err
		}
		ms[i].batch, ms[i].label, ms[i].project, ms[i].user = b.ID, b.Label(), b.Project, b.UserID
	}
	return ms, nil
}

// announcementJSON is an announcement as listeners are told it.
type announcementJSON struct {
	ID        uuid.UUID      `json:"id"`
	Type      string         `json:"type"`
	UploadID  *uuid.UUID     `json:"upload_id"`
	BatchID   *uuid.UUID     `json:"batch_id"`
	CreatedAt time.Time      `json:"created_at"`
	Detail    map[string]any `json:"detail"`
}

// announcementMessages leaves those out whose upload is not to be seen.
func announcementMessages(as []storage.Announced) ([]*message, error) {
	var ms []*message
	for _, a := range as {
		m, err := newMessage(eventAnnouncement, announcementJSON{a.ID, a.Type, a.UploadID, a.BatchID, a.CreatedAt, a.Detail})
		if err != nil {
			return nil, err
		}
		switch {
		case a.Project != nil:
			m.project = *a.Project
		case a.UploadID != nil || a.BatchID != nil:
			continue
		default:
			m.everybody, m.managers = true, strings.HasPrefix(a.Type, "webhook.")
		}
		if a.UploadID != nil {
			m.subject = *a.UploadID
		}
		if a.BatchID != nil {
			m.batch = *a.BatchID
		}
		if a.Batch != nil {
			m.label = *a.Batch
		}
		if a.User != nil {
			m.user = *a.User
		}
		ms = append(ms, m)
	}
	return ms, nil
}

// A filter says what a listener wants to hear of. Fields that are empty match all; one that is not matches any of
// its values.
type filter struct {
	uploads  []uuid.UUID
	batches  []string // ids, or what their clients call them
	projects []string
	mine     bool
}

// concerns reports whether a message is for who, and what it asked for.
func (f filter) concerns(m *message, who tenant.Identity) bool {
	if m.everybody {
		return who.Role.CanUpload() && (!m.managers || who.Role.CanManage() && who.Projects == nil) &&
			f.uploads == nil && f.batches == nil && f.projects == nil
	}
	return who.Sees(m.project) &&
		(f.uploads == nil || slices.Contains(f.uploads, m.subject)) &&
		(f.batches == nil || slices.Contains(f.batches, m.batch.String()) || slices.Contains(f.batches, m.label)) &&
		(f.projects == nil || slices.Contains(f.projects, m.project)) &&
		(!f.mine || m.user == who.User)
}

// watch is the filter as package storage takes it.
func (f filter) watch(who tenant.Identity) storage.Watch {
	w := storage.Watch{Uploads: f.uploads, Labels: f.batches, Projects: f.projects}
	for _, b := range f.batches {
		if id, err := uuid.Parse(b); err == nil {
			w.Batches = append(w.Batches, id)
		}
	}
	if f.mine {
		w.User = who.User
	}
	return w
}
