package server_test

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

type tagsAnswer struct {
	Tags      map[string]map[string]any
	Truncated *bool
}

func (u user) tags(url string) (t tagsAnswer) {
	u.t.Helper()
	a := u.do("GET", url+"/tags", nil).want(u.t, 200, "")
	a.wantHeader(u.t, "Content-Type", "application/json")
	a.wantHeader(u.t, "Cache-Control", "no-store")
	stack.Must(u.t, json.Unmarshal(a.body, &t))
	if t.Tags == nil || t.Truncated == nil {
		u.t.Fatalf("the tags are %s", a.body)
	}
	return t
}

// Everyone who may read the upload, an investor too, reads its tags. Before processing they are an empty object.
func TestTags(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u := s.user
	done, open := s.complete(t, u, "filename", "a.png"), u.create(5)
	investor := u.as(s, "ines", tenant.Inversionista)
	for _, who := range []user{u, investor} {
		got := who.tags(done)
		if want := map[string]any{"Make": "Probe", "Model": "P1"}; !reflect.DeepEqual(got.Tags["IFD0"], want) || got.Tags["GPS"]["GPSLatitude"] != 34.6 || !*got.Truncated {
			t.Errorf("%s sees %v", who.who.Role, got)
		}
	}
	if got := u.tags(open); len(got.Tags) != 0 || *got.Truncated {
		t.Errorf("an open upload has %v", got)
	}
	investor.do("GET", open+"/tags", nil).want(t, 404, "not-found")
	for _, id := range []string{"/01890a5d-ac96-774b-bcce-b302099a8057", "/x"} {
		u.do("GET", u.uploads+id+"/tags", nil).want(t, 404, "not-found")
	}
}
