package tus

import (
	"mime"
	"net/http"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/tenant"
)

// What stands in this file is of draft-ietf-httpbis-resumable-upload, in the versions that tusd speaks: interop
// versions 3 to 6, which are those of the drafts -01 to -05.

// DraftHeader names the version of the draft that a request speaks.
const DraftHeader = "Upload-Draft-Interop-Version"

// draftVersion returns the interop version of the draft that the request speaks; "" for none.
func draftVersion(r *http.Request) string {
	switch v := r.Header.Get(DraftHeader); v {
	case "3", "4", "5", "6":
		return v
	}
	return ""
}

// completion returns the header by which the request's version says whether an upload is complete, and how it says
// yes and no.
func completion(r *http.Request) (header, yes, no string) {
	if draftVersion(r) == "3" {
		return "Upload-Incomplete", "?0", "?1"
	}
	return "Upload-Complete", "?1", "?0"
}

// checkDraft refuses what tusd lets pass, or fails at with a 5xx.
func checkDraft(r *http.Request) error {
	switch r.Method {
	case http.MethodHead, http.MethodDelete:
		complete, _, _ := completion(r)
		for _, name := range []string{"Upload-Offset", complete, "Upload-Length"} {
			if r.Header.Get(name) != "" {
				return problem.ErrDraftHeader // Offset Retrieval and Upload Cancellation: MUST
			}
		}
	case http.MethodPost:
		for _, name := range []string{"Content-Type", "Content-Disposition"} {
			v := r.Header.Get(name)
			if v == "" {
				continue
			}
			t, _, err := mime.ParseMediaType(v)
			switch {
			case err != nil:
				return tenant.Refuse(hooks.ErrBadMetadata, "%s is not valid: %v.", name, err)
			case t == "multipart/form-data": // the file would be the form around it
				return tenant.Refuse(hooks.ErrTypeNotAllowed, "In the IETF draft, the body is the file itself, without a form around it.")
			}
		}
	}
	return nil
}

// claimsTooMuch reports whether the request says that its body completes the upload, and that is not so. tusd
// takes its word for it, and the client would take a success for a complete upload.
func (x *exchange) claimsTooMuch() bool {
	header, yes, _ := completion(x.request)
	if draftVersion(x.request) == "" || x.request.Header.Get(header) != yes {
		return false
	}
	info, ok := x.info()
	return ok && (info.SizeIsDeferred || info.Offset != info.Size)
}

// acknowledgeDraft tells whether the upload is complete, and returns the status that the drafts want: 201 also where
// tusd has 204 (Upload Creation and Upload Append: MUST while the upload is not complete).
func (x *exchange) acknowledgeDraft(status int) int {
	if x.request.Method != http.MethodPost && x.request.Method != http.MethodPatch {
		return status
	}
	if info, ok := x.info(); ok {
		header, yes, no := completion(x.request)
		x.Header().Set(header, yes)
		if info.SizeIsDeferred || info.Offset != info.Size {
			x.Header().Set(header, no)
		}
	}
	return http.StatusCreated
}
