package processing

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/test/stack"
)

// silentAbout is a way to S3 that never answers requests for an upload's original.
func silentAbout(t *testing.T, id uuid.UUID) (endpoint string) {
	t.Helper()
	target, err := url.Parse(stack.Get(t, ground.S3).Endpoint())
	stack.Must(t, err)
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.Host = r.In.Host }}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, id.String()) {
			select {
			case <-r.Context().Done():
			case <-t.Context().Done():
			}
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// Jobs that panic, that hang until their time is over, whose object is damaged and whose workers die stand before good ones,
// on as many workers as there are: each bad one is a dead letter in the end, each good one is completed.
func TestPoisonDoesNotBlockTheQueue(t *testing.T) {
	t.Parallel()
	p := newFixture(t)
	p.workers, p.conf.Timeout, p.conf.LostAfter = 2, 8*time.Second, 3*time.Second
	bad := map[string]uuid.UUID{}
	bad["killer"] = p.receive(t, note, note, 1)
	p.leaveBehind(t, queue.MaxAttempts)
	bad["panics"] = p.receive(t, note, note, 1)
	p.Exec(t, `update uploads set object_key = null where id = $1`, bad["panics"])
	bad["damaged"] = p.receive(t, smallPhoto(), damaged(), 1)
	bad["hangs"] = p.receive(t, note, note, 1)
	var good []uuid.UUID
	for range 6 {
		good = append(good, p.receive(t, note, note, 1))
	}
	good = append(good, p.receive(t, smallPhoto(), smallPhoto(), 1))
	p.startPeer(t, silentAbout(t, bad["hangs"]))
	for _, id := range good {
		p.await(t, `select status = 'completed' from uploads where id = $1`, id)
	}
	for name, id := range bad {
		p.await(t, `select status = 'failed' and failure_reason = 'dead_lettered' from uploads where id = $1 -- what `+name, id)
		p.await(t, `select bool_and(state = 'discarded') from river_job where args->>'upload_id' = $1`, id)
		p.WantCount(t, queue.MaxAttempts, `select attempt from river_job where args->>'upload_id' = $1`, id)
	}
}

// The last thing fails after all steps: what is tried again downloads the file once more for the facts, and neither scans
// nor draws nor stores again. When S3 fails at that too, nothing is lost.
func TestRetryRepeatsOnlyWhatFailed(t *testing.T) {
	t.Parallel()
	p := newFixture(t)
	p.conf.RetryDelay = time.Second // in which the test mends things
	s3 := p.proxied(t)
	s3.Fault(func(kind string, n int) stack.Fault {
		if kind == "GetObject" && n > 1 && n < 6 {
			return stack.Fault{Status: http.StatusServiceUnavailable}
		}
		return stack.Fault{}
	})
	p.Exec(t, `alter table uploads add constraint never check (status <> 'completed')`)
	id := p.receive(t, smallPhoto(), smallPhoto(), 1)
	p.run(t)
	p.await(t, `select exists (select from timeline where event = 'retry' and detail->>'reason' = 'record_failed')`)
	p.await(t, `select done = '{scan,type,thumbnails}' from step_results`)
	p.Exec(t, `alter table uploads drop constraint never`)
	p.await(t, allJobs, "completed")
	p.want(t, id, storage.Completed, "", len(thumbnailSizes), 1)
	p.job(t, 2, 1)
	for step, want := range map[string]int{"scan": 1, "type": 1, "thumbnails": 1} {
		p.wantMetric(t, stepTimes, step, want)
		p.WantCount(t, want, `select count(*) from timeline where event = $1`, step)
	}
	stack.Want(t, s3.Counts()["PutObject"], len(thumbnailSizes), "number of thumbnails that were stored")
	if n := s3.Counts()["GetObject"]; n < 6 {
		t.Errorf("S3 was asked %d times for the object; it should have failed 4 times and then answered", n)
	}
	p.WantCount(t, 0, `select count(*) from step_results`)
	p.WantCount(t, 320, `select width_px from uploads where id = $1 and detected_type = 'image/jpeg'`, id)
}
