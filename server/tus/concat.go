package tus

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/tus/tusd/v2/pkg/handler"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/server/resource"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

// resolvePartials writes the addresses in Upload-Concat as tusd reads them. A client may name partial uploads by
// relative addresses and by those of any replica (tus 1.0.0, Concatenation, Upload-Concat).
func (x *exchange) resolvePartials() error {
	r := x.request
	list, final := strings.CutPrefix(r.Header.Get("Upload-Concat"), "final;")
	if !final {
		return nil
	}
	base := &url.URL{Path: resource.UploadsPath + "/"}
	var resolved []string
	for _, address := range strings.Fields(list) {
		u, err := base.Parse(address)
		if err != nil {
			return problem.ErrUploadConcat
		}
		id, ours := strings.CutPrefix(u.Path, resource.UploadsPath+"/")
		if _, err := uuid.Parse(id); !ours || err != nil {
			return storage.ErrNotFound
		}
		resolved = append(resolved, x.handler.base()+id)
	}
	if len(resolved) > hooks.MaxPartials { // before tusd looks at each
		return tenant.Refuse(hooks.ErrNotPartial, "Upload-Concat names %d partial uploads; the most is %d.", len(resolved), hooks.MaxPartials)
	}
	r.Header.Set("Upload-Concat", "final;"+strings.Join(resolved, " "))
	return nil
}

// forgetKnownLength takes Upload-Length from a PATCH that says again what is known: tusd refuses that, but a
// client whose connection was cut after it had declared the length cannot know.
func forgetKnownLength(r *http.Request, info handler.FileInfo) {
	if r.Method == http.MethodPatch && !info.SizeIsDeferred && r.Header.Get("Upload-Length") == strconv.FormatInt(info.Size, 10) {
		r.Header.Del("Upload-Length")
	}
}
