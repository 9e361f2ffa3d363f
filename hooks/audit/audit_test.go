package audit_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/tramo/tramo/hooks/audit"
	"github.com/tramo/tramo/hooks/hookstest"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/storagetest"
	"github.com/tramo/tramo/test/stack"
)

func TestMain(m *testing.M) { hookstest.Main(m) }

// A log is the audit log of a tenant, of which each seal has all entries that are there.
type log struct{ *hookstest.Tenant }

// unguarded is for a statement of whoever owns the database: no trigger stands in the way.
const unguarded = `set session_replication_role = replica; `

// newLog has five entries under two seals.
func newLog(t *testing.T, s *hookstest.Tenant) log {
	t.Helper()
	l := log{s}
	for range 3 {
		l.append(t)
	}
	l.seal(t)
	for range 2 {
		l.append(t)
	}
	l.seal(t)
	return l
}

// append writes an entry as servers do.
func (l log) append(t *testing.T) {
	t.Helper()
	l.Must(t, l.Ctx, func(tx storage.Tx) error {
		return tx.Audit(l.Ctx, storage.Audit{Action: storage.AuditBatchRename, Subject: uuid.NewString(), Detail: map[string]any{"a": 1, "ü": "<x>"}})
	})
}

func sealer(db *storage.DB) *audit.Sealer {
	return audit.NewSealer(db, prometheus.NewRegistry())
}

func (l log) seal(t *testing.T) {
	t.Helper()
	s := sealer(l.Worker)
	s.SealAtOnce()
	stack.Must(t, s.Seal(t.Context()))
}

func (l log) verify(t *testing.T) audit.Result {
	t.Helper()
	r, err := audit.Verify(t.Context(), l.Worker, l.ID, time.Time{})
	stack.Must(t, err)
	return r
}

// want reports a log that has not so many entries under so many seals, and no fault.
func (l log) want(t *testing.T, entries, seals int64) audit.Result {
	t.Helper()
	r := l.verify(t)
	if r.Finding != nil || r.Entries != entries || r.Seals != seals {
		t.Errorf("%+v, finding %v; want %d entries, %d seals and no fault", r, r.Finding, entries, seals)
	}
	return r
}

// seqs are the numbers of the log's entries.
func (l log) seqs(t *testing.T) []int64 {
	t.Helper()
	return storagetest.Column[int64](t, l.Admin(t), `select seq from audit where tenant_id = $1 order by seq`, l.ID)
}

// Whoever owns the database changes the log in every way: the first entry, or seal, that is not as it was is named. Another
// tenant's log is not concerned.
func TestVerifyNamesWhatWasChanged(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		sql   string // with the tenant as $1, another as $2, and the numbers of the five entries as $3
		fault audit.Fault
		seal  int64
		entry int // 1 to 5, 6 for a new one; 0 for none
	}{
		"actor":            {`update audit set actor = 'ben' where seq = ($3::bigint[])[2]`, audit.EntryChanged, 1, 2},
		"time":             {`update audit set at = at + interval '1 microsecond' where seq = ($3::bigint[])[4]`, audit.EntryChanged, 2, 4},
		"detail":           {`update audit set detail = detail || '{"a": 2}' where seq = ($3::bigint[])[1]`, audit.EntryChanged, 1, 1},
		"null, not empty":  {`update audit set trace_id = '' where seq = ($3::bigint[])[3]`, audit.EntryChanged, 1, 3},
		"moved boundary":   {`update audit set actor = actor || left(role, 1), role = substr(role, 2) where seq = ($3::bigint[])[3]`, audit.EntryChanged, 1, 3},
		"first removed":    {`delete from audit where seq = ($3::bigint[])[1]`, audit.EntryRemoved, 1, 1},
		"middle removed":   {`delete from audit where seq = ($3::bigint[])[2]`, audit.EntryRemoved, 1, 2},
		"tail removed":     {`delete from audit where seq >= ($3::bigint[])[4]`, audit.EntryRemoved, 2, 4},
		"all removed":      {`delete from audit where tenant_id = $1`, audit.EntryRemoved, 1, 1},
		"given away":       {`update audit set tenant_id = $2 where seq = ($3::bigint[])[5]`, audit.EntryRemoved, 2, 5},
		"exchanged":        {`update audit set detail = '{"x": 1}', seq = default where seq = ($3::bigint[])[2]`, audit.EntryRemoved, 1, 2},
		"put in before":    {`insert into audit (tenant_id, seq, actor, role, action, outcome) overriding system value values ($1, -1, 'ana', 'x', 'x', 'done')`, audit.EntryInserted, 1, -1},
		"back-dated":       {`insert into audit (tenant_id, at, actor, role, action, outcome) values ($1, now() - interval '1 year', 'ana', 'x', 'x', 'done')`, audit.EntryBackdated, 3, 6},
		"seal changed":     {`update audit_seals set digests[1] = sha256('x') where number = 1`, audit.SealChanged, 1, 0},
		"seal's time":      {`update audit_seals set sealed_at = sealed_at - interval '1 day' where number = 2`, audit.SealChanged, 2, 0},
		"seal's hash":      {`update audit_seals set hash = sha256('x') where number = 2`, audit.SealChanged, 2, 0},
		"first seal gone":  {`delete from audit_seals where number = 1`, audit.SealRemoved, 1, 0},
		"seal in between":  {`update audit_seals set number = 3 where number = 2`, audit.SealRemoved, 2, 0},
		"seal of another":  {`update audit_seals s set hash = o.hash, digests = o.digests, seqs = o.seqs, times = o.times from audit_seals o where o.tenant_id = $2 and o.number = s.number`, audit.SealChanged, 1, 0},
		"seals exchanged":  {`update audit_seals set number = number + 10; update audit_seals set number = 13 - number`, audit.SealRemoved, 1, 0},
		"removed and less": {`with gone as (delete from audit where seq = ($3::bigint[])[2]) update audit_seals set seqs = array[seqs[1], seqs[3]], times = array[times[1], times[3]], digests = array[digests[1], digests[3]] where number = 1`, audit.SealChanged, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLog(t, hookstest.NewTenant(t))
			other := newLog(t, l.AddTenant(t))
			l.want(t, 5, 2)
			seqs := l.seqs(t)
			numbers := strings.Trim(strings.ReplaceAll(fmt.Sprint(seqs), " ", ","), "[]")
			l.Exec(t, unguarded+strings.NewReplacer("$1", "'"+l.ID.String()+"'", "$2", "'"+other.ID.String()+"'", "$3", "'{"+numbers+"}'").Replace(c.sql))
			f := l.verify(t).Finding
			if f == nil || f.Fault != c.fault || f.Seal != c.seal {
				t.Fatalf("found %+v, want %s in seal %d", f, c.fault, c.seal)
			}
			want := int64(0)
			switch {
			case c.entry == 6:
				want = l.seqs(t)[5]
			case c.entry > 0:
				want = seqs[c.entry-1]
			case c.entry < 0:
				want = -1
			}
			stack.Want(t, f.Seq, want, "entry that is named")
			// The next seal does not mend it.
			l.append(t)
			l.seal(t)
			if f := l.verify(t).Finding; f == nil || f.Fault != c.fault {
				t.Errorf("after the next seal found %+v, want %s", f, c.fault)
			}
		})
	}
}

// Who removes the last seals together with their entries, or makes all seals anew, leaves a log that is sound in itself. Only a
// hash that was kept elsewhere tells: it is the hash of no seal any more.
func TestExpectedHashTellsAnotherChain(t *testing.T) {
	t.Parallel()
	l := newLog(t, hookstest.NewTenant(t))
	kept := l.want(t, 5, 2)
	l.append(t)
	l.seal(t)
	longer := l.want(t, 6, 3)
	if longer.Head == kept.Head || longer.Hashes[1] != kept.Head {
		t.Errorf("the chain %v does not go on after %s", longer.Hashes, kept.Head)
	}
	l.Exec(t, unguarded+fmt.Sprintf(`
		delete from audit a using audit_seals s where s.number = 2 and a.seq = any (s.seqs) and s.tenant_id = '%s';
		delete from audit_seals where number >= 2`, l.ID))
	l.seal(t)
	shorter := l.want(t, 4, 2)
	for _, hash := range shorter.Hashes[1:] {
		if hash == kept.Head {
			t.Error("a chain without its end has the hash of before")
		}
	}
}

// Entries that the owner of the database removes after their time are told from others by when they were made.
func TestRemovedAfterItsTime(t *testing.T) {
	t.Parallel()
	l := newLog(t, hookstest.NewTenant(t))
	admin := l.Admin(t)
	head := l.want(t, 5, 2).Head
	var third time.Time
	seqs := l.seqs(t)
	stack.Must(t, admin.QueryRow(t.Context(), `select at from audit where seq = $1`, seqs[2]).Scan(&third))
	l.Exec(t, `delete from audit where at < $1`, third)
	r, err := audit.Verify(t.Context(), l.Worker, l.ID, third)
	stack.Must(t, err)
	if r.Finding != nil || r.Removed != 2 || r.Entries != 3 || r.Head != head {
		t.Errorf("%+v, finding %v", r, r.Finding)
	}
	l.Exec(t, `delete from audit where seq = $1`, seqs[2])
	r, err = audit.Verify(t.Context(), l.Worker, l.ID, third)
	stack.Must(t, err)
	if r.Finding == nil || r.Finding.Fault != audit.EntryRemoved || r.Finding.Seq != seqs[2] {
		t.Errorf("found %v, want the removal of entry %d", r.Finding, seqs[2])
	}
}

// Eight workers seal at the same time, and some are cut off: each entry is under one seal, and the chain has no gap.
func TestManySealAtOnce(t *testing.T) {
	t.Parallel()
	l := log{hookstest.NewTenant(t)}
	l.append(t)
	// More than two seals have.
	l.Exec(t, unguarded+`insert into audit (tenant_id, at, actor, role, action, outcome, detail)
		select tenant_id, at - interval '1 second' + n * interval '1 microsecond', actor, role, action, outcome, jsonb_build_object('n', n)
		from audit, generate_series(1, `+fmt.Sprint(2*audit.SealEntries)+`) n`)
	g, ctx := errgroup.WithContext(t.Context())
	for i := range 8 {
		s := sealer(l.Worker)
		s.SealAtOnce()
		g.Go(func() error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			if i%2 == 0 {
				time.AfterFunc(time.Duration(i)*20*time.Millisecond, cancel)
				_ = s.Seal(ctx) // however it ends
				return nil
			}
			return s.Seal(ctx)
		})
	}
	stack.Must(t, stack.Ended(t, "sealing", g.Wait))
	l.want(t, 2*audit.SealEntries+1, 3)
}

// A worker is killed between reading the last seal and committing the next one: the next worker makes it.
func TestKilledBetween(t *testing.T) {
	t.Parallel()
	l := newLog(t, hookstest.NewTenant(t))
	l.append(t)
	blocker, err := l.Admin(t).Begin(t.Context())
	stack.Must(t, err)
	_, err = blocker.Exec(t.Context(), `lock table audit_seals in share mode`)
	stack.Must(t, err)
	ctx, kill := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	s := sealer(l.Worker)
	s.SealAtOnce()
	go func() { ended <- s.Seal(ctx) }()
	l.UntilLocked(t, "the seal waits", "%insert into audit_seals%")
	kill()
	if err := stack.Receive(t, "end of the killed worker", ended); err == nil {
		t.Error("it has sealed")
	}
	stack.Must(t, blocker.Rollback(t.Context()))
	l.want(t, 5, 2)
	l.seal(t)
	l.want(t, 6, 3)
}

// Fresh entries are not sealed, for a transaction that has begun may still add one before them. One that has waited for too
// long, or that names an old time, cannot be committed any more.
func TestLateEntriesAreRefused(t *testing.T) {
	t.Parallel()
	l := newLog(t, hookstest.NewTenant(t))
	l.Must(t, l.Ctx, func(tx storage.Tx) error { return tx.Audit(l.Ctx, storage.Audit{Action: storage.AuditBatchRename}) })
	stack.Must(t, sealer(l.Worker).Seal(t.Context()))
	if r := l.want(t, 5, 2); r.Open != 1 || r.Oldest == nil {
		t.Errorf("%+v, want one that is not sealed", r)
	}
	owner := l.Admin(t)
	for _, values := range []string{`default, now() - interval '9 minutes'`, `1, now()`, fmt.Sprintf(`%d, now()`, l.seqs(t)[4])} {
		_, err := owner.Exec(t.Context(), `insert into audit (tenant_id, actor, role, action, outcome, seq, at) overriding system value
			values ($1, 'ana', 'admin', 'x', 'done', `+values+`)`, l.ID)
		if s := storagetest.SQLState(err); s != "55000" && s != "23505" {
			t.Errorf("an entry (%s): %v", values, err)
		}
	}
	l.want(t, 5, 2)
}

// A user's and a tenant's erasure leave the log and its seals as they are.
func TestSealsSurviveErasure(t *testing.T) {
	t.Parallel()
	l := newLog(t, hookstest.NewTenant(t))
	all, err := audit.Tenants(t.Context(), l.Worker)
	stack.Must(t, err)
	stack.Want(t, all, []uuid.UUID{l.ID}, "tenants with a log")
	l.Exec(t, `update tenants set erasing_at = now() where id = $1`, l.ID)
	l.Exec(t, `insert into erasures (tenant_id, id, kind, state, requested_by, approved_by, approved_at)
		values ($1, gen_random_uuid(), 'tenant', 'running', 'ana', 'ben', now())`, l.ID)
	stack.Must(t, l.Erase(t))
	l.WantCount(t, 1, `select count(*) from tenants where erased_at is not null`)
	r := l.verify(t)
	if r.Finding != nil || r.Seals != 2 {
		t.Errorf("%+v, finding %v", r, r.Finding)
	}
}
