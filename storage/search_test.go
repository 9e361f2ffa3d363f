package storage_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/storagetest"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

// A place is where and when an upload was taken.
type place struct {
	id       uuid.UUID
	lat, lon float64
	at       time.Time // the camera's wall clock; its zone is three hours behind UTC
}

// addPlaces makes completed uploads that were taken there, the first the oldest.
func (d *database) addPlaces(t *testing.T, tenant uuid.UUID, places []place) {
	t.Helper()
	var ids []uuid.UUID
	var lats, lons []float64
	var ats []time.Time
	for i := range places {
		places[i].id = uuid.Must(uuid.NewV7())
		ids, lats, lons, ats = append(ids, places[i].id), append(lats, places[i].lat), append(lons, places[i].lon), append(ats, places[i].at)
	}
	admin := d.Admin(t)
	_, err := admin.Exec(t.Context(), `
		with made as (
			insert into uploads (tenant_id, id, user_id, project, metadata, size, charged_bytes, status, completed_at, latitude, longitude,
				taken_local, taken_at)
			select $1, n.id, 'ana', 'torre', '{}', 1, 0, 'completed', now(), n.lat, n.lon, n.at, (n.at at time zone 'utc') + interval '3 hours'
			from unnest($2::uuid[], $3::float8[], $4::float8[], $5::timestamp[]) n (id, lat, lon, at)
			returning tenant_id, id
		) insert into contents (tenant_id, upload_id, received) select tenant_id, id, 1 from made`, tenant, ids, lats, lons, ats)
	stack.Must(t, err)
	_, err = admin.Exec(t.Context(), `analyze uploads, contents`)
	stack.Must(t, err)
}

// found reads all pages and returns their ids.
func (d *database) found(t *testing.T, ctx context.Context, p storage.Page) (ids []uuid.UUID) {
	t.Helper()
	for {
		var us []storage.Upload
		d.Must(t, ctx, func(tx storage.Tx) (err error) {
			us, err = tx.Uploads(ctx, p)
			return err
		})
		for _, u := range us {
			ids = append(ids, u.ID)
		}
		if len(us) < p.Limit {
			return ids
		}
		p.Before = us[len(us)-1].ID
	}
}

// Whatever the circle, around a pole, across the antimeridian or anywhere: the pages of its search have the uploads that
// lie in it, each once, the newest first, and no other.
func TestCircles(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1<<20)
	r := stack.Random(t)
	places := make([]place, 3000)
	for i := range places {
		places[i].lat, places[i].lon = somewhere(r)
	}
	d.addPlaces(t, storagetest.TenantOf(t, ctx), places)
	polar, across, inside := 0, 0, 0
	for range 400 {
		var c storage.Circle
		if c.Latitude, c.Longitude = somewhere(r); r.IntN(3) == 0 {
			at := places[r.IntN(len(places))]
			c.Latitude, c.Longitude = at.lat, at.lon
		}
		c.Radius = math.Pow(10, r.Float64()*7.3) // from a metre to 20,000 km, which is the whole Earth
		var in, unsure []uuid.UUID
		for _, p := range slices.Backward(places) {
			far := arc(c.Latitude, c.Longitude, p.lat, p.lon)
			switch {
			case math.Abs(far-c.Radius) < 1e-3+far*1e-7: // on the other side of the Earth an asin has half of the digits
				unsure = append(unsure, p.id)
			case far < c.Radius:
				in = append(in, p.id)
				if math.Abs(p.lon-c.Longitude) > 180 && c.Radius < 1e6 {
					across++
				}
				if math.Abs(p.lat) == 90 || math.Abs(p.lon-c.Longitude) > 90 && math.Abs(p.lon-c.Longitude) < 180 && c.Radius < 1e6 {
					polar++
				}
			}
			if got := c.Distance(p.lat, p.lon); math.Abs(got-far) > 1e-3+far*1e-7 {
				t.Fatalf("from %+v to %v %v there are %v m, not %v", c, p.lat, p.lon, far, got)
			}
		}
		got := slices.DeleteFunc(d.found(t, ctx, storage.Page{Near: &c, Limit: 1 + r.IntN(2000)}), func(id uuid.UUID) bool {
			return slices.Contains(unsure, id)
		})
		if !slices.Equal(got, in) {
			t.Errorf("%+v: found %d, %d lie in it", c, len(got), len(in))
		}
		inside += len(in)
	}
	if polar < 100 || across < 100 || inside < 1000 {
		t.Errorf("only %d uploads over a pole, %d across the antimeridian, %d in all: this tried nothing", polar, across, inside)
	}
}

// A place on the other side of the Earth is at the largest distance, however its angle is rounded.
func TestOppositeSides(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1<<20)
	r := stack.Random(t)
	places := make([]place, 100)
	for i := range places {
		places[i].lat, places[i].lon = somewhere(r)
	}
	d.addPlaces(t, storagetest.TenantOf(t, ctx), places)
	for _, p := range places {
		c := storage.Circle{Latitude: -p.lat, Longitude: p.lon - math.Copysign(180, p.lon), Radius: math.Pi*6371008.8 + 1}
		if got := c.Distance(p.lat, p.lon); !(got > c.Radius-2 && got < c.Radius) {
			t.Errorf("from %+v it is %v m", c, got)
		}
		if got := d.found(t, ctx, storage.Page{Near: &c, Limit: 1000}); len(got) != len(places) {
			t.Errorf("from %+v %d places are found, of %d", c, len(got), len(places))
		}
	}
}

// somewhere returns a place, half of the time where longitudes end or meridians meet, in steps down to a metre from there.
func somewhere(r *rand.Rand) (lat, lon float64) {
	lat, lon = math.Asin(2*r.Float64()-1)*180/math.Pi, 360*r.Float64()-180
	off := (r.Float64() - 0.5) * math.Pow(10, -5*r.Float64())
	switch r.IntN(8) {
	case 0:
		lat = 90 - math.Abs(off)
	case 1:
		lat = -90 + math.Abs(off)
	case 2:
		lon = math.Copysign(180-math.Abs(off), off)
	case 3:
		lat, lon = []float64{-90, 0, 90}[r.IntN(3)], []float64{-180, -90, 0, 180}[r.IntN(4)]
	}
	return math.Round(lat*1e7) / 1e7, math.Round(lon*1e7) / 1e7
}

// arc is the distance of two places in metres, by the angle between their vectors.
func arc(lat1, lon1, lat2, lon2 float64) float64 {
	vector := func(lat, lon float64) (v [3]float64) {
		lat, lon = lat*math.Pi/180, lon*math.Pi/180
		return [3]float64{math.Cos(lat) * math.Cos(lon), math.Cos(lat) * math.Sin(lon), math.Sin(lat)}
	}
	a, b := vector(lat1, lon1), vector(lat2, lon2)
	dot := a[0]*b[0] + a[1]*b[1] + a[2]*b[2]
	x, y, z := a[1]*b[2]-a[2]*b[1], a[2]*b[0]-a[0]*b[2], a[0]*b[1]-a[1]*b[0]
	return math.Atan2(math.Sqrt(x*x+y*y+z*z), dot) * 6371008.8
}

// A distance is what it is elsewhere: a degree of a meridian, and London to New York.
func TestDistances(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ lat1, lon1, lat2, lon2, want float64 }{
		{0, 0, 1, 0, 111_195.08},
		{0, 179.5, 0, -179.5, 111_195.08},
		{90, 0, 90, 120, 0},
		{0, 0, 0, 180, math.Pi * 6371008.8},
		{51.5007, -0.1246, 40.6892, -74.0445, 5_574_848},
	} {
		if got := (storage.Circle{Latitude: c.lat1, Longitude: c.lon1}).Distance(c.lat2, c.lon2); math.Abs(got-c.want) > 1 {
			t.Errorf("%+v: %f", c, got)
		}
	}
}

// Spans have their beginning and not their end, in the camera's wall clock or in instants, and narrow what else is asked for.
func TestSpans(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1<<20)
	noon := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	places := []place{{at: noon}, {at: noon.Add(time.Hour), lat: 1}, {at: noon.Add(2 * time.Hour)}, {at: noon.AddDate(0, 0, 1)}}
	d.addPlaces(t, storagetest.TenantOf(t, ctx), places)
	zoneless := d.Create(t, ctx, 1)
	d.Exec(t, `update uploads set taken_local = $2 where id = $1`, zoneless, noon)
	d.Create(t, ctx, 1) // it has no time
	names := map[uuid.UUID]string{zoneless: "z"}
	for i, p := range places {
		names[p.id] = fmt.Sprint(i)
	}
	here := &storage.Circle{Radius: 1000}
	for _, c := range []struct {
		page storage.Page
		want string
	}{
		{storage.Page{Taken: &storage.Span{Local: true}}, "z3210"},
		{storage.Page{Taken: &storage.Span{}}, "3210"},
		{storage.Page{Taken: &storage.Span{Local: true, From: noon, Before: noon.Add(2 * time.Hour)}}, "z10"},
		{storage.Page{Taken: &storage.Span{Local: true, From: noon.Add(1)}}, "z3210"}, // the resolution of Postgres
		{storage.Page{Taken: &storage.Span{Local: true, From: noon.Add(time.Microsecond)}}, "321"},
		{storage.Page{Taken: &storage.Span{Local: true, Before: noon.Add(time.Hour)}}, "z0"},
		{storage.Page{Taken: &storage.Span{From: noon.Add(3 * time.Hour), Before: noon.Add(5 * time.Hour)}}, "10"},
		{storage.Page{Taken: &storage.Span{From: noon.Add(4 * time.Hour)}}, "321"},
		{storage.Page{Taken: &storage.Span{From: noon.Add(4 * time.Hour)}, Near: here}, "32"},
		{storage.Page{Near: here, Status: storage.Completed, Project: "torre"}, "320"},
		{storage.Page{Near: here, Status: storage.Failed}, ""},
		{storage.Page{Near: here, Project: "other"}, ""},
	} {
		c.page.Limit = 2
		got := ""
		for _, id := range d.found(t, ctx, c.page) {
			got += names[id]
		}
		if got != c.want {
			t.Errorf("%+v, span %+v: %s, want %s", c.page, c.page.Taken, got, c.want)
		}
	}
}

// explained notes how Postgres answers what is asked through it.
type explained struct {
	pgx.Tx
	plan *string
}

func (e explained) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	rows, err := e.Tx.Query(ctx, `explain (costs off) `+sql, args...)
	if err != nil {
		return nil, err
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	*e.plan = strings.Join(lines, "\n")
	return e.Tx.Query(ctx, sql, args...)
}

// Under row-level security, as the server's role, a search asks its index for the tenant and for what is searched, each
// time, however often it was asked before.
func TestSearchUsesItsIndex(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1<<20)
	r := stack.Random(t)
	day := time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
	sites := make([]place, 20)
	for i := range sites {
		sites[i].lat, sites[i].lon = -33-10*r.Float64(), -70-4*r.Float64()
	}
	for _, in := range []context.Context{ctx, d.NewTenant(t, 1<<20)} {
		places := make([]place, 20_000)
		for i := range places {
			at := sites[r.IntN(len(sites))]
			places[i] = place{lat: at.lat + r.Float64()/1000, lon: at.lon + r.Float64()/1000, at: day.Add(time.Duration(r.IntN(365*24*3600)) * time.Second)}
		}
		d.addPlaces(t, storagetest.TenantOf(t, in), places)
	}
	near := &storage.Circle{Latitude: sites[0].lat, Longitude: sites[0].lon, Radius: 50}
	fiji := &storage.Circle{Latitude: -17.8, Longitude: 179.99, Radius: 50_000}
	anHour := storage.Span{From: day.AddDate(0, 1, 0), Before: day.AddDate(0, 1, 0).Add(time.Hour)}
	localHour := anHour
	localHour.Local = true
	narrowed := func(id tenant.Identity) context.Context { return tenant.With(ctx, id) }
	id := storagetest.TenantOf(t, ctx)
	for name, c := range map[string]struct {
		page       storage.Page
		index      string
		conditions []string
	}{
		"near":        {storage.Page{Near: near}, "uploads_place", []string{"latitude >=", "latitude <=", "longitude >=", "longitude <="}},
		"across":      {storage.Page{Near: fiji}, "uploads_place", []string{"latitude >=", "latitude <="}},
		"instants":    {storage.Page{Taken: &anHour}, "uploads_taken_at", []string{"taken_at >=", "taken_at <"}},
		"wall clock":  {storage.Page{Taken: &localHour}, "uploads_taken_local", []string{"taken_local >=", "taken_local <"}},
		"with others": {storage.Page{Near: near, Project: "torre", Status: storage.Completed}, "uploads_place", []string{"latitude >=", "longitude <="}},
	} {
		for role, ctx := range map[string]context.Context{
			"empleado":   ctx,
			"investor":   narrowed(tenant.Identity{Tenant: id, User: "ines", Role: tenant.Inversionista}),
			"of project": narrowed(tenant.Identity{Tenant: id, User: "ana", Role: tenant.Empleado, Projects: []string{"torre"}}),
		} {
			var plan string
			c.page.Limit = 50
			d.Must(t, ctx, func(tx storage.Tx) error {
				for range 10 {
					if _, err := tx.Uploads(ctx, c.page); err != nil {
						return err
					}
				}
				var kept bool // a generic plan would be kept with a prepared statement
				err := tx.QueryRow(ctx, `select exists (select from pg_prepared_statements where statement like '%u.' || 'lens%')`).Scan(&kept)
				if kept {
					t.Errorf("%s, %s: Postgres keeps the statement", name, role)
				}
				if err != nil {
					return err
				}
				tx.Tx = explained{tx.Tx, &plan}
				_, err = tx.Uploads(ctx, c.page)
				return err
			})
			used, condition := scan(plan, c.index)
			for _, want := range append([]string{"tenant_id ="}, c.conditions...) {
				if !used || !strings.Contains(condition, want) {
					t.Errorf("%s, %s: %s is not asked for %s:\n%s", name, role, c.index, want, plan)
				}
			}
		}
	}
}

// scan returns what an index is asked in a plan.
func scan(plan, index string) (used bool, condition string) {
	for line := range strings.Lines(plan) {
		if used {
			_, condition, _ = strings.Cut(line, "Index Cond: ")
			return used, condition
		}
		used = strings.Contains(line, "on "+index) || strings.Contains(line, "using "+index)
	}
	return used, ""
}
