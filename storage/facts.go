package storage

import (
	"context"
	"encoding/json"
	"reflect"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"
)

// Facts are read from the metadata of a file. This is the one list of them: a fact is a field here, a column of uploads, and
// a property in server/openapi.yaml. A nil field is unknown.
type Facts struct {
	TakenAt     *time.Time `db:"taken_at" json:"taken_at"`       // nil unless the camera named its zone, or GPS or a film's header the time
	TakenLocal  *LocalTime `db:"taken_local" json:"taken_local"` // the camera's wall clock
	TakenZone   *string    `db:"taken_zone" json:"taken_zone"`   // how TakenAt was derived: offset, xmp, gps or header
	Place       `json:"gps"`
	Camera      `json:"camera"`
	Orientation *int16   `db:"orientation" json:"orientation"` // EXIF 2.32, tag 274: 1 to 8
	WidthPx     *int32   `db:"width_px" json:"width"`          // upright
	HeightPx    *int32   `db:"height_px" json:"height"`
	DurationS   *float64 `db:"duration_s" json:"duration"` // of a film, seconds
}

// A Place is where a photo or a film was taken (WGS 84).
type Place struct {
	Latitude     *float64 `db:"latitude" json:"latitude"` // degrees
	Longitude    *float64 `db:"longitude" json:"longitude"`
	AltitudeM    *float64 `db:"altitude_m" json:"altitude"`     // metres above sea level
	DirectionDeg *float64 `db:"direction_deg" json:"direction"` // degrees clockwise from north
}

// A Camera is what a photo was taken with.
type Camera struct {
	CameraMake  *string `db:"camera_make" json:"make"`
	CameraModel *string `db:"camera_model" json:"model"`
	Lens        *string `db:"lens" json:"lens"`
	Software    *string `db:"software" json:"software"`
}

// A Document has these facts of its own.
type Document struct {
	Pages *int32  `db:"pages" json:"pages"`
	Title *string `db:"title" json:"title"`
}

// Drawn is the outcome of drawing thumbnails.
type Drawn struct {
	Partial     bool    `db:"partial"`      // the thumbnails show a part of the image: the rest is missing or damaged
	Placeholder *string `db:"placeholder"`  // ThumbHash, base64: what a list shows while thumbnails load
	NoThumbnail *string `db:"no_thumbnail"` // why there is none of a type that can have one; nil if there is one
}

// A LocalTime is the time of a clock whose zone is unknown.
type LocalTime struct {
	time.Time // in UTC for want of a zone
}

// localTime is how JSON writes such a time.
const localTime = "2006-01-02T15:04:05"

// ParseLocalTime reads a time such as 2006-01-02T15:04:05.
func ParseLocalTime(s string) (LocalTime, error) {
	t, err := time.Parse(localTime, s)
	return LocalTime{t}, err
}

// MarshalJSON implements [json.Marshaler].
func (t LocalTime) MarshalJSON() ([]byte, error) { return json.Marshal(t.Format(localTime)) }

// UnmarshalJSON implements [json.Unmarshaler].
func (t *LocalTime) UnmarshalJSON(b []byte) error {
	var s string
	err := json.Unmarshal(b, &s)
	if err == nil {
		*t, err = ParseLocalTime(s)
	}
	return err
}

// ScanTimestamp implements [pgtype.TimestampScanner].
func (t *LocalTime) ScanTimestamp(v pgtype.Timestamp) error {
	t.Time = v.Time
	return nil
}

// TimestampValue implements [pgtype.TimestampValuer].
func (t LocalTime) TimestampValue() (pgtype.Timestamp, error) {
	return pgtype.Timestamp{Time: t.Time, Valid: true}, nil
}

// columns returns the columns of structs, by their db tags, and the values of the fields.
func columns(structs ...any) (names []string, values []any) {
	for _, s := range structs {
		v := reflect.ValueOf(s)
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.Anonymous {
				more, those := columns(v.Field(i).Interface())
				names, values = append(names, more...), append(values, those...)
			} else {
				names, values = append(names, f.Tag.Get("db")), append(values, v.Field(i).Interface())
			}
		}
	}
	return names, values
}

// Tags are the tags of a file as they are: an object of groups, each an object of names and values.
// docs/reference/facts.md lists the groups.
type Tags struct {
	Tags      json.RawMessage `db:"tags" json:"tags"`           // nil or empty if there are none
	Truncated bool            `db:"truncated" json:"truncated"` // some were left out
}

// putTags stores the tags of an upload, if it has any.
func (tx Tx) putTags(ctx context.Context, id uuid.UUID, t Tags) error {
	if len(t.Tags) == 0 {
		return nil
	}
	_, err := Exec(ctx, tx, "record tags", `
		insert into tags (tenant_id, upload_id, tags, truncated) values ($1, $2, $3, $4)
		on conflict (tenant_id, upload_id) do update set tags = excluded.tags, truncated = excluded.truncated`,
		tx.Tenant, id, t.Tags, t.Truncated)
	return err
}

// Tags returns the tags of the upload's file: an empty object if it has none or is not completed, or [ErrNotFound].
func (tx Tx) Tags(ctx context.Context, id uuid.UUID) (Tags, error) {
	rows, err := tx.Query(ctx, `
		select coalesce(t.tags, '{}') tags, coalesce(t.truncated, false) truncated
		from uploads u left join tags t on t.tenant_id = u.tenant_id and t.upload_id = u.id
		where u.tenant_id = $1 and u.id = $2`, tx.Tenant, id)
	return CollectOne[Tags]("read tags", rows, err)
}
