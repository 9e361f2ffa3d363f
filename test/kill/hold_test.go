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
func (inst *installation) holdable() {
	inst.t.Helper()
	conn, err := pgx.Connect(stack.Context(inst.t), inst.Postgres.URL("postgres", inst.Database))
	inst.must(err)
	defer conn.Close(stack.Context(inst.t))
	_, err = conn.Exec(stack.Context(inst.t), `
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
	inst.must(err)
}

// A hold makes each worker that reaches its place wait.
type hold struct {
	inst     *installation
	place    string
	conn     *pgx.Conn // has the lock
	children []int     // that stand still
}

// hold makes workers wait at the place.
func (inst *installation) hold(place string) *hold {
	inst.t.Helper()
	h := &hold{inst: inst, place: place}
	switch place {
	case atScan:
		inst.s3.Reset()
		inst.must(syscall.Kill(inst.Clamd.Pid(), syscall.SIGSTOP))
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
	h.inst.t.Helper()
	var err error
	h.conn, err = pgx.Connect(stack.Context(h.inst.t), h.inst.Postgres.URL("postgres", h.inst.Database))
	h.inst.must(err)
	_, err = h.conn.Exec(stack.Context(h.inst.t), `select pg_advisory_lock(hashtext($1))`, place)
	h.inst.must(err)
}

func (h *hold) unlock() {
	if h.conn != nil {
		h.conn.Close(stack.Context(h.inst.t)) // Postgres may have closed it already
		h.conn = nil
	}
}

// reached waits until a worker stands there with the upload and returns which. If a child was too quick to be held, there is
// none.
func (h *hold) reached(id string) *worker {
	h.inst.t.Helper()
	if h.place == atScan {
		h.inst.until("download that stands still", func() bool { return h.inst.s3.Bytes()["GetObject"] > 0 })
		return h.inst.workerOf(id)
	}
	h.inst.await(`select exists (select from pg_locks where locktype = 'advisory' and not granted
		and database = (select oid from pg_database where datname = current_database()))`)
	w := h.inst.workerOf(id)
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
	h.inst.await(`select coalesce((select $2 = any(done) from step_results where upload_id = $1::uuid), (`+over+`))`, id, before)
	if past, err := ask[bool](h.inst, over, id); len(h.children) == 0 || err == nil && past {
		h.release() // a child that was not there yet has been asked
		return nil
	}
	return w
}

// release lets everybody go on who still can.
func (h *hold) release() {
	h.unlock()
	if h.place == atScan {
		_ = syscall.Kill(h.inst.Clamd.Pid(), syscall.SIGCONT) // it may be dead
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
