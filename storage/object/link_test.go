package object_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

// A link is made for the caller's own upload and for nothing else, whatever a row says its key is. What is refused is
// there in S3, and a link to it would work.
func TestLinksStayWithTheUpload(t *testing.T) {
	t.Parallel()
	bucket := openBucket(t, stack.Get(t, ground.S3).Endpoint(), stack.Get(t, ground.S3).Bucket())
	mine := object.Keys{Tenant: uuid.New(), Project: "torre", Upload: uuid.New()}
	neighbour, sibling, elsewhere := mine, mine, mine
	neighbour.Tenant = uuid.New()
	sibling.Upload = uuid.New()
	elsewhere.Project = "puente"
	for _, k := range []object.Keys{mine, neighbour, sibling, elsewhere} {
		stack.Must(t, bucket.Put(t.Context(), k.Thumbnail(160), "image/webp", strings.NewReader("picture"), 7))
	}
	me := tenant.Identity{Tenant: mine.Tenant, User: "ana", Role: tenant.Empleado}
	narrow, other := me, me
	narrow.Projects = []string{"puente"}
	other.Tenant = neighbour.Tenant
	as := func(id tenant.Identity) context.Context { return tenant.With(t.Context(), id) }

	for name, c := range map[string]struct {
		ctx  context.Context
		of   object.Keys
		key  string
		want error
	}{
		"own":                         {as(me), mine, mine.Thumbnail(160), nil},
		"own original":                {as(me), mine, mine.Original(1), nil},
		"in quarantine":               {as(me), mine, mine.Quarantine(1), object.ErrForeignKey},
		"nobody asks":                 {t.Context(), mine, mine.Thumbnail(160), tenant.ErrNoIdentity},
		"row names a neighbour":       {as(me), mine, neighbour.Thumbnail(160), object.ErrForeignKey},
		"row names a sibling":         {as(me), mine, sibling.Thumbnail(160), object.ErrForeignKey},
		"row names another project":   {as(me), mine, elsewhere.Thumbnail(160), object.ErrForeignKey},
		"upload of a neighbour":       {as(me), neighbour, neighbour.Thumbnail(160), object.ErrForeignKey},
		"neighbour asks":              {as(other), mine, mine.Thumbnail(160), object.ErrForeignKey},
		"project that is not seen":    {as(narrow), mine, mine.Thumbnail(160), object.ErrForeignKey},
		"row names a bare prefix":     {as(me), mine, mine.Prefix(), object.ErrForeignKey},
		"row names nothing":           {as(me), mine, "", object.ErrForeignKey},
		"row climbs to a neighbour":   {as(me), mine, mine.Prefix() + "../../../../../" + neighbour.Thumbnail(160), object.ErrForeignKey},
		"upload of nobody, no tenant": {as(me), object.Keys{}, mine.Thumbnail(160), object.ErrForeignKey},
	} {
		url, err := bucket.LinkFor(c.ctx, c.of, c.key, time.Minute)
		if !errors.Is(err, c.want) || (err == nil) != (url != "") {
			t.Errorf("%s: %q, %v", name, url, err)
		}
	}

	url, err := bucket.LinkFor(as(me), mine, mine.Thumbnail(160), time.Minute)
	stack.Must(t, err)
	client := http.Client{Timeout: stack.Patience}
	res, err := client.Get(url) //nolint:noctx // of the test's own S3
	stack.Must(t, err)
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); err != nil || res.StatusCode != http.StatusOK || string(b) != "picture" {
		t.Errorf("the link leads to %d %q, %v", res.StatusCode, b, err)
	}
}
