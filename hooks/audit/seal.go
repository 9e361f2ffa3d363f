// Package audit seals the entries of the audit log and verifies them. Each seal of a tenant has a digest of every entry in its
// range and the hash of the seal before: a hash chain (Schneier and Kelsey, Secure Audit Logs to Support Computer Forensics,
// ACM TISSEC 2(2), 1999). It does not write entries: [storage.Tx.Audit] does, in the transaction of the action.
package audit

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

// Config says how often workers seal.
type Config struct {
	Every time.Duration `name:"audit-seal-interval" help:"How often entries of the audit log that are older than 10 minutes are sealed. One worker at a time does it."`
}

// DefaultConfig is used where nothing is set.
func DefaultConfig() Config { return Config{Every: 5 * time.Minute} }

// Validate reports what is wrong with c.
func (c Config) Validate() error {
	if c.Every < time.Second {
		return fmt.Errorf("TRAMO_AUDIT_SEAL_INTERVAL: %s is less than 1s", c.Every)
	}
	return nil
}

const (
	// settled is how old an entry is when it is sealed. Postgres commits none that is older than nine minutes (trigger in_time),
	// so that no transaction can still add one before it.
	settled = "10 minutes"
	// sealEntries is how many entries a seal has at most.
	sealEntries = 5000
)

// An entry is a row of the audit log, as it is hashed. Detail is jsonb as Postgres writes it: keys in a fixed order, no
// duplicates.
type entry struct {
	Seq     int64     `db:"seq"`
	At      time.Time `db:"at"`
	Actor   *string   `db:"actor"`
	Role    *string   `db:"role"`
	Home    *string   `db:"home"`
	Action  *string   `db:"action"`
	Subject *string   `db:"subject"`
	Outcome *string   `db:"outcome"`
	Address *string   `db:"address"`
	Request *string   `db:"request_id"`
	Trace   *string   `db:"trace_id"`
	Detail  *string   `db:"detail"`
}

const selectEntries = `
	select seq, at, actor, role, home_tenant::text as home, action, subject, outcome, address, request_id, trace_id, detail::text as detail
	from audit where tenant_id = $1 and seq > $2 `

// A seal is a row of audit_seals.
type seal struct {
	Number   int64       `db:"number"`
	SealedAt time.Time   `db:"sealed_at"`
	Until    time.Time   `db:"until"`
	LastSeq  int64       `db:"last_seq"`
	Seqs     []int64     `db:"seqs"`
	Times    []time.Time `db:"times"`
	Digests  [][]byte    `db:"digests"`
	Previous []byte      `db:"previous"`
	Hash     []byte      `db:"hash"`
}

const selectSeals = `
	select number, sealed_at, until, last_seq, seqs, times, digests, previous, hash from audit_seals where tenant_id = $1 `

// The first byte keeps digests of entries and hashes of seals apart (as in RFC 6962, section 2.1).
const (
	entryPrefix = 0x00
	sealPrefix  = 0x01
)

// digest is SHA-256 over the tenant and each field: its length in 8 bytes, or 2^64-1 for null, and its text in UTF-8. Numbers
// are 8 bytes, times are microseconds since 1970; all are big-endian.
func (e entry) digest(owner uuid.UUID) []byte {
	b := append([]byte{entryPrefix}, owner[:]...)
	b = appendNumbers(b, e.Seq, e.At.UnixMicro())
	for _, field := range []*string{e.Actor, e.Role, e.Home, e.Action, e.Subject, e.Outcome, e.Address, e.Request, e.Trace, e.Detail} {
		if field == nil {
			b = appendNumbers(b, -1)
			continue
		}
		b = append(appendNumbers(b, int64(len(*field))), *field...)
	}
	sum := sha256.Sum256(b)
	return sum[:]
}

// sum is the hash of a seal: SHA-256 over the hash of the seal before, the tenant, and all that it says.
func (s seal) sum(owner uuid.UUID) []byte {
	b := append([]byte{sealPrefix}, s.Previous...)
	b = append(b, owner[:]...)
	b = appendNumbers(b, s.Number, s.SealedAt.UnixMicro(), s.Until.UnixMicro(), s.LastSeq, int64(len(s.Seqs)))
	for i := range s.Seqs {
		b = appendNumbers(b, s.Seqs[i], s.Times[i].UnixMicro())
		b = append(b, s.Digests[i]...)
	}
	sum := sha256.Sum256(b)
	return sum[:]
}

func appendNumbers(b []byte, ns ...int64) []byte {
	for _, n := range ns {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	return b
}

// A Sealer seals the audit logs of all tenants. Several may run at the same time, and each can be cut off anywhere: a seal is
// one transaction.
type Sealer struct {
	db     *storage.DB // as an operator
	sealed prometheus.Gauge

	settled string // an interval of Postgres
}

// NewSealer registers its metrics.
func NewSealer(db *storage.DB, reg prometheus.Registerer) *Sealer {
	return &Sealer{db: db, settled: settled, sealed: promauto.With(reg).NewGauge(prometheus.GaugeOpts{
		Name: "tramo_audit_sealed_timestamp_seconds",
		Help: "When this process last sealed all entries of the audit log that were due. Take the maximum over processes.",
	})}
}

// Seal seals all entries that are due.
func (s *Sealer) Seal(ctx context.Context) error {
	rows, err := s.db.Pool().Query(ctx, `
		select t.id from tenants t where exists (select from audit a
			where a.tenant_id = t.id and a.at < now() - $1::text::interval
			and a.seq > coalesce((select max(last_seq) from audit_seals s where s.tenant_id = t.id), 0))
		order by t.id`, s.settled)
	var ids []uuid.UUID
	if err == nil {
		ids, err = pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	}
	if err != nil {
		return fmt.Errorf("look for entries to seal: %w", err)
	}
	var errs []error
	for _, id := range ids {
		if err := s.sealTenant(ctx, id); err != nil {
			errs = append(errs, fmt.Errorf("seal the audit log of tenant %s: %w", id, err))
		}
	}
	if len(errs) == 0 {
		s.sealed.SetToCurrentTime()
	}
	return errors.Join(errs...)
}

func (s *Sealer) sealTenant(ctx context.Context, id uuid.UUID) error {
	ctx = tenant.With(ctx, tenant.Identity{Tenant: id, User: tenant.Worker, Role: tenant.Admin})
	for more := true; more; {
		err := s.db.InTenant(ctx, func(tx storage.Tx) (err error) {
			more, err = sealNext(ctx, tx, s.settled)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// sealNext adds one seal of entries that are older than the interval, if there are any, and reports whether there may be more. If another worker adds the same
// seal first, it adds none.
func sealNext(ctx context.Context, tx storage.Tx, settled string) (more bool, err error) {
	rows, err := tx.Query(ctx, selectSeals+`order by number desc limit 1`, tx.Tenant)
	last, err := storage.CollectOne[seal]("read the last seal", rows, err)
	if errors.Is(err, storage.ErrNotFound) {
		last, err = seal{Hash: make([]byte, sha256.Size)}, nil
	}
	if err != nil {
		return false, err
	}
	next := seal{Number: last.Number + 1, Previous: last.Hash}
	if err := tx.QueryRow(ctx, `select now(), now() - $1::text::interval`, settled).Scan(&next.SealedAt, &next.Until); err != nil {
		return false, fmt.Errorf("read the clock: %w", err)
	}
	// Numbers and times are given one after the other, so entries made at the same moment may stand the other way round: what
	// stands before an entry that is due is sealed with it.
	rows, err = tx.Query(ctx, selectEntries+`
		and seq <= (select max(seq) from audit where tenant_id = $1 and seq > $2 and at < $3) order by seq limit $4`,
		tx.Tenant, last.LastSeq, next.Until, sealEntries)
	entries, err := storage.Collect[entry]("read entries to seal", rows, err)
	if err != nil || len(entries) == 0 {
		return false, err
	}
	for _, e := range entries {
		next.Seqs, next.Times, next.Digests = append(next.Seqs, e.Seq), append(next.Times, e.At), append(next.Digests, e.digest(tx.Tenant))
	}
	next.LastSeq = entries[len(entries)-1].Seq
	if more = len(entries) == sealEntries; more {
		next.Until = last.Until // others that are due follow
		if last.Number == 0 {
			next.Until = time.Unix(0, 0)
		}
	}
	_, err = storage.Exec(ctx, tx, "add a seal", `
		insert into audit_seals (tenant_id, number, sealed_at, until, last_seq, seqs, times, digests, previous, hash)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) on conflict do nothing`,
		tx.Tenant, next.Number, next.SealedAt, next.Until, next.LastSeq, next.Seqs, next.Times, next.Digests, next.Previous, next.sum(tx.Tenant))
	return more, err
}
