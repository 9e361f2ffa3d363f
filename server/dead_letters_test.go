package server_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

type letterAnswer struct {
	ID        string
	UploadID  string `json:"upload_id"`
	State     string
	Step      string
	Error     string
	Attempts  int
	JobID     *int64  `json:"job_id"`
	TraceID   *string `json:"trace_id"`
	FailedAt  time.Time
	RetriedBy *string `json:"retried_by"`
}

type letterPage struct {
	Items []letterAnswer
	Next  *string
}

type retryAnswer struct {
	Retried int
	Left    []struct{ ID, Type, Detail string }
	More    bool
}

// die makes an upload of the user's whose processing was given up at the step, and returns its address and its letter's.
func (s *site) die(t *testing.T, u user, step string) (upload, letter string) {
	t.Helper()
	upload = u.create(5, "Upload-Metadata", metadata("project", u.project()))
	u.patch(upload, 0, strings.NewReader("hello")).want(t, 204, "")
	s.exec(t, `update uploads set status = 'failed', failure_reason = 'dead_lettered', failure_detail = 'It is safe.' where id = $1`, idOf(upload))
	id := uuid.Must(uuid.NewV7())
	s.exec(t, `insert into dead_letters (tenant_id, id, upload_id, job_id, kind, step, error, attempts, trace_id)
		values ($1, $2, $3, 7, 'process_upload', $4, 'the disk is on fire', 3, 'abc')`, u.who.Tenant, id, idOf(upload), step)
	s.exec(t, `delete from river_job where args->>'upload_id' = $1`, idOf(upload).String())
	return upload, u.base() + "/api/admin/dead-letters/" + id.String()
}

// An admin reads the error of a dead letter, which the tenant cannot; retries it once; and discards another.
func TestDeadLetters(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u := s.user
	upload, letter := s.die(t, u, "scan")
	other, rest := s.die(t, u, "thumbnails")
	root := u.as(s, "root", tenant.Admin)
	list := u.base() + "/api/admin/dead-letters"

	page := readAs[letterPage](t, root.do("GET", list+"?limit=1&since=2026-01-01T00:00:00Z", nil), 200)
	if len(page.Items) != 1 || page.Items[0].UploadID != idOf(other).String() || page.Next == nil {
		t.Fatalf("got %+v", page)
	}
	page = readAs[letterPage](t, root.do("GET", list+"?limit=1&cursor="+*page.Next, nil), 200)
	if len(page.Items) != 1 || page.Items[0].UploadID != idOf(upload).String() {
		t.Fatalf("got %+v", page)
	}
	d := page.Items[0]
	if d.State != "open" || d.Step != "scan" || d.Error != "the disk is on fire" || d.Attempts != 3 || *d.JobID != 7 || *d.TraceID != "abc" {
		t.Errorf("got %+v", d)
	}
	for _, path := range []string{upload, upload + "/timeline", u.uploads} {
		for _, who := range []user{u, root} {
			who.do("GET", path, nil).want(t, 200, "").wantNoText(t, "fire")
		}
	}
	for _, query := range []string{"?step=scan", "?kind=process_upload&step=scan&state=all"} {
		if page := readAs[letterPage](t, root.do("GET", list+query, nil), 200); len(page.Items) != 1 || page.Items[0].ID != d.ID {
			t.Errorf("%s: got %+v", query, page)
		}
	}

	got := readAs[letterAnswer](t, root.do("POST", letter+"/retry", nil), 200)
	if got.State != "retried" || *got.RetriedBy != "root" || u.upload(upload).Status != "uploaded" {
		t.Errorf("got %+v, %+v", got, u.upload(upload))
	}
	s.wantJobs(t, upload, 1)
	root.do("POST", letter+"/retry", nil).want(t, 409, "nothing-to-retry")
	s.wantJobs(t, upload, 1)
	for range 2 {
		root.do("DELETE", rest, nil).want(t, 204, "")
	}
	if got := readAs[letterAnswer](t, root.do("GET", rest, nil), 200); got.State != "discarded" || u.upload(other).Status != "failed" {
		t.Errorf("got %+v", got)
	}
	if page := readAs[letterPage](t, root.do("GET", list, nil), 200); len(page.Items) != 0 {
		t.Errorf("still open: %+v", page)
	}
	u.do("DELETE", other, nil).want(t, 204, "")
	root.do("GET", rest, nil).want(t, 404, "not-found")
	root.do("POST", rest+"/retry", nil).want(t, 404, "not-found")
	for _, query := range []string{"?state=dead", "?since=yesterday", "?cursor=1", "?limit=0", "?step=%00"} {
		root.do("GET", list+query, nil).want(t, 400, "bad-request")
	}
}

// An admin of another tenant enters the tenant of a dead letter, which is audited, and retries it.
func TestDeadLettersOfAnotherTenant(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u := s.user
	upload, letter := s.die(t, u, "scan")
	root := s.newTenant(t).as(s, "root", tenant.Admin)
	root.do("POST", letter+"/retry", nil).want(t, 404, "not-found")
	root.do("POST", letter+"/retry", nil, "Tramo-Tenant", u.who.Tenant.String()).want(t, 200, "")
	s.wantJobs(t, upload, 1)
	home := value[uuid.UUID](t, s, `select home_tenant from audit where tenant_id = $1 and action = 'dead_letter.retry'`, u.who.Tenant)
	stack.Want(t, home, root.who.Tenant, "tenant in the audit log")
}

// Many dead letters are retried by ids, by step and time, or all, each in a transaction of its own.
func TestDeadLettersRetryMany(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u := s.user
	root := u.as(s, "root", tenant.Admin)
	ask := func(body string) retryAnswer {
		t.Helper()
		return readAs[retryAnswer](t, root.do("POST", u.base()+"/api/admin/dead-letters/retry", strings.NewReader(body), "Content-Type", "application/json"), 200)
	}
	_, one := s.die(t, u, "scan")
	_, two := s.die(t, u, "scan")
	stranger := uuid.NewString()
	ids, err := json.Marshal([]string{idOf(one).String(), stranger, idOf(one).String()})
	stack.Must(t, err)
	got := ask(fmt.Sprintf(`{"ids":%s}`, ids))
	if got.Retried != 1 || len(got.Left) != 1 || got.Left[0].ID != stranger || got.Left[0].Type != "/problems/not-found" || got.More {
		t.Errorf("got %+v", got)
	}
	pictures, _ := s.die(t, u, "thumbnails")
	if got := ask(`{"step":"scan","since":"2026-01-01T00:00:00Z"}`); got.Retried != 1 || len(got.Left) != 0 {
		t.Errorf("got %+v", got)
	}
	stack.Want(t, readAs[letterAnswer](t, root.do("GET", two, nil), 200).State, "retried", "state of the letter")
	stack.Want(t, u.upload(pictures).Status, "failed", "status")
	stack.Want(t, ask(`{"since":"2100-01-01T00:00:00Z"}`).Retried, 0, "number retried, of the future")
	stack.Want(t, ask(`{"all":true}`).Retried, 1, "number retried, of all")
	many := strings.TrimSuffix(strings.Repeat(`"`+stranger+`",`, 201), ",")
	for _, body := range []string{``, `{}`, `[]`, `{"all":false}`, `{"all":true,"step":"scan"}`, `{"ids":[]}`, `{"ids":["x"]}`, `{"what":1}`, `{"all":true}{}`,
		`{"ids":[` + many + `]}`, `{"step":"\u0000"}`} {
		root.do("POST", u.base()+"/api/admin/dead-letters/retry", strings.NewReader(body), "Content-Type", "application/json").want(t, 400, "bad-request")
	}
}

// A request retries at most the limit, and says whether more are left.
func TestDeadLettersRetryAboveTheLimit(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u := s.user
	root := u.as(s, "root", tenant.Admin)
	_, letter := s.die(t, u, "scan")
	// 202 dead letters in all: copies of one, which are made faster than uploads.
	s.exec(t, `with new as (
			insert into uploads (tenant_id, id, user_id, project, metadata, size, charged_bytes, status, failure_reason, object_key)
			select tenant_id, gen_random_uuid(), user_id, project, metadata, size, charged_bytes, status, failure_reason, object_key
			from uploads, generate_series(1, 201) where id = (select upload_id from dead_letters where id = $1)
			returning tenant_id, id)
		, held as (insert into contents (tenant_id, upload_id) select * from new)
		insert into dead_letters (tenant_id, id, upload_id, job_id, kind, step, error, attempts)
		select tenant_id, id, id, 0, 'process_upload', 'scan', 'x', 3 from new`, idOf(letter))
	for _, want := range []retryAnswer{{Retried: 200, More: true}, {Retried: 2}} {
		a := root.do("POST", u.base()+"/api/admin/dead-letters/retry", strings.NewReader(`{"all":true}`), "Content-Type", "application/json")
		if got := readAs[retryAnswer](t, a, 200); got.Retried != want.Retried || got.More != want.More {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}
