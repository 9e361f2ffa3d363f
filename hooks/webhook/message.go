package webhook

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
)

// A message is the payload (Standard Webhooks 1.0.0, "Payload structure").
type message struct {
	Type      string    `json:"type"`
	Timestamp time.Time `json:"timestamp"` // of what is announced, not of the attempt
	Data      any       `json:"data"`
}

// An Upload is what a webhook tells of an upload: fields of what GET answers, under the same names, without links, without
// thumbnails and facts. A receiver that needs those asks for them with GET.
type Upload struct {
	ID          uuid.UUID      `json:"id"`
	Status      storage.Status `json:"status"`
	Project     *string        `json:"project"` // null once the upload was deleted, as all that follows
	BatchID     *uuid.UUID     `json:"batch_id"`
	Batch       *string        `json:"batch"`
	ClientID    *string        `json:"client_id"`
	Filename    *string        `json:"filename"`
	Type        *string        `json:"type"`
	Size        *int64         `json:"size"` // bytes
	SHA256      *string        `json:"sha256"`
	CreatedAt   *time.Time     `json:"created_at"`
	UploadedAt  *time.Time     `json:"uploaded_at"`
	CompletedAt *time.Time     `json:"completed_at"`
	Failure     *Failure       `json:"failure"`
}

// A Failure says why an upload failed.
type Failure struct {
	Reason string `json:"reason"`
	Detail string `json:"detail"`
}

// Describe returns what a webhook tells of the upload.
func Describe(u storage.Upload) Upload {
	d := Upload{
		ID: u.ID, Status: u.Status, Project: &u.Project, BatchID: u.BatchID, Batch: u.Batch, ClientID: u.ClientID, Filename: storage.Shown(u.Filename),
		Type: u.DetectedType, CreatedAt: &u.CreatedAt, UploadedAt: u.UploadedAt, CompletedAt: u.CompletedAt,
	}
	if !u.SizeDeferred {
		d.Size = &u.Size
	}
	if d.Type == nil {
		d.Type = u.DeclaredType
	}
	if u.SHA256 != nil {
		sum := hex.EncodeToString(u.SHA256)
		d.SHA256 = &sum
	}
	if u.FailureReason != nil {
		d.Failure = &Failure{Reason: *u.FailureReason}
		if u.FailureDetail != nil {
			d.Failure.Detail = *u.FailureDetail
		}
	}
	return d
}

// payload describes what was announced as it is now. It is not stored, so that no queue keeps erased data.
func payload(ctx context.Context, tx storage.Tx, a attempt) ([]byte, error) {
	m := message{Type: a.Type, Timestamp: a.At.UTC()}
	switch {
	case a.UploadID != nil:
		u, err := tx.Upload(ctx, *a.UploadID)
		switch {
		case errors.Is(err, storage.ErrNotFound):
			_, became, _ := strings.Cut(a.Type, ".")
			m.Data = Upload{ID: *a.UploadID, Status: storage.Status(became)}
		case err != nil:
			return nil, err
		default:
			m.Data = Describe(u)
		}
	case a.BatchID != nil:
		data := map[string]any{"id": *a.BatchID}
		maps.Copy(data, a.Detail)
		m.Data = data
	default:
		m.Data = a.Detail
	}
	body, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode webhook: %w", err)
	}
	return body, nil
}
