package hooks_test

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/hooks/hookstest"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

// Each refusal has its cause, says what to do, and leaves no rows.
func TestRefusals(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := s.NewTenant(t, 5000)
	id, err := tenant.From(ctx)
	stack.Must(t, err)
	investor := hookstest.As(ctx, id.Tenant, "inés", tenant.Inversionista)
	nobody := hookstest.As(ctx, uuid.New(), "ana", tenant.Admin)
	long := func(n int) string { return strings.Repeat("x", n) }
	for _, c := range []struct {
		name string
		ctx  context.Context
		size int64
		meta map[string]string
		want error
	}{
		{"unknown tenant", nobody, 10, nil, hooks.ErrNoTenant},
		{"empty", ctx, 0, nil, hooks.ErrEmpty},
		{"negative", ctx, -1, nil, hooks.ErrEmpty},
		{"too large", ctx, hookstest.MaxSize + 1, nil, hooks.ErrTooLarge},
		{"type", ctx, 10, map[string]string{"filetype": "application/x-msdownload"}, hooks.ErrTypeNotAllowed},
		{"type with parameters", ctx, 10, map[string]string{"filetype": "Video/MP4; codecs=avc1"}, hooks.ErrTypeNotAllowed},
		{"no type", ctx, 10, map[string]string{"filetype": "jpeg"}, hooks.ErrBadMetadata},
		{"garbage type", ctx, 10, map[string]string{"filetype": "image/jpeg; ; ="}, hooks.ErrBadMetadata},
		{"project with a slash", ctx, 10, map[string]string{"project": "a/b"}, hooks.ErrBadMetadata},
		{"project that climbs", ctx, 10, map[string]string{"project": ".."}, hooks.ErrBadMetadata},
		{"project with a line break", ctx, 10, map[string]string{"project": "a\n"}, hooks.ErrBadMetadata},
		{"long project", ctx, 10, map[string]string{"project": long(65)}, hooks.ErrBadMetadata},
		{"long file name", ctx, 10, map[string]string{"filename": long(766)}, hooks.ErrBadMetadata},
		{"type of a family that is none", ctx, 10, map[string]string{"filetype": "*/exe"}, hooks.ErrTypeNotAllowed},
		{"long batch", ctx, 10, map[string]string{"batch": long(129)}, hooks.ErrBadMetadata},
		{"long client id", ctx, 10, map[string]string{"client_id": long(129)}, hooks.ErrBadMetadata},
		{"much metadata", ctx, 10, map[string]string{"x": long(4096), "y": long(4096)}, hooks.ErrBadMetadata},
		{"NUL in a value", ctx, 10, map[string]string{"x": "a\x00b"}, hooks.ErrBadMetadata},
		{"NUL in a key", ctx, 10, map[string]string{"a\x00b": "x"}, hooks.ErrBadMetadata},
		{"NUL in the file name", ctx, 10, map[string]string{"filename": "a\x00/b.jpg"}, hooks.ErrBadMetadata},
		{"invalid UTF-8 in a value", ctx, 10, map[string]string{"filename": "\xff.jpg"}, hooks.ErrBadMetadata},
		{"invalid UTF-8 in a key", ctx, 10, map[string]string{"\xc3\x28": ""}, hooks.ErrBadMetadata},
		{"sha256 that is short", ctx, 10, map[string]string{"sha256": long(63)}, hooks.ErrBadMetadata},
		{"sha256 of a wrong length", ctx, 10, map[string]string{"sha256": "abcd"}, hooks.ErrBadMetadata},
		{"sha256 in Base64", ctx, 10, map[string]string{"sha256": "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="}, hooks.ErrBadMetadata},
	} {
		_, err := s.Admission.Admit(c.ctx, hooks.Request{Size: c.size, Metadata: c.meta})
		var r *tenant.Refusal
		if !errors.Is(err, c.want) || !errors.As(err, &r) || len(r.Detail) < 20 {
			t.Errorf("%s: got %v, want %v with a detail", c.name, err, c.want)
		}
	}
	_, err = s.Admission.Admit(investor, hooks.Request{Size: 10})
	stack.WantErr(t, err, tenant.ErrForbidden)
	_, err = s.Admission.Admit(t.Context(), hooks.Request{Size: 10})
	stack.WantErr(t, err, tenant.ErrNoIdentity)
	s.WantRoom(t, ctx, 5000)
	s.WantCount(t, 0, `select count(*) from uploads`)
}

func TestAdmits(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := s.NewTenant(t, 1<<20)
	long := func(n int) string { return strings.Repeat("x", n) }
	for _, c := range []struct {
		name  string
		size  int64
		meta  map[string]string
		check func(storage.Upload) bool
	}{
		{"nothing said", 1, nil, func(u storage.Upload) bool {
			return u.Project == "default" && u.Filename == nil && u.DeclaredType == nil && u.ClientID == nil && u.Batch == nil
		}},
		{"the largest", hookstest.MaxSize, map[string]string{}, func(u storage.Upload) bool { return u.Size == hookstest.MaxSize }},
		{"file name with directories", 10, map[string]string{"filename": `C:\fotos\..\obra ñ.jpg`},
			func(u storage.Upload) bool { return *u.Filename == "obra ñ.jpg" }},
		{"file name that is none", 10, map[string]string{"filename": "../.."}, func(u storage.Upload) bool { return u.Filename == nil }},
		{"limits reached", 10, map[string]string{"filename": long(255), "batch": long(128), "client_id": long(128), "project": long(64)},
			func(u storage.Upload) bool { return len(*u.Filename) == 255 && len(*u.Batch) == 128 }},
		{"type in another spelling", 10, map[string]string{"filetype": "IMAGE/JPEG; q=1"},
			func(u storage.Upload) bool { return *u.DeclaredType == "image/jpeg" }},
		{"type that is not known", 10, map[string]string{"filetype": "application/octet-stream"},
			func(u storage.Upload) bool { return *u.DeclaredType == "application/octet-stream" }},
		{"long name in Cyrillic", 10, map[string]string{"filename": strings.Repeat("я", 300) + ".jpeg"}, func(u storage.Upload) bool {
			return *u.Filename == strings.Repeat("я", 125)+".jpeg" && u.Metadata["filename"] == strings.Repeat("я", 300)+".jpeg"
		}},
		{"longest name of a file system, of 255 characters", 10, map[string]string{"filename": strings.Repeat("漢", 255)},
			func(u storage.Upload) bool { return *u.Filename == strings.Repeat("漢", 85) }},
		{"name with a point and no extension", 10, map[string]string{"filename": "a." + long(300)},
			func(u storage.Upload) bool { return *u.Filename == "a."+long(253) }},
		{"name in NFD", 10, map[string]string{"filename": "caf\u0065\u0301 n\u0303.jpg"}, func(u storage.Upload) bool { return *u.Filename == "caf\u00e9 \u00f1.jpg" }},
		{"checksum in capitals", 10, map[string]string{"sha256": strings.Repeat("AB", 32)},
			func(u storage.Upload) bool { return len(u.DeclaredSHA256) == 32 && u.DeclaredSHA256[0] == 0xab }},
		{"batch whose name is nearly an id", 10, map[string]string{"batch": "01a22c3e-caca-715c-b3be-05zzzzzzzzzz"},
			func(u storage.Upload) bool { return *u.Batch == "01a22c3e-caca-715c-b3be-05zzzzzzzzzz" }},
		{"batch whose name is an id without its last digit", 10, map[string]string{"batch": "01a22c3e-caca-715c-b3be-053b9880428"},
			func(u storage.Upload) bool { return *u.Batch == "01a22c3e-caca-715c-b3be-053b9880428" }},
		{"batch whose name has an id", 10, map[string]string{"batch": "x01a22c3e-caca-715c-b3be-053b9880428cx"},
			func(u storage.Upload) bool { return *u.Batch == "x01a22c3e-caca-715c-b3be-053b9880428cx" }},
		{"keys of the client's own", 10, map[string]string{"relativePath": "null", "": "", "ñ": "😀\\u0000"},
			func(u storage.Upload) bool { return u.Metadata["ñ"] == "😀\\u0000" }},
	} {
		got, err := s.Admission.Admit(ctx, hooks.Request{Size: c.size, Metadata: c.meta})
		if err != nil || got.Existing {
			t.Errorf("%s: %+v, %v", c.name, got, err)
			continue
		}
		u := s.Upload(t, ctx, got.ID)
		if !c.check(u) || !maps.Equal(u.Metadata, c.meta) || got.ID.Version() != 7 {
			t.Errorf("%s: got %+v", c.name, u)
		}
	}
}

// A client that lost the answer to its creation gets the upload that it has, also when its tenant's quota is
// used up by that upload, and also by several requests at once.
func TestSameClientIDSameUpload(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := s.NewTenant(t, 100)
	meta := map[string]string{"client_id": "IMG_1", "filename": "a.jpg"}
	var mu sync.Mutex
	ids := map[uuid.UUID]int{}
	g := new(errgroup.Group)
	for range 8 {
		g.Go(func() error {
			got, err := s.Admission.Admit(ctx, hooks.Request{Size: 100, Metadata: meta})
			mu.Lock()
			defer mu.Unlock()
			if err == nil && !got.Existing {
				ids[got.ID] += 100
			}
			ids[got.ID]++
			return err
		})
	}
	stack.Must(t, stack.Ended(t, "eight creations", g.Wait))
	if len(ids) != 1 {
		t.Errorf("one client id named %v", ids)
	}
	for _, n := range ids {
		stack.Want(t, n, 108, "charge of all creations, of 108 bytes each")
	}
	for name, c := range map[string]struct {
		size     int64
		filename string
	}{"size": {99, "a.jpg"}, "name": {100, "b.jpg"}} {
		_, err := s.Admission.Admit(ctx, hooks.Request{Size: c.size, Metadata: map[string]string{"client_id": "IMG_1", "filename": c.filename}})
		if !errors.Is(err, hooks.ErrClientIDTaken) {
			t.Errorf("another %s: %v", name, err)
		}
	}
	_, err := s.Admission.Admit(ctx, hooks.Request{Size: 1, Metadata: map[string]string{"client_id": "IMG_2"}})
	stack.WantErr(t, err, hooks.ErrNoRoom)
}

// While its upload is cancelled, a client creates it again under the same id: it gets one or the other, and
// never an error.
func TestCreatedAgainWhileCancelled(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := s.NewTenant(t, 1<<20)
	meta := map[string]string{"client_id": "IMG_1", "filename": "a.jpg"}
	for range 40 {
		got := s.admit(t, ctx, hooks.Request{Size: 10, Metadata: meta})
		g := new(errgroup.Group)
		g.Go(func() error { return s.Uploads.CancelRows(ctx, got) })
		for range 3 {
			g.Go(func() error {
				_, err := s.Admission.Admit(ctx, hooks.Request{Size: 10, Metadata: meta})
				return err
			})
		}
		stack.Must(t, stack.Ended(t, "cancellation and creations", g.Wait))
	}
}

// Clients that do not know the type, or only its family, send one of these: the content decides.
func TestTypesThatSayNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := s.NewTenant(t, 1<<20)
	for _, declared := range []string{
		"image/*", "*/*", "IMAGE/*; q=0.8", "video/*", "binary/octet-stream", "application/mp4", "video/x-m4v", "multipart/form-data",
		"application/x-www-form-urlencoded", "application/force-download", "application/unknown",
	} {
		got, err := s.Admission.Admit(ctx, hooks.Request{Size: 10, Metadata: map[string]string{"filetype": declared}})
		stack.Must(t, err)
		stack.Want(t, *s.Upload(t, ctx, got.ID).DeclaredType, "application/octet-stream", "type declared as %s", declared)
	}
}

// macOS decomposes letters (NFD) where others do not (NFC): a repeated creation finds its upload.
func TestOneNameInTwoForms(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := s.NewTenant(t, 1<<20)
	create := func(name string) hooks.Admitted {
		a, err := s.Admission.Admit(ctx, hooks.Request{Size: 10, Metadata: map[string]string{"filename": name, "client_id": "one"}})
		stack.Must(t, err)
		return a
	}
	nfd, nfc := "cami\u006f\u0301n.jpg", "cami\u00f3n.jpg"
	first := create(nfd)
	stack.Want(t, create(nfc).ID, first.ID, "upload of the composed name")
	s.Exec(t, `update uploads set filename = $2 where id = $1`, first.ID, nfd) // as the previous release kept it
	stack.Want(t, create(nfc).ID, first.ID, "upload of the previous release")
}
