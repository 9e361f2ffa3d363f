package server_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/tramo/tramo/hooks"
)

// wantExpires checks that the answer tells, as an IMF-fixdate, that the upload expires about at.
func (a answer) wantExpires(t *testing.T, at time.Time) {
	t.Helper()
	got, err := time.Parse(http.TimeFormat, a.header.Get("Upload-Expires"))
	if err != nil || got.Sub(at).Abs() > time.Minute {
		t.Errorf("Upload-Expires is %q, want about %s", a.header.Get("Upload-Expires"), at)
	}
}

// touched sets the time back at which bytes of the upload arrived last.
func (s *site) touched(t *testing.T, url string, ago time.Duration) {
	t.Helper()
	s.exec(t, `update contents set touched_at = now() - $2::interval where upload_id = $1`, idOf(url), ago)
}

var expiry = hooks.DefaultExpiry().Retention

// tus 1.0.0, Expiration: POST and each answer to PATCH tell when the upload expires, until it is complete.
func TestUploadExpires(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u := s.user
	later := time.Now().Add(expiry)
	meta := metadata("client_id", "one")
	a := u.do("POST", u.uploads, nil, "Upload-Length", "100", "Upload-Metadata", meta)
	a.wantExpires(t, later)
	url := a.header.Get("Location")
	u.do("HEAD", url, nil).wantExpires(t, later)

	s.touched(t, url, time.Hour)
	u.do("HEAD", url, nil).wantExpires(t, later.Add(-time.Hour))
	u.patch(url, 5, reader(noise(5))).wantExpires(t, later.Add(-time.Hour)) // 409: nothing has arrived
	u.patch(url, 0, reader(noise(5))).wantExpires(t, later)
	u.do("HEAD", url, nil).wantExpires(t, later)
	if at := u.upload(url).ExpiresAt; at == nil || at.Sub(later).Abs() > time.Minute {
		t.Errorf("expires_at is %v, want about %s", at, later)
	}
	s.touched(t, url, time.Hour)
	again := u.do("POST", u.uploads, nil, "Upload-Length", "100", "Upload-Metadata", meta)
	again.wantExpires(t, later)
	u.do("HEAD", url, nil).wantExpires(t, later)

	last := u.patch(url, 5, reader(noise(95))).want(t, 204, "")
	last.wantHeader(t, "Upload-Expires", "")
	u.do("HEAD", url, nil).wantHeader(t, "Upload-Expires", "")
	u.do("POST", u.uploads, nil, "Upload-Length", "100", "Upload-Metadata", meta).wantHeader(t, "Upload-Expires", "")
	if at := u.upload(url).ExpiresAt; at != nil {
		t.Errorf("complete, expires_at is %v", at)
	}
	s.touched(t, url, 2*expiry) // what is complete does not expire
	u.wantOffset(url, 100)
}

// An upload past its time is gone, although nobody has swept it. Its client may begin again under the same
// client_id, and finds there what it had sent.
func TestExpiredUpload(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u := s.user
	post := func() answer {
		return u.do("POST", u.uploads, nil, "Upload-Length", "10", "Upload-Metadata", metadata("client_id", "one"))
	}
	url := post().header.Get("Location")
	u.patch(url, 0, reader(noise(5))).want(t, 204, "")

	s.touched(t, url, expiry-time.Minute)
	u.wantOffset(url, 5)
	s.touched(t, url, expiry+time.Minute)
	head := u.do("HEAD", url, nil).want(t, 410, "")
	head.wantHeader(t, "Upload-Offset", "")
	head.wantHeader(t, "Cache-Control", "no-store")
	u.patch(url, 5, reader(noise(5))).want(t, 410, "expired")
	u.do("DELETE", url, nil).want(t, 410, "expired")

	again := post().want(t, 201, "")
	again.wantHeader(t, "Location", url)
	again.wantHeader(t, "Upload-Offset", "5")
	u.patch(url, 5, reader(noise(5))).want(t, 204, "")

	// After the reconciler has removed it, it does not come back.
	swept := u.create(10)
	s.exec(t, `update uploads set status = 'expired' where id = $1`, idOf(swept))
	u.do("HEAD", swept, nil).want(t, 410, "")
	u.patch(swept, 0, reader(noise(10))).want(t, 410, "expired")
}

// An upload that has all its bytes and was not finished is finished, however late its client asks.
func TestUnfinishedUploadDoesNotExpire(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u := s.user
	url := u.create(10)
	u.patch(url, 0, reader(noise(10))).want(t, 204, "")
	s.exec(t, `update uploads set status = 'uploading', uploaded_at = null where id = $1`, idOf(url))
	s.touched(t, url, 2*expiry)
	u.wantOffset(url, 10)
}
