package kill

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"

	"github.com/tramo/tramo/test/stack"
)

// The places at which a worker can be made to stand still.
const (
	atScan       = "scan"       // in the middle of the download: clamd does not take any more
	atType       = "type"       // the type is known and about to be kept
	atThumbnails = "thumbnails" // the child stands still, before it has drawn
	atFacts      = "facts"      // the child stands still, before it has read
	atSettle     = "settle"     // all is done and about to be recorded
)

// holdable makes each worker wait, in the transaction that keeps a step or records the end, for an advisory lock of that
// place's name.
func (y *yard) holdable() {
	y.t.Helper()
	conn, err := pgx.Connect(stack.Context(y.t), y.Postgres.URL("postgres", y.Database))
	y.must(err)
	defer conn.Close(stack.Context(y.t))
	_, err = conn.Exec(stack.Context(y.t), `
		create function hold() returns trigger language plpgsql as $$
		declare place text := 'settle';
		begin
			if tg_table_name = 'step_results' then place := new.done[cardinality(new.done)]; end if;
			perform pg_advisory_xact_lock_shared(hashtext(place));
			return new;
		end $$;
		create trigger hold before insert or update on step_results for each row execute function hold();
		create trigger hold before update on uploads for each row
			when (new.status = 'completed' and old.status <> 'completed') execute function hold();`)
	y.must(err)
}

// A hold makes whoever comes to its place stand still.
type hold struct {
	y        *yard
	place    string
	conn     *pgx.Conn // has the lock
	children []int     // that stand still
}

// hold prepares one.
func (y *yard) hold(place string) *hold {
	y.t.Helper()
	h := &hold{y: y, place: place}
	switch place {
	case atScan:
		y.s3.Reset()
		y.must(syscall.Kill(y.Clamd.Pid(), syscall.SIGSTOP))
	case atThumbnails:
		h.lock(atType) // from where on the child is watched for
	case atFacts:
		h.lock(atThumbnails)
	default:
		h.lock(place)
	}
	return h
}

func (h *hold) lock(place string) {
	h.y.t.Helper()
	var err error
	h.conn, err = pgx.Connect(stack.Context(h.y.t), h.y.Postgres.URL("postgres", h.y.Database))
	h.y.must(err)
	_, err = h.conn.Exec(stack.Context(h.y.t), `select pg_advisory_lock(hashtext($1))`, place)
	h.y.must(err)
}

func (h *hold) unlock() {
	if h.conn != nil {
		h.conn.Close(stack.Context(h.y.t)) // which Postgres may have been before us in
		h.conn = nil
	}
}

// reached waits until a worker stands there with the upload and returns which. If a child was too quick to be held, there is
// none.
func (h *hold) reached(id string) *worker {
	h.y.t.Helper()
	if h.place == atScan {
		h.y.until("download that stands still", func() bool { return h.y.s3.Bytes()["GetObject"] > 0 })
		return h.y.workerOf(id)
	}
	h.y.await(`select exists (select from pg_locks where locktype = 'advisory' and not granted
		and database = (select oid from pg_database where datname = current_database()))`)
	w := h.y.workerOf(id)
	if h.place != atThumbnails && h.place != atFacts {
		return w
	}
	// Children are kept: those that there are stand still before they are asked.
	for _, pid := range children(w.process.Pid()) {
		if syscall.Kill(pid, syscall.SIGSTOP) == nil {
			h.children = append(h.children, pid)
		}
	}
	h.unlock()
	before := map[string]string{atThumbnails: atType, atFacts: atThumbnails}[h.place]
	over := `select status = 'completed' from uploads where id = $1::uuid`
	h.y.await(`select coalesce((select $2 = any(done) from step_results where upload_id = $1::uuid), (`+over+`))`, id, before)
	if past, err := ask[bool](h.y, over, id); len(h.children) == 0 || err == nil && past {
		h.release() // a child that was not there yet has been asked
		return nil
	}
	return w
}

// release lets everybody go on who still can.
func (h *hold) release() {
	h.unlock()
	if h.place == atScan {
		_ = syscall.Kill(h.y.Clamd.Pid(), syscall.SIGCONT) // it may be dead
	}
	for _, pid := range h.children {
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
}

// children are the processes that a worker has started to decode (proc(5), /proc/pid/task/tid/children).
func children(worker int) (pids []int) {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", worker)) // the pattern is well formed
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended
		}
		for _, field := range strings.Fields(string(text)) {
			pid, err := strconv.Atoi(field)
			if err == nil && decodes(pid) {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// decodes reports whether a process is past its exec: the parent's own copy must not be stopped.
func decodes(pid int) bool {
	args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && bytes.Contains(args, []byte("\x00examine\x00"))
}

// alive reports whether a process runs, or stands still.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}
