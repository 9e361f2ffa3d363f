// Package resource has the JSON representations of uploads and batches, which the API answers with and live streams send. It
// decides nothing.
package resource

import (
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
)

// LinkParameter is the parameter of a thumbnail's address that has the signature of a user's link to it.
const LinkParameter = "link"

// UploadsPath is the collection of uploads: tus writes them, GET reads their state.
const UploadsPath = "/api/uploads"

// ContentPath returns the address of an upload's content, relative to the server. It does not change, unlike the link that it
// redirects to.
func ContentPath(upload uuid.UUID) string { return UploadsPath + "/" + upload.String() + "/content" }

// thumbnailPath is the same for the upload's thumbnail of that size.
func thumbnailPath(upload uuid.UUID, size int) string {
	return UploadsPath + "/" + upload.String() + "/thumbnails/" + strconv.Itoa(size)
}

// An Upload is the state of an upload. Offsets and sizes are bytes, times RFC 3339.
type Upload struct {
	ID          uuid.UUID        `json:"id"`
	Status      storage.Status   `json:"status"`
	Offset      int64            `json:"offset"`
	Size        *int64           `json:"size"` // null until its client declares it
	Filename    *string          `json:"filename"`
	Type        *string          `json:"type"` // detected from the content; until then as declared
	Project     string           `json:"project"`
	Batch       *string          `json:"batch"` // the client's own name
	BatchID     *uuid.UUID       `json:"batch_id"`
	ClientID    *string          `json:"client_id"`
	CreatedAt   time.Time        `json:"created_at"`
	UpdatedAt   time.Time        `json:"updated_at"`
	ExpiresAt   *time.Time       `json:"expires_at"` // when it expires unless more arrives; null once all has
	UploadedAt  *time.Time       `json:"uploaded_at"`
	CompletedAt *time.Time       `json:"completed_at"`
	SHA256      *string          `json:"sha256"`
	ContentURL  *string          `json:"content_url"` // relative to the server; null unless it is completed
	DeletedAt   *time.Time       `json:"deleted_at"`
	PurgeAt     *time.Time       `json:"purge_at"` // until when it can be restored
	Failure     *Failure         `json:"failure"`
	Thumbnails  []Thumbnail      `json:"thumbnails"`
	Facts       *Facts           `json:"facts"`
	Scan        *storage.Scanned `json:"scan"`                 // null before the first scan
	DistanceM   *float64         `json:"distance_m,omitempty"` // in a search by place: from its center

	TypeMismatch bool    `json:"type_mismatch"` // the content has another type than its sender declared
	Partial      bool    `json:"partial"`       // the thumbnails show only a part of it
	Placeholder  *string `json:"placeholder"`   // ThumbHash in Base64, to show while thumbnails load
	NoThumbnail  *string `json:"no_thumbnail"`  // why a file whose type can have one has none
	storage.Document
}

// A Failure says why an upload failed.
type Failure struct {
	Reason string `json:"reason"`
	Detail string `json:"detail"`
}

// FailureOf returns nil for an upload that has not failed.
func FailureOf(u storage.Upload) *Failure {
	if u.FailureReason == nil {
		return nil
	}
	f := &Failure{Reason: *u.FailureReason}
	if u.FailureDetail != nil {
		f.Detail = *u.FailureDetail
	}
	return f
}

// A Thumbnail is a small image of an upload.
type Thumbnail struct {
	Size   int    `json:"size"` // of the box that it fits in, pixels
	Width  int    `json:"width"`
	Height int    `json:"height"`
	Bytes  int64  `json:"bytes"`
	Type   string `json:"type"`
	URL    string `json:"url"` // relative to the server; with a link of the user's own it needs no token
}

// ScanOf returns the latest virus scan of an upload, nil for none.
func ScanOf(u storage.Upload) *storage.Scanned {
	if u.ScanVerdict == nil {
		return nil
	}
	return &u.Scanned
}

// Facts are those of a file; the place and the camera are null if nothing is known of them.
type Facts struct {
	storage.Facts
	GPS    *storage.Place  `json:"gps"`
	Camera *storage.Camera `json:"camera"`
}

func factsOf(f storage.Facts) *Facts {
	if f == (storage.Facts{}) {
		return nil
	}
	j := &Facts{Facts: f}
	if f.Latitude != nil && f.Longitude != nil {
		j.GPS = &f.Place
	}
	if f.Camera != (storage.Camera{}) {
		j.Camera = &f.Camera
	}
	return j
}
