package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tramo/tramo/test/stack"
)

// A stall is a PATCH whose client has gone silent in the middle; its connection stays.
type stall struct {
	t      *testing.T
	client *io.PipeWriter
	ended  chan answer // the zero answer when there was none
}

// stall sends data at an offset and then nothing.
func (u user) stall(url string, offset int, data []byte) *stall {
	body, client := io.Pipe()
	s := &stall{t: u.t, client: client, ended: make(chan answer, 1)}
	u.t.Cleanup(s.hangUp)
	go func() {
		a, _ := u.try(context.WithoutCancel(u.t.Context()), "PATCH", url, body, "Upload-Offset", fmt.Sprint(offset), "Content-Type", octets)
		s.ended <- a
	}()
	s.send(data)
	return s
}

// send sends more. A server that has answered already does not read it.
func (s *stall) send(data []byte) { _, _ = s.client.Write(data) }

func (s *stall) hangUp() { s.client.CloseWithError(io.ErrUnexpectedEOF) }

// answer waits for the answer.
func (s *stall) answer() answer {
	s.t.Helper()
	return stack.Receive(s.t, "answer to the stalled PATCH", s.ended)
}

// finish sends the rest and returns the answer.
func (s *stall) finish(data []byte) answer {
	s.send(data)
	s.client.Close()
	return s.answer()
}

func count(t *testing.T, conn *pgx.Conn, sql string) (n int) {
	t.Helper()
	stack.Must(t, conn.QueryRow(stack.Context(t), sql).Scan(&n))
	return n
}

// at is the same upload's address on another replica.
func (r replica) at(url string) string { return r.URL + "/api/uploads/" + idOf(url) }

func wokenBy(how string) string { return fmt.Sprintf("tramo_lease_wait_seconds_count{woken=%q}", how) }

// checkOriginal makes sure that S3 has exactly one original of the upload: what was sent.
func checkOriginal(t *testing.T, id string, sent []byte) {
	t.Helper()
	files := slices.DeleteFunc(objectsOf(t, id), func(path string) bool {
		return !strings.HasPrefix(filepath.Base(path), "original-")
	})
	if len(files) != 1 || !bytes.Equal(read(t, files[0]), sent) {
		t.Errorf("upload %s: %d originals, or not what was sent", id, len(files))
	}
}

// A thousand clients that have gone silent in the middle of a PATCH are held by one server: Postgres has a row for
// each and, once the rush is over, at most nine connections for all. A photo passes them by.
func TestLeasesNeedNineConnections(t *testing.T) {
	t.Parallel()
	in := install(t, stack.Installation{})
	r := in.serves(t)
	u := in.user(t)
	const held = 1000
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range held / 8 {
				a, err := u.try(t.Context(), "POST", r.URL+"/api/uploads", nil, "Upload-Length", "100")
				if err != nil || a.status != http.StatusCreated {
					t.Errorf("create: %d %v", a.status, err)
					return
				}
				u.stall(a.header.Get("Location"), 0, []byte("x"))
			}
		})
	}
	stack.Wait(t, "end of the creations", &all)
	r.awaitMetric(t, "tramo_leases_held", held)
	conn := in.admin(t)
	stack.Until(t, "nine connections", func() bool {
		n := count(t, conn, `select count(*) from pg_stat_activity where datname = current_database() and usename = 'tramo_api'`)
		return n <= 9
	})
	photo := noise(3_000_000)
	if up := u.get(u.send(r, photo)); up.Status != "uploaded" || up.SHA256 != sumOf(photo) {
		t.Errorf("beside the silent, a photo is %+v", up)
	}
	stack.Want(t, count(t, conn, `select count(*) from upload_leases`), held, "rows of held uploads")
	stack.Want(t, r.metric(t, "tramo_leases_held"), held, "held leases")
}

// A hundred times, one after the other, a PATCH hangs half-open on one replica and its client asks the other: the
// holder releases the lease and notifies the other. A re-check may come first by chance, now and then.
func TestLeaseHandOver(t *testing.T) {
	t.Parallel()
	in := install(t, stack.Installation{})
	first, second := in.serves(t), in.serves(t)
	u := in.user(t)
	const times, sent = 100, 1000
	var took []time.Duration
	for i := range times {
		url := u.create(first, 2*sent)
		hanging := u.stall(url, 0, make([]byte, sent))
		first.awaitMetric(t, "tramo_upload_received_bytes_total", float64((i+1)*sent))
		began := time.Now()
		u.wantOffset(second.at(url), sent)
		took = append(took, time.Since(began))
		hanging.hangUp()
		if a := hanging.answer(); a.status != 0 && a.status != http.StatusLocked {
			t.Errorf("the request that hung was answered %d %s", a.status, a.body)
		}
	}
	slices.Sort(took)
	t.Logf("hand-over: p50 %s, p99 %s", took[times/2], took[times*99/100])
	if n := second.metric(t, wokenBy("notified")); n < times*3/4 {
		t.Errorf("%v of %d hand-overs were notified, %v found by asking again", n, times, second.metric(t, wokenBy("rechecked")))
	}
}

// Kill -9 a holder: another replica has the lease as soon as it asks again after the holder's time to live, and not
// before, by the database's clock.
func TestLeaseOfAKilledServer(t *testing.T) {
	t.Parallel()
	in := install(t, stack.Installation{})
	conn := in.admin(t)
	_, err := conn.Exec(stack.Context(t), `
		create table taken (at timestamptz, expired timestamptz);
		create function note() returns trigger language plpgsql security definer as $$ begin
			insert into taken select clock_timestamp(), expires_at from lease_holders where id = old.holder_id;
			return null;
		end $$;
		create trigger note after update on upload_leases for each row
			when (old.holder_id <> new.holder_id) execute function note()`)
	stack.Must(t, err)
	const ttl = 2 * time.Second
	first, second := in.serves(t, "TRAMO_LEASE_TTL="+ttl.String()), in.serves(t)
	u := in.user(t)
	url := u.create(first, 2000)
	u.stall(url, 0, make([]byte, 1000))
	first.awaitMetric(t, "tramo_leases_held", 1)
	first.Kill()
	var killed, at, expired time.Time
	stack.Must(t, conn.QueryRow(stack.Context(t), `select clock_timestamp()`).Scan(&killed))
	u.offset(second.at(url))
	stack.Must(t, conn.QueryRow(stack.Context(t), `select at, expired from taken`).Scan(&at, &expired))
	t.Logf("killed; expired %s later; taken over %s after that", expired.Sub(killed), at.Sub(expired))
	if at.Before(expired) {
		t.Errorf("taken over %s too early", expired.Sub(at))
	}
	if expired.Sub(killed) > ttl {
		t.Errorf("the lease outlived its holder by %s", expired.Sub(killed))
	}
	stack.Want(t, second.metric(t, wokenBy("rechecked")), 1, "leases that were had by asking again")
}

// Freeze a holder for longer than its time to live, and let it go on: another replica has taken over and written,
// what the frozen one still wants to write is refused, its request ends, and the object's bytes are right.
func TestLeaseOfAFrozenServer(t *testing.T) {
	t.Parallel()
	in := install(t, stack.Installation{})
	first, second := in.serves(t, "TRAMO_LEASE_TTL=2s"), in.serves(t)
	u := in.user(t)
	photo := bytes.Repeat([]byte("what is in it does not matter. "), 50_000)
	url := u.create(first, len(photo))
	const sent, more = 600_000, 100_000
	frozen := u.stall(url, 0, photo[:sent])
	first.awaitMetric(t, "tramo_upload_received_bytes_total", sent)
	stack.Must(t, first.Signal(syscall.SIGSTOP))

	other := second.at(url)
	begin := u.offset(other) // once the time to live is over
	u.patch(other, begin, photo[begin:begin+more]).want(t, http.StatusNoContent, "")
	stack.Must(t, first.Signal(syscall.SIGCONT))
	if a := frozen.answer(); a.status != 0 && a.status != http.StatusLocked {
		t.Errorf("the frozen request was answered %d %s", a.status, a.body)
	}
	first.awaitMetric(t, "tramo_leases_lost_total", 1)
	u.wantOffset(other, begin+more) // the frozen server has not moved it
	u.patch(other, begin+more, photo[begin+more:]).want(t, http.StatusNoContent, "")
	checkOriginal(t, idOf(url), photo)
}

// Restart Postgres while fifty uploads are held: no lease is lost, half of the requests go on as if nothing had
// been, and the other half of the uploads is handed over to another replica.
func TestLeasesOfHeldUploadsOutlivePostgres(t *testing.T) {
	t.Parallel()
	in := install(t, stack.Installation{Postgres: ownPostgres(t)})
	config := []string{"TRAMO_LEASE_TTL=30s", "TRAMO_CHECKPOINT_INTERVAL=1h"} // no bytes are saved while Postgres is away
	first, second := in.serves(t, config...), in.serves(t, config...)
	u := in.user(t)
	const held, sent = 50, 1000
	data := []byte(strings.Repeat("0123456789", 2*sent/10))
	urls, stalls := make([]string, held), make([]*stall, held)
	for i := range urls {
		urls[i] = u.create(first, len(data))
		stalls[i] = u.stall(urls[i], 0, data[:sent])
	}
	first.awaitMetric(t, "tramo_upload_received_bytes_total", held*sent)
	stack.Must(t, in.Postgres.Restart(t.Context()))

	for i, url := range urls {
		if i%2 == 0 {
			stalls[i].finish(data[sent:]).want(t, http.StatusNoContent, "")
		} else {
			u.wantOffset(second.at(url), sent)
			u.patch(second.at(url), sent, data[sent:]).want(t, http.StatusNoContent, "")
		}
		checkOriginal(t, idOf(url), data)
	}
	for _, r := range []replica{first, second} {
		stack.Want(t, r.metric(t, "tramo_leases_lost_total"), 0, "lost leases")
	}
}

// Another tenant asks for an upload that is held, by every method and on every replica: it is not found, and the
// holder's PATCH is not disturbed: it ends by itself, with all its bytes.
func TestLeaseIgnoresOtherTenants(t *testing.T) {
	t.Parallel()
	u, stranger := newUser(t), newUser(t)
	data := []byte(strings.Repeat("0123456789", 200))
	r := tramo.serves(t)
	url := u.create(r, len(data))
	held := u.stall(url, 0, data[:1000])
	r.awaitMetric(t, "tramo_upload_received_bytes_total", 1000)
	for range 5 {
		for _, at := range []string{url, tramo.replicas[0].at(url)} {
			for _, method := range []string{"HEAD", "PATCH", "DELETE"} {
				stranger.do(method, at, strings.NewReader("x"), "Upload-Offset", "1000", "Content-Type", octets).want(t, http.StatusNotFound, "")
			}
		}
	}
	if a := held.finish(data[1000:]); a.status != http.StatusNoContent || a.header.Get("Upload-Offset") != fmt.Sprint(len(data)) {
		t.Errorf("the holder's PATCH was answered %d %v %s", a.status, a.header, a.body)
	}
	checkOriginal(t, idOf(url), data)
}
