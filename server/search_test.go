package server_test

import (
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

// A photo is what a search tells of one.
type photo struct {
	ID          uuid.UUID
	Status      string
	Partial     bool
	Placeholder *string
	NoThumbnail *string `json:"no_thumbnail"`
	Mismatch    bool    `json:"type_mismatch"`
	Pages       *int
	Title       *string
	Facts       *struct{}
	DistanceM   *float64 `json:"distance_m"`
}

type photos struct {
	Items []photo
	Next  *uuid.UUID
}

// search asks for the first page; query is a pair each of a name and a value.
func (u user) search(query ...string) photos {
	u.t.Helper()
	return readAs[photos](u.t, u.do("GET", u.uploads+"?"+asQuery(query...), nil), 200)
}

func asQuery(pairs ...string) string {
	q := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		q.Set(pairs[i], pairs[i+1])
	}
	return q.Encode()
}

// take makes a completed upload in the project that was taken there and then; at is the camera's clock, in a zone five hours
// behind UTC.
func (s *site) take(t *testing.T, u user, project string, lat, lon float64, at string) uuid.UUID {
	t.Helper()
	id := idOf(u.create(10, "Upload-Metadata", metadata("project", project)))
	s.exec(t, `update uploads set status = 'completed', completed_at = now(), latitude = $2, longitude = $3,
		taken_local = $4::text::timestamp, taken_at = $4::text::timestamp at time zone interval '-5 hours' where id = $1`, id, lat, lon, at)
	return id
}

func (p photos) ids() (ids []uuid.UUID) {
	for _, i := range p.Items {
		ids = append(ids, i.ID)
	}
	return ids
}

// A search by place and time finds the photos taken there and then that the user may see, over all pages, newest first, each
// with its distance.
func TestSearch(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u := s.user
	here := s.take(t, u, "torre", -12.0464, -77.0428, "2026-11-20 08:00:00")
	block := s.take(t, u, "torre", -12.0474, -77.0428, "2026-11-20 23:59:59.5")
	town := s.take(t, u, "puente", -12.1, -77.0428, "2026-11-21 10:00:00")
	local := s.take(t, u, "torre", 4.711, -74.0721, "2026-11-21 09:00:00")
	s.exec(t, `update uploads set taken_at = null where id = $1`, local)
	u.create(10) // a file without facts
	failed := s.take(t, u, "torre", -12.0464, -77.0428, "2026-11-20 09:00:00")
	s.exec(t, `update uploads set status = 'failed', failure_reason = 'unreadable' where id = $1`, failed)
	stranger := s.newTenant(t)
	s.take(t, stranger, "torre", -12.0464, -77.0428, "2026-11-20 08:00:00")
	as := func(change func(*tenant.Identity)) user { return s.like(t, u, change) }
	investor := as(func(id *tenant.Identity) { id.Role = tenant.Inversionista })
	ofBridge := as(func(id *tenant.Identity) { id.Projects = []string{"puente"} })
	gone := s.take(t, u, "torre", -12.0464, -77.0428, "2026-11-20 08:00:00")
	u.do("DELETE", u.uploads+"/"+gone.String(), nil).want(t, 204, "")

	const near, far = "-12.0464,-77.0428,500", "-12.0464, -77.0428, 10000.5"
	for _, c := range []struct {
		who   user
		query []string
		want  []uuid.UUID
	}{
		{u, []string{"near", near}, []uuid.UUID{failed, block, here}},
		{u, []string{"near", far}, []uuid.UUID{failed, town, block, here}},
		{u, []string{"near", far, "project", "puente"}, []uuid.UUID{town}},
		{u, []string{"near", near, "status", "failed"}, []uuid.UUID{failed}},
		{investor, []string{"near", near}, []uuid.UUID{block, here}},
		{ofBridge, []string{"near", far}, []uuid.UUID{town}},
		{ofBridge, []string{"near", near}, nil},
		{u.as(s, "marta", tenant.Constructora), []string{"near", near, "deleted", "true"}, []uuid.UUID{gone}},
		{u, []string{"taken", "2026-11-20..2026-11-20"}, []uuid.UUID{failed, block, here}}, // the day by the camera's clock
		{u, []string{"taken", "2026-11-21..2026-11-21"}, []uuid.UUID{local, town}},
		{u, []string{"taken", "2026-11-21.."}, []uuid.UUID{local, town}},
		{u, []string{"taken", "..2026-11-20T08:00"}, []uuid.UUID{here}},
		{u, []string{"taken", "2026-11-20T08:00:00..2026-11-20T09:00:00"}, []uuid.UUID{failed, here}},
		{u, []string{"taken", "2026-11-20T23:59:59..2026-11-20T23:59:59"}, []uuid.UUID{block}}, // to the end of the second
		{u, []string{"taken", "2026-11-20T23:59:59.6.."}, []uuid.UUID{local, town}},
		{u, []string{"taken", "2026-11-20T13:00:00Z..2026-11-20T13:00:00Z"}, []uuid.UUID{here}},
		{u, []string{"taken", "2026-11-20T14:00:00+01:00..2026-11-20T08:00:00-05:00"}, []uuid.UUID{here}},
		{u, []string{"taken", "2026-11-20T14:00:00.000001Z.."}, []uuid.UUID{town, block}}, // a local time matches no instant
		{u, []string{"taken", "..0001-01-01"}, nil},
		{u, []string{"near", far, "taken", "2026-11-21..2026-11-21"}, []uuid.UUID{town}},
	} {
		stack.Want(t, c.who.search(c.query...).ids(), c.want, "%s, %q", c.who.who.Role, c.query)
	}

	first := u.search("near", far, "limit", "3")
	if first.Next == nil {
		t.Fatal("there is no next page")
	}
	second := u.search("near", far, "limit", "3", "cursor", first.Next.String())
	stack.Want(t, append(first.ids(), second.ids()...), []uuid.UUID{failed, town, block, here}, "pages")
	for i, want := range []float64{0, 5960.1, 111.2} {
		if got := first.Items[i].DistanceM; got == nil || *got != want {
			t.Errorf("item %d: %+v, want %v m", i, first.Items[i], want)
		}
	}
	for _, item := range u.search().Items {
		if item.DistanceM != nil {
			t.Errorf("%s is %v m away from nowhere", item.ID, *item.DistanceM)
		}
	}
}

// Invalid parameters are refused; the detail names the parameter and a valid form.
func TestSearchRefused(t *testing.T) {
	t.Parallel()
	u := newSite(t).user
	for query, says := range map[string]string{
		"near=1,2":                               "latitude,longitude,radius",
		"near=1,2,3,4":                           "latitude,longitude,radius",
		"near=1,2,":                              "latitude,longitude,radius",
		"near=NaN,2,3":                           "latitude,longitude,radius",
		"near=0x1,2,3":                           "latitude,longitude,radius",
		"near=1e1,2,3":                           "latitude,longitude,radius",
		"near=1,2,Inf":                           "latitude,longitude,radius",
		"near=90.0000001,2,3":                    "a latitude from -90 to 90",
		"near=-70.6693,-190,200":                 "a longitude from -180 to 180 degrees in second place",
		"near=1,2,0":                             "from 1 to 100000 metres",
		"near=1,2,-5":                            "from 1 to 100000 metres",
		"near=1,2,100001":                        "from 1 to 100000 metres",
		"taken=2026-11-20":                       "taken must be from..to",
		"taken=..":                               "taken must be from..to",
		"taken=yesterday..":                      "taken must be from..to",
		"taken=2026-11-31..":                     "taken must be from..to",
		"taken=2026-11-20T24:00..":               "taken must be from..to",
		"taken=2026-11-20T8:00..":                "taken must be from..to",
		"taken=20261120..":                       "taken must be from..to",
		"taken=..0000-12-31":                     "taken must be from..to",
		"taken=2026-11-20..a..b":                 "taken must be from..to",
		"taken=2026-11-21..2026-11-20":           "the earlier time first",
		"taken=2026-11-20T08:00:00Z..2026-11-21": "zone at both ends or at neither",
		"taken=2026-11-20T08:00:00+05:00..":      "+ is written %2B",
		"taken=2026-11-20T08:00:01Z..2026-11-20T10:00:00%2B02:00":  "the earlier time first",
		"near=1,2,3&taken=2026-11-20T08:00:00Z..2026-11-20T08:00Z": "taken must be from..to",
	} {
		a := u.do("GET", u.uploads+"?"+query, nil)
		if a.status != 400 {
			t.Errorf("%s: %d %s", query, a.status, a.body)
			continue
		}
		a.want(t, 400, "bad-request")
		name, _, _ := strings.Cut(query[strings.LastIndexByte(query, '&')+1:], "=")
		p := readAs[struct{ Detail string }](t, a, 400)
		if !strings.Contains(p.Detail, says) || !strings.HasPrefix(p.Detail, name+" ") {
			t.Errorf("%s: %s", query, p.Detail)
		}
	}
}

// An upload has the results of processing. The placeholder appears only where thumbnails do.
func TestUploadResults(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u := s.user
	id := s.take(t, u, "torre", 1, 2, "2026-11-20 08:00:00")
	s.exec(t, `update uploads set partial = true, type_mismatch = true, placeholder = '1QcSHQRnh493V4dIh4eXh1h4kJUI', no_thumbnail = 'protected',
		pages = 12, title = 'Acta' where id = $1`, id)
	document := idOf(u.create(10))
	s.exec(t, `update uploads set status = 'completed', completed_at = now(), pages = 3 where id = $1`, document)
	read := func() photo { return readAs[photo](t, u.do("GET", u.uploads+"/"+id.String(), nil), 200) }
	p := read()
	if !p.Partial || !p.Mismatch || p.Placeholder == nil || *p.Placeholder != "1QcSHQRnh493V4dIh4eXh1h4kJUI" || p.NoThumbnail == nil || *p.NoThumbnail != "protected" ||
		p.Pages == nil || *p.Pages != 12 || p.Title == nil || *p.Title != "Acta" || p.Facts == nil {
		t.Errorf("%+v", p)
	}
	listed := u.search().Items
	if len(listed) != 2 || listed[1].Placeholder == nil || !listed[1].Partial {
		t.Errorf("listed: %+v", listed)
	}
	if d := listed[0]; d.Pages == nil || *d.Pages != 3 || d.Facts != nil || d.Partial || d.Mismatch || d.Placeholder != nil || d.NoThumbnail != nil || d.Title != nil {
		t.Errorf("the document: %+v", d)
	}
	s.exec(t, `update uploads set status = 'failed', failure_reason = 'infected' where id = $1`, id)
	if p := read(); p.Placeholder != nil || p.Status != "failed" {
		t.Errorf("failed: %+v", p)
	}
	s.exec(t, `update uploads set status = 'completed', failure_reason = null where id = $1`, id)
	u.do("DELETE", u.uploads+"/"+id.String(), nil).want(t, 204, "")
	if gone := u.as(s, "marta", tenant.Constructora).search("deleted", "true").Items; len(gone) != 1 || gone[0].Placeholder != nil {
		t.Errorf("deleted: %+v", gone)
	}
}

// Any search is answered, or refused with the name of its parameter, and never finds an upload of another tenant.
func FuzzSearch(f *testing.F) {
	a := newTarget(f)
	id := idOf(a.theirs)
	a.exec(f, `update uploads set kind = 'single', status = 'completed', completed_at = now(), latitude = 0, longitude = 0, taken_local = '2026-11-20',
		taken_at = '2026-11-20Z' where id = $1`, id)
	a.before = string(a.other.do("GET", a.url+a.theirs, nil).body)
	a.exec(f, `update uploads set latitude = 1e-7, longitude = 180, taken_local = '2026-11-20' where id = $1`, idOf(a.mine))
	for _, near := range []string{"0,0,100000", "90,180,1", "-90,-180,100000", "0.00000000000000000001,-0,1", " 1 , 2 , 3 ", "1,2", "NaN,0,1", "1e308,0,1", "٥,0,1", "0,0,0x1p4", ",,", "\x00"} {
		for _, taken := range []string{"", "..", "2026-11-20..", "..9999-12-31", "0001-01-01T00:00:00.0000001..", "2026-11-20T08:00:00+14:00..", "2026-11-20T08:00:60Z..", "-1..1", "\xff.."} {
			f.Add(near, taken)
		}
	}
	f.Fuzz(func(t *testing.T, near, taken string) {
		w := a.serve(t, a.user, "GET", "/api/uploads?"+asQuery("near", near, "taken", taken), "")
		body := w.Body.String()
		switch w.Code {
		case 200:
			if !sound(near) || taken != "" && (strings.Count(taken, "..") == 0 || len(taken) < len("..2026-11-20")) {
				t.Errorf("near=%q, taken=%q was taken", near, taken)
			}
		case 400:
			if !strings.Contains(body, `"detail":"near `) && !strings.Contains(body, `"detail":"taken `) {
				t.Errorf("near=%q, taken=%q: %s", near, taken, body)
			}
		default:
			t.Errorf("near=%q, taken=%q: %d %s", near, taken, w.Code, body)
		}
		if strings.Contains(body, id.String()) {
			t.Errorf("near=%q, taken=%q found another tenant's: %s", near, taken, body)
		}
		a.spare(t)
	})
}

// sound reports whether near is nothing, or three numbers that there may be.
func sound(near string) bool {
	parts := strings.Split(near, ",")
	bounds := [][2]float64{{-90, 90}, {-180, 180}, {1, 100_000}}
	if len(parts) != len(bounds) {
		return near == ""
	}
	for i, part := range parts {
		n, err := strconv.ParseFloat(strings.TrimSpace(part), 64)
		if err != nil || !(n >= bounds[i][0] && n <= bounds[i][1]) {
			return false
		}
	}
	return true
}
