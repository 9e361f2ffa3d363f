package api

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/storage"
)

// maxRadius is the largest radius of a search by place, in metres.
const maxRadius = 100_000

// decimal is a plain decimal number; strconv also accepts NaN, infinities and hexadecimal.
var decimal = regexp.MustCompile(`^[+-]?[0-9]{1,6}(\.[0-9]{1,20})?$`)

// parseNear reads "latitude,longitude,radius"; it returns nil for "".
func parseNear(s string) (*storage.Circle, error) {
	if s == "" {
		return nil, nil
	}
	var numbers []float64
	for _, part := range strings.Split(s, ",") {
		part = strings.TrimSpace(part)
		n, err := strconv.ParseFloat(part, 64)
		if err != nil || !decimal.MatchString(part) {
			return nil, errBadNear
		}
		numbers = append(numbers, n)
	}
	if len(numbers) != 3 {
		return nil, errBadNear
	}
	c := storage.Circle{Latitude: numbers[0], Longitude: numbers[1], Radius: numbers[2]}
	switch {
	case math.Abs(c.Latitude) > 90:
		return nil, problem.BadRequest("near must have a latitude from -90 to 90 degrees in first place, before the longitude.")
	case math.Abs(c.Longitude) > 180:
		return nil, problem.BadRequest("near must have a longitude from -180 to 180 degrees in second place.")
	case c.Radius < 1 || c.Radius > maxRadius:
		return nil, problem.BadRequest("near must have a radius from 1 to %d metres in third place.", maxRadius)
	}
	return &c, nil
}

var errBadNear = problem.BadRequest("near must be latitude,longitude,radius in degrees and metres, such as -33.4489,-70.6693,200.")

// parseTaken reads "from..to", where either may be missing; it returns nil for "".
func parseTaken(s string) (*storage.Span, error) {
	if s == "" {
		return nil, nil
	}
	from, to, found := strings.Cut(s, "..")
	if !found || from == "" && to == "" {
		return nil, errBadTaken
	}
	begin, err := parseMoment(from)
	if err != nil {
		return nil, err
	}
	end, err := parseMoment(to)
	switch {
	case err != nil:
		return nil, err
	case from == "":
		return &storage.Span{Local: end.local, Before: end.after}, nil
	case to == "":
		return &storage.Span{Local: begin.local, From: begin.at}, nil
	case begin.local != end.local:
		return nil, problem.BadRequest("taken must have a zone at both ends or at neither. Times without a zone are the local time of the camera.")
	case !begin.at.Before(end.after):
		return nil, problem.BadRequest("taken must be from..to, the earlier time first.")
	}
	return &storage.Span{Local: begin.local, From: begin.at, Before: end.after}, nil
}

var errBadTaken = problem.BadRequest("taken must be from..to, where either may be missing: days such as 2026-11-20..2026-11-21, local times of the " +
	"camera such as 2026-11-20T08:00..2026-11-20T17:30, or instants such as 2026-11-20T08:00:00Z.., where + is written %%2B.")

// A moment is one end of a span, with the precision that it was given in: a day, a minute, a second or less.
type moment struct {
	at, after time.Time
	local     bool // by the camera's clock, as if in UTC
}

// precisions are RFC 3339 and its prefixes, each with the rest of RFC 3339 that it lacks.
var precisions = []struct {
	missing string
	lasts   time.Duration
	local   bool
}{
	{"", time.Second, false}, {"Z", time.Second, true}, {":00Z", time.Minute, true}, {"T00:00:00Z", 24 * time.Hour, true},
}

// rfc3339 follows section 5.6; time.Parse also accepts an hour of one digit, and a comma.
var rfc3339 = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$`)

func parseMoment(s string) (m moment, err error) {
	if s == "" {
		return m, nil
	}
	for _, p := range precisions {
		if m.at, err = time.Parse(time.RFC3339, s+p.missing); err != nil || !rfc3339.MatchString(s+p.missing) {
			continue
		}
		if strings.Contains(s, ".") {
			p.lasts = time.Microsecond // the resolution of Postgres
		}
		if m.at = m.at.UTC().Truncate(time.Microsecond); m.at.Year() < 1 {
			break // the zero time means no end of a span
		}
		m.after, m.local = m.at.Add(p.lasts), p.local
		return m, nil
	}
	return moment{}, errBadTaken
}
