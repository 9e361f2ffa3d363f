// Package resource is what clients are told of uploads and batches: the JSON that the API answers with and that live
// streams send is the same. It decides nothing.
package resource

import (
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
)

// UploadsPath is where uploads live: tus writes them, GET reads their state.
const UploadsPath = "/api/uploads"

// ContentPath is where the content of a completed upload is, relative to the API's root. It stays the same, while the
// link that it redirects to does not.
func ContentPath(upload uuid.UUID) string { return UploadsPath + "/" + upload.String() + "/content" }

// An Upload is an upload as GET tells it. Offsets and sizes are bytes, times RFC 3339.
type Upload struct {
	ID          uuid.UUID      `json:"id"`
	Status      storage.Status `json:"status"`
	Offset      int64          `json:"offset"`
	Size        *int64         `json:"size"` // null while its client has not said
	Filename    *string        `json:"filename"`
	Type        *string        `json:"type"` // what the content is; as declared until that is known
	Project     string         `json:"project"`
	Batch       *string        `json:"batch"` // what its client calls it
	BatchID     *uuid.UUID     `json:"batch_id"`
	ClientID    *string        `json:"client_id"`
	CreatedAt   time.Time      `json:"created_at"`
	UpdatedAt   time.Time      `json:"updated_at"`
	ExpiresAt   *time.Time     `json:"expires_at"` // when it expires unless more arrives; null once all has
	UploadedAt  *time.Time     `json:"uploaded_at"`
	CompletedAt *time.Time     `json:"completed_at"`
	SHA256      *string        `json:"sha256"`
	ContentURL  *string        `json:"content_url"` // relative to the API's root; null unless it is completed
	DeletedAt   *time.Time     `json:"deleted_at"`
	PurgeAt     *time.Time     `json:"purge_at"` // until when it can be restored
	Failure     *Failure       `json:"failure"`
	Thumbnails  []Thumbnail    `json:"thumbnails"`
	Facts       *Facts         `json:"facts"`
	Scan        *Scan          `json:"scan"`                 // null until it was scanned
	DistanceM   *float64       `json:"distance_m,omitempty"` // in a search by place: from its center

	TypeMismatch bool    `json:"type_mismatch"` // it is not of the kind that its sender said
	Partial      bool    `json:"partial"`       // its thumbnails show a part of it
	Placeholder  *string `json:"placeholder"`   // ThumbHash, base64: what to show while thumbnails load
	NoThumbnail  *string `json:"no_thumbnail"`  // why there is none of something that can have one
	Pages        *int32  `json:"pages"`
	Title        *string `json:"title"`
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
	Size   int    `json:"size"` // pixels of the box it was drawn for
	Width  int    `json:"width"`
	Height int    `json:"height"`
	Bytes  int64  `json:"bytes"`
	Type   string `json:"type"`
	URL    string `json:"url"` // works for [object.LinkLife]
}

// A Scan is what the virus scanner said of an upload, the last time that it was asked.
type Scan struct {
	Verdict    storage.ScanVerdict `json:"verdict"`
	Signature  *string             `json:"signature"`
	ScannedAt  *time.Time          `json:"scanned_at"`
	Engine     *string             `json:"engine"`
	Signatures *int64              `json:"signatures"` // the version of the scanner's daily database
	SignedAt   *time.Time          `json:"signed_at"`
	ReleasedAt *time.Time          `json:"released_at"` // when an admin last released it from quarantine
}

// ScanOf returns nil for an upload that was not scanned.
func ScanOf(s storage.Scanned) *Scan {
	if s.ScanVerdict == nil {
		return nil
	}
	return &Scan{
		Verdict: *s.ScanVerdict, Signature: s.ScanSignature, ScannedAt: s.ScannedAt, Engine: s.ScanEngine,
		Signatures: s.ScanSignatures, SignedAt: s.ScanSignedAt, ReleasedAt: s.ReleasedAt,
	}
}

// Facts are what a file says of itself.
type Facts struct {
	TakenAt     *time.Time `json:"taken_at"`    // null when the camera named no zone
	TakenLocal  *string    `json:"taken_local"` // the camera's wall clock
	TakenZone   *string    `json:"taken_zone"`  // how taken_at was derived: offset, xmp or gps
	GPS         *GPS       `json:"gps"`
	Camera      *Camera    `json:"camera"`
	Orientation *int16     `json:"orientation"`
	Width       *int32     `json:"width"`
	Height      *int32     `json:"height"`
}

// GPS is where a photo was taken (WGS 84).
type GPS struct {
	Latitude  float64  `json:"latitude"`
	Longitude float64  `json:"longitude"`
	Altitude  *float64 `json:"altitude"`  // metres above sea level
	Direction *float64 `json:"direction"` // degrees clockwise from north
}

// A Camera is what a photo was taken with.
type Camera struct {
	Make     *string `json:"make"`
	Model    *string `json:"model"`
	Lens     *string `json:"lens"`
	Software *string `json:"software"`
}

// wallClock is a time of day that no zone is known for.
const wallClock = "2006-01-02T15:04:05"

func factsOf(f storage.Facts) *Facts {
	f.Pages, f.Title = nil, nil // of a document: fields of the upload itself
	if f == (storage.Facts{}) {
		return nil
	}
	j := &Facts{TakenAt: f.TakenAt, TakenZone: f.TakenZone, Orientation: f.Orientation, Width: f.WidthPx, Height: f.HeightPx}
	if f.TakenLocal != nil {
		local := f.TakenLocal.Format(wallClock)
		j.TakenLocal = &local
	}
	if f.Latitude != nil && f.Longitude != nil {
		j.GPS = &GPS{Latitude: *f.Latitude, Longitude: *f.Longitude, Altitude: f.AltitudeM, Direction: f.DirectionDeg}
	}
	if f.CameraMake != nil || f.CameraModel != nil || f.Lens != nil || f.Software != nil {
		j.Camera = &Camera{Make: f.CameraMake, Model: f.CameraModel, Lens: f.Lens, Software: f.Software}
	}
	return j
}
