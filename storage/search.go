package storage

import (
	"math"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// A Page selects uploads that are older than Before, newest first; the zero id starts at the newest. Empty filters match
// all.
type Page struct {
	Before  uuid.UUID
	Limit   int
	Project string
	Batch   string // its id, or its client's name for it
	Status  Status
	Near    *Circle // where they were taken
	Taken   *Span   // when they were taken
	Deleted bool    // select only deleted uploads that can be restored, instead of none
}

// A Span is a span of time. Without From it has no beginning, without Before no end.
type Span struct {
	Local  bool      // of the camera's local time, given in UTC; otherwise of instants
	From   time.Time // inclusive
	Before time.Time // exclusive
}

// A Circle is a circle on the Earth, taken as a sphere: distances are accurate to half a percent.
type Circle struct {
	Latitude  float64 // degrees, from -90 to 90
	Longitude float64 // degrees, from -180 to 180
	Radius    float64 // metres, more than 0
}

// earthRadius is the ellipsoid's mean radius in metres (IUGG; H. Moritz, Geodetic Reference System 1980, R₁).
const earthRadius = 6_371_008.8

// Distance returns the distance of a place from the center of c along the surface, in metres.
func (c Circle) Distance(latitude, longitude float64) float64 {
	up, across := math.Sin(radians(latitude-c.Latitude)/2), math.Sin(radians(longitude-c.Longitude)/2)
	h := up*up + math.Cos(radians(c.Latitude))*math.Cos(radians(latitude))*across*across
	return 2 * earthRadius * math.Asin(math.Sqrt(min(1, h)))
}

// distance is the same in SQL. For two antipodes rounding may make h greater than 1, which asin refuses.
var distance = `2 * ` + strconv.FormatFloat(earthRadius, 'f', -1, 64) + ` * asin(sqrt(least(1,
	power(sin(radians(u.latitude - @latitude) / 2), 2)
	+ cos(radians(@latitude)) * cos(radians(u.latitude)) * power(sin(radians(u.longitude - @longitude) / 2), 2))))`

// A box contains a circle, in degrees. If west is greater than east, it crosses the antimeridian.
type box struct{ south, north, west, east float64 }

// slack is added to each side of a box against rounding: degrees, a tenth of a millimetre.
const slack = 1e-9

// box returns the smallest box around c. A box that contains a pole has all longitudes.
func (c Circle) box() box {
	angle := c.Radius / earthRadius
	b := box{
		south: c.Latitude - degrees(angle) - slack, north: c.Latitude + degrees(angle) + slack,
		west: -180, east: 180,
	}
	if b.south <= -90 || b.north >= 90 {
		return b
	}
	// The meridians that touch the circle do so nearer to the pole than its center: J. P. Matuschek, Finding Points Within a Distance
	// of a Latitude/Longitude Using Bounding Coordinates.
	across := degrees(math.Asin(math.Sin(angle)/math.Cos(radians(c.Latitude)))) + slack
	b.west, b.east = c.Longitude-across, c.Longitude+across
	if b.west < -180 {
		b.west += 360
	}
	if b.east > 180 {
		b.east -= 360
	}
	return b
}

func radians(degrees float64) float64 { return degrees * math.Pi / 180 }

func degrees(radians float64) float64 { return radians * 180 / math.Pi }

// where returns the page's conditions on uploads u.
func (p Page) where() (sql string, args pgx.NamedArgs) {
	sql = `u.tenant_id = @tenant and u.id < @before and u.kind <> 'partial'
		and (u.deleted_at is not null) = @deleted and (u.purge_at is null or u.purge_at > now())`
	args = pgx.NamedArgs{"before": p.Before, "deleted": p.Deleted, "limit": p.Limit}
	if p.Before == uuid.Nil {
		args["before"] = uuid.Max
	}
	if p.Project != "" {
		sql, args["project"] = sql+` and u.project = @project`, p.Project
	}
	if p.Batch != "" {
		sql += ` and (u.batch = @batch or u.batch_id = @batch_id)`
		args["batch"], args["batch_id"] = p.Batch, OrNull(BatchID(p.Batch))
	}
	if p.Status != "" {
		sql, args["status"] = sql+` and u.status = @status`, string(p.Status)
	}
	if p.Near != nil {
		sql += p.Near.where(args)
	}
	if p.Taken != nil {
		sql += p.Taken.where(args)
	}
	return sql, args
}

// where returns a condition that an index answers, and the exact one behind it.
func (c Circle) where(args pgx.NamedArgs) string {
	b := c.box()
	args["latitude"], args["longitude"], args["radius"] = c.Latitude, c.Longitude, c.Radius
	args["south"], args["north"], args["west"], args["east"] = b.south, b.north, b.west, b.east
	between := ` and u.longitude >= @west and u.longitude <= @east`
	if b.west > b.east {
		between = ` and (u.longitude >= @west or u.longitude <= @east)`
	}
	return ` and u.latitude >= @south and u.latitude <= @north` + between + ` and ` + distance + ` <= @radius`
}

func (s Span) where(args pgx.NamedArgs) (sql string) {
	column := `u.taken_at`
	if s.Local {
		column = `u.taken_local`
	}
	sql = ` and ` + column + ` is not null`
	if !s.From.IsZero() {
		sql, args["from"] = sql+` and `+column+` >= @from`, s.From
	}
	if !s.Before.IsZero() {
		sql, args["until"] = sql+` and `+column+` < @until`, s.Before
	}
	return sql
}
