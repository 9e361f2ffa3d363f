package server

import (
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
)

func (s *Server) routeUploads(api *echo.Group) {
	api.GET("/uploads", s.listUploads)
	api.GET("/uploads/:id", s.getUpload)
	api.GET("/uploads/:id/timeline", s.getTimeline)
	api.GET("/uploads/:id/tags", s.getTags)
	api.GET("/uploads/:id/receipt", s.getReceipt)
}

// uploadJSON is an upload as GET tells it. Offsets and sizes are bytes, times RFC 3339.
type uploadJSON struct {
	ID          uuid.UUID        `json:"id"`
	Status      storage.Status   `json:"status"`
	Offset      int64            `json:"offset"`
	Size        *int64           `json:"size"` // null while its client has not said
	Filename    *string          `json:"filename"`
	Type        *string          `json:"type"` // what the content is; as declared until that is known
	Project     string           `json:"project"`
	Batch       *string          `json:"batch"` // what its client calls it
	BatchID     *uuid.UUID       `json:"batch_id"`
	ClientID    *string          `json:"client_id"`
	CreatedAt   time.Time        `json:"created_at"`
	UpdatedAt   time.Time        `json:"updated_at"`
	ExpiresAt   *time.Time       `json:"expires_at"` // when it is given up unless more arrives; null once all has
	UploadedAt  *time.Time       `json:"uploaded_at"`
	CompletedAt *time.Time       `json:"completed_at"`
	SHA256      *string          `json:"sha256"`
	ContentURL  *string          `json:"content_url"` // relative to the API's root; null unless it is completed
	DeletedAt   *time.Time       `json:"deleted_at"`
	PurgeAt     *time.Time       `json:"purge_at"` // until when it can be restored
	Failure     *failureJSON     `json:"failure"`
	Derivatives []derivativeJSON `json:"derivatives"`
	EXIF        *exifJSON        `json:"exif"`
	Scan        *scanJSON        `json:"scan"`                 // null until it was scanned
	DistanceM   *float64         `json:"distance_m,omitempty"` // from where near searched; else it is not told
	picturedJSON
}

// picturedJSON is what processing found out beside pictures and EXIF.
type picturedJSON struct {
	TypeMismatch bool    `json:"type_mismatch"` // it is not of the kind that its sender said
	Partial      bool    `json:"partial"`       // its pictures show a part of it
	Placeholder  *string `json:"placeholder"`   // ThumbHash, base64: what to show while pictures load
	NoPicture    *string `json:"no_picture"`    // why there is none of something that can have one
	Pages        *int32  `json:"pages"`
	Title        *string `json:"title"`
}

type failureJSON struct {
	Reason string `json:"reason"`
	Detail string `json:"detail"`
}

func describeFailure(u storage.Upload) *failureJSON {
	if u.FailureReason == nil {
		return nil
	}
	j := &failureJSON{Reason: *u.FailureReason}
	if u.FailureDetail != nil {
		j.Detail = *u.FailureDetail
	}
	return j
}

type derivativeJSON struct {
	Size   int    `json:"size"` // pixels of the box it was drawn for
	Width  int    `json:"width"`
	Height int    `json:"height"`
	Bytes  int64  `json:"bytes"`
	Type   string `json:"type"`
	URL    string `json:"url"` // works for 15 minutes
}

type exifJSON struct {
	TakenAt     *time.Time  `json:"taken_at"`    // null when the camera named no zone
	TakenLocal  *string     `json:"taken_local"` // the camera's wall clock
	TakenZone   *string     `json:"taken_zone"`  // how taken_at was derived: offset, xmp or gps
	GPS         *gpsJSON    `json:"gps"`
	Camera      *cameraJSON `json:"camera"`
	Orientation *int16      `json:"orientation"`
	Width       *int32      `json:"width"`
	Height      *int32      `json:"height"`
}

type gpsJSON struct {
	Latitude  float64  `json:"latitude"`
	Longitude float64  `json:"longitude"`
	Altitude  *float64 `json:"altitude"`  // metres above sea level
	Direction *float64 `json:"direction"` // degrees clockwise from north
}

type cameraJSON struct {
	Make     *string `json:"make"`
	Model    *string `json:"model"`
	Lens     *string `json:"lens"`
	Software *string `json:"software"`
}

// getUpload tells an upload's state. It takes no lease and so never disturbs a running PATCH.
func (s *Server) getUpload(c echo.Context) error {
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return errNotFound
	}
	answer, err := s.readUpload(c.Request().Context(), id)
	if err != nil {
		return err
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.JSON(http.StatusOK, answer)
}

func (s *Server) readUpload(ctx context.Context, id uuid.UUID) (uploadJSON, error) {
	var u storage.Upload
	var ds []storage.Derivative
	err := s.DB.InTenant(ctx, func(tx storage.Tx) (err error) {
		if u, err = tx.Upload(ctx, id); err != nil {
			return err
		}
		ds, err = tx.Derivatives(ctx, id)
		return err
	})
	if err != nil {
		return uploadJSON{}, err
	}
	return s.describe(ctx, u, ds)
}

// Bounds of the limit parameter.
const (
	defaultLimit = 50
	maxLimit     = 500
)

// listUploads tells one page of uploads, newest first. The cursor of the next page is the last one's id.
func (s *Server) listUploads(c echo.Context) error {
	page, err := parsePage(c)
	if err != nil {
		return err
	}
	ctx := c.Request().Context()
	if page.Deleted, err = wantsDeleted(c); err != nil {
		return err
	}
	var us []storage.Upload
	var ds []storage.Derivative
	err = s.DB.InTenant(ctx, func(tx storage.Tx) (err error) {
		if us, err = tx.Uploads(ctx, page); err != nil {
			return err
		}
		ids := make([]uuid.UUID, len(us))
		for i, u := range us {
			ids[i] = u.ID
		}
		ds, err = tx.Derivatives(ctx, ids...)
		return err
	})
	if err != nil {
		return err
	}
	items, err := s.describeAll(ctx, us, ds)
	if err != nil {
		return err
	}
	if page.Near != nil {
		for i, u := range us {
			far := math.Round(page.Near.Distance(*u.Latitude, *u.Longitude)*10) / 10
			items[i].DistanceM = &far
		}
	}
	var next *uuid.UUID
	if len(items) == page.Limit {
		next = &items[len(items)-1].ID
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.JSON(http.StatusOK, map[string]any{"items": items, "next": next})
}

func parsePage(c echo.Context) (storage.Page, error) {
	p := storage.Page{
		Project: c.QueryParam("project"),
		Batch:   c.QueryParam("batch"),
		Status:  storage.Status(c.QueryParam("status")),
	}
	for _, name := range []string{"project", "batch"} {
		if v := c.QueryParam(name); !utf8.ValidString(v) || strings.ContainsRune(v, 0) {
			return p, refuse("%s must be UTF-8 text without NUL characters.", name)
		}
	}
	if p.Status != "" && !p.Status.Known() {
		return p, refuse("status must be one of an upload's: pending, uploading, uploaded, processing, completed, failed, expired, cancelled or joined.")
	}
	var err error
	if p.Near, err = parseNear(c.QueryParam("near")); err != nil {
		return p, err
	}
	if p.Taken, err = parseTaken(c.QueryParam("taken")); err != nil {
		return p, err
	}
	if p.Limit, err = parseLimit(c); err != nil {
		return p, err
	}
	if s := c.QueryParam("cursor"); s != "" {
		id, err := uuid.Parse(s)
		if err != nil {
			return p, errBadCursor
		}
		p.Before = id
	}
	return p, nil
}

var errBadCursor = refuse("cursor must be what the page before told as next.")

func parseLimit(c echo.Context) (int, error) {
	s := c.QueryParam("limit")
	if s == "" {
		return defaultLimit, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > maxLimit {
		return 0, refuse("limit must be a number from 1 to %d.", maxLimit)
	}
	return n, nil
}

func (s *Server) describeAll(ctx context.Context, us []storage.Upload, ds []storage.Derivative) ([]uploadJSON, error) {
	byUpload := make(map[uuid.UUID][]storage.Derivative, len(us))
	for _, d := range ds {
		byUpload[d.UploadID] = append(byUpload[d.UploadID], d)
	}
	items := make([]uploadJSON, len(us))
	for i, u := range us {
		var err error
		if items[i], err = s.describe(ctx, u, byUpload[u.ID]); err != nil {
			return nil, err
		}
	}
	return items, nil
}

func (s *Server) describe(ctx context.Context, u storage.Upload, ds []storage.Derivative) (uploadJSON, error) {
	j := uploadJSON{
		ID: u.ID, Status: u.Status, Offset: u.Received, Filename: u.Filename, Type: u.DetectedType,
		Project: u.Project, Batch: u.Batch, BatchID: u.BatchID, ClientID: u.ClientID, CreatedAt: u.CreatedAt, UpdatedAt: u.UpdatedAt,
		UploadedAt: u.UploadedAt, CompletedAt: u.CompletedAt, Derivatives: []derivativeJSON{}, EXIF: describeFacts(u.Facts),
		DeletedAt: u.DeletedAt, PurgeAt: u.PurgeAt, Scan: describeScan(u.Scanned),
		picturedJSON: picturedJSON{
			TypeMismatch: u.TypeMismatch, Partial: u.Partial, NoPicture: u.NoPicture, Pages: u.Pages, Title: u.Title,
		},
	}
	if at, ok := s.Store.Expires(u); ok {
		j.ExpiresAt = &at
	}
	if !u.SizeDeferred {
		j.Size = &u.Size
	}
	if j.Type == nil {
		j.Type = u.DeclaredType
	}
	if u.SHA256 != nil {
		sum := hex.EncodeToString(u.SHA256)
		j.SHA256 = &sum
	}
	j.Failure = describeFailure(u)
	if u.Status != storage.Completed || u.DeletedAt != nil {
		return j, nil // nothing is linked before it is scanned and clean, and what is deleted is not there
	}
	who, err := tenant.From(ctx)
	if err != nil {
		return uploadJSON{}, err
	}
	keys := object.Keys{Tenant: who.Tenant, Project: u.Project, Upload: u.ID}
	content := contentPath(u.ID)
	j.ContentURL, j.Placeholder = &content, u.Placeholder // which is a picture, too
	for _, d := range ds {
		url, err := s.Bucket.Link(ctx, keys, d.ObjectKey)
		if errors.Is(err, object.ErrForeignKey) {
			// Nothing is linked, and the others of the list, or of the stream, are told all the same.
			s.Log.ErrorContext(ctx, "a row names an object that is not its own", slog.String("upload_id", u.ID.String()), slog.Any("err", err))
			continue
		}
		if err != nil {
			return uploadJSON{}, err
		}
		j.Derivatives = append(j.Derivatives, derivativeJSON{
			Size: d.Size, Width: d.WidthPx, Height: d.HeightPx, Bytes: d.Bytes, Type: d.ContentType, URL: url,
		})
	}
	return j, nil
}

// wallClock is a time of day that no zone is known for.
const wallClock = "2006-01-02T15:04:05"

func describeFacts(f storage.Facts) *exifJSON {
	f.Pages, f.Title = nil, nil // which are no photo's
	if f == (storage.Facts{}) {
		return nil
	}
	j := &exifJSON{
		TakenAt: f.TakenAt, TakenZone: f.TakenZone, Orientation: f.Orientation, Width: f.WidthPx, Height: f.HeightPx,
	}
	if f.TakenLocal != nil {
		local := f.TakenLocal.Format(wallClock)
		j.TakenLocal = &local
	}
	if f.Latitude != nil && f.Longitude != nil {
		j.GPS = &gpsJSON{Latitude: *f.Latitude, Longitude: *f.Longitude, Altitude: f.AltitudeM, Direction: f.DirectionDeg}
	}
	if f.CameraMake != nil || f.CameraModel != nil || f.Lens != nil || f.Software != nil {
		j.Camera = &cameraJSON{Make: f.CameraMake, Model: f.CameraModel, Lens: f.Lens, Software: f.Software}
	}
	return j
}
