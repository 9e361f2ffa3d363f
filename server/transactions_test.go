package server_test

import (
	"bytes"
	"context"
	"net/http"
	"strconv"
	"testing"

	"github.com/tramo/tramo/test/stack"
)

// However a creation with content ends, the lease that was taken with it is given back.
func TestCreationLeavesNoLease(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	data := noise(10_000)
	for name, c := range map[string]struct {
		body    []byte
		headers []string
		want    int
	}{
		"complete":          {data, nil, http.StatusCreated},
		"part of it":        {data[:100], nil, http.StatusCreated},
		"nothing":           {nil, nil, http.StatusCreated},
		"a wrong checksum":  {data, []string{"Upload-Checksum", "sha1 AAAAAAAAAAAAAAAAAAAAAAAAAAA="}, 460},
		"a draft":           {data, []string{"Tus-Resumable", "", "Upload-Draft-Interop-Version", "6", "Upload-Complete", "?1", "Upload-Length", "", "Content-Type", ""}, http.StatusCreated},
		"a draft that ends": {nil, []string{"Tus-Resumable", "", "Upload-Draft-Interop-Version", "6", "Upload-Complete", "?1", "Upload-Length", "", "Content-Type", ""}, http.StatusUnprocessableEntity},
		"not for Tramo":     {append([]byte(program), make([]byte, 10_000-len(program))...), nil, http.StatusUnsupportedMediaType},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := s.newTenant(t)
			headers := append([]string{"Upload-Length", strconv.Itoa(len(data)), "Content-Type", octets}, c.headers...)
			a := u.do("POST", u.uploads, bytes.NewReader(c.body), headers...)
			stack.Want(t, a.status, c.want, "status of %s", a.body)
			stack.Until(t, "a lease that is given back", func() bool {
				return s.count(t, `select count(*) from upload_leases where tenant_id = $1`, u.who.Tenant) == 0
			})
		})
	}
	t.Run("cut off", func(t *testing.T) {
		t.Parallel()
		u := s.newTenant(t)
		ctx, cancel := context.WithCancel(t.Context())
		body := &stuck{begin: bytes.NewReader(data[:100]), ended: ctx.Done()}
		go func() {
			r := u.request("POST", u.uploads, body, "Upload-Length", "10000", "Content-Type", octets).WithContext(ctx)
			if res, err := client.Do(r); err == nil {
				res.Body.Close()
			}
		}()
		stack.Until(t, "a checkpoint under the lease of the creation", func() bool {
			return s.count(t, `select count(*) from upload_leases l join contents c using (tenant_id, upload_id) where l.tenant_id = $1 and c.received = 100`, u.who.Tenant) == 1
		})
		cancel()
		stack.Until(t, "a lease that is given back", func() bool {
			return s.count(t, `select count(*) from upload_leases where tenant_id = $1`, u.who.Tenant) == 0
		})
	})
}

// A stuck body says nothing after its beginning.
type stuck struct {
	begin *bytes.Reader
	ended <-chan struct{}
}

func (b *stuck) Read(p []byte) (int, error) {
	if b.begin.Len() > 0 {
		return b.begin.Read(p)
	}
	<-b.ended
	return 0, context.Canceled
}

// A request for the offset of an upload that nobody holds takes no lease. One that somebody holds is asked for, also if its
// holder has died: only then is the offset one that does not move.
func TestHeadTakesNoLease(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u := s.newTenant(t)
	url := u.create(100)
	u.patch(url, 0, bytes.NewReader(make([]byte, 40))).want(t, 204, "")
	fences := func() int { return s.count(t, `select last_value from fences`) }
	before := fences()
	u.wantOffset(url, 40)
	stack.Want(t, fences(), before, "leases that were taken for a HEAD")

	s.exec(t, `insert into lease_holders (id, replica, process, expires_at) values (gen_random_uuid(), 'dead', gen_random_uuid(), now() - interval '1 second')`)
	s.exec(t, `insert into upload_leases (tenant_id, upload_id, holder_id, fence) select $1, $2, id, 1 from lease_holders where replica = 'dead'`, u.who.Tenant, idOf(url))
	u.wantOffset(url, 40)
	if fences() == before {
		t.Error("the upload of a dead holder was read without its lease")
	}
}
