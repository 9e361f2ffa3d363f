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

// maxRadius bounds a search by place, in metres.
const maxRadius = 100_000

// decimal is a number as a person writes it. strconv takes NaN, infinities and hexadecimal too.
var decimal = regexp.MustCompile(`^[+-]?[0-9]{1,6}(\.[0-9]{1,20})?$`)

// parseNear reads "latitude,longitude,radius"; "" is no circle.
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
		return nil, problem.BadRequest("near begins with a latitude, from -90 to 90 degrees; then comes the longitude.")
	case math.Abs(c.Longitude) > 180:
		return nil, problem.BadRequest("near has a longitude in second place, from -180 to 180 degrees.")
	case c.Radius < 1 || c.Radius > maxRadius:
		return nil, problem.BadRequest("near ends with a radius, from 1 to %d metres.", maxRadius)
	}
	return &c, nil
}

var errBadNear = problem.BadRequest("near must be latitude,longitude,radius in degrees and metres, such as -33.4489,-70.6693,200.")

// parseTaken reads "from..to", of which either may be missing; "" is no span.
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
		return nil, problem.BadRequest("taken must have a zone at both ends, or at neither: without one it is the camera's clock.")
	case !begin.at.Before(end.after):
		return nil, problem.BadRequest("taken ends before it begins: it is from..to, the earlier first.")
	}
	return &storage.Span{Local: begin.local, From: begin.at, Before: end.after}, nil
}

var errBadTaken = problem.BadRequest("taken must be from..to, where either may be missing: days such as 2026-11-20..2026-11-21, times by the camera's " +
	"clock such as 2026-11-20T08:00..2026-11-20T17:30, or instants such as 2026-11-20T08:00:00Z.., in which + is written %%2B.")

// A moment is an end of a span: a day, a minute, or what else it was told to.
type moment struct {
	at, after time.Time
	local     bool // by the camera's clock, and in UTC for want of a zone
}

// forms are what there may be: RFC 3339, and less of it, with what is then missing.
var forms = []struct {
	missing string
	lasts   time.Duration
	local   bool
}{
	{"", time.Second, false}, {"Z", time.Second, true}, {":00Z", time.Minute, true}, {"T00:00:00Z", 24 * time.Hour, true},
}

// rfc3339 is as section 5.6 has it; time.Parse takes an hour of one digit, and a comma, too.
var rfc3339 = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$`)

func parseMoment(s string) (m moment, err error) {
	if s == "" {
		return m, nil
	}
	for _, form := range forms {
		if m.at, err = time.Parse(time.RFC3339, s+form.missing); err != nil || !rfc3339.MatchString(s+form.missing) {
			continue
		}
		if strings.Contains(s, ".") {
			form.lasts = time.Microsecond // the least that Postgres tells apart
		}
		if m.at = m.at.UTC().Truncate(time.Microsecond); m.at.Year() < 1 {
			break // a span's zero time is none
		}
		m.after, m.local = m.at.Add(form.lasts), form.local
		return m, nil
	}
	return moment{}, errBadTaken
}
