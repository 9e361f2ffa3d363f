package audit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

// A Fault is how an audit log differs from its seals.
type Fault string

// The faults.
const (
	EntryChanged   Fault = "entry_changed"
	EntryRemoved   Fault = "entry_removed"
	EntryInserted  Fault = "entry_inserted" // among entries that were sealed without it
	EntryBackdated Fault = "entry_backdated"
	SealChanged    Fault = "seal_changed"
	SealRemoved    Fault = "seal_removed" // or others stand in its place: the next one does not follow
)

// A Finding is the first fault of a tenant's log.
type Finding struct {
	Fault Fault      `json:"fault"`
	Seal  int64      `json:"seal"`          // its number
	Seq   int64      `json:"seq,omitempty"` // of the entry; 0 if the seal itself is at fault
	At    *time.Time `json:"at,omitempty"`  // when the entry was made; of a changed one, as it was sealed
}

// String says it to a person.
func (f Finding) String() string {
	switch f.Fault {
	case SealChanged:
		return fmt.Sprintf("seal %d was changed", f.Seal)
	case SealRemoved:
		return fmt.Sprintf("seal %d was removed, or others were put in its place", f.Seal)
	}
	what := map[Fault]string{
		EntryChanged: "was changed", EntryRemoved: "was removed", EntryInserted: "was put in", EntryBackdated: "was put in later, with an older time",
	}[f.Fault]
	return fmt.Sprintf("entry %d, made at %s, %s", f.Seq, f.At.Format(time.RFC3339Nano), what)
}

// A Result is what verifying one tenant's log found.
type Result struct {
	Tenant  uuid.UUID  `json:"tenant_id"`
	Seals   int64      `json:"seals"`
	Entries int64      `json:"entries"`           // that are sealed and as they were
	Removed int64      `json:"removed"`           // that are sealed and gone, and were made before the time given
	Open    int64      `json:"unsealed"`          // that no seal has yet: nothing is known of these
	Oldest  *time.Time `json:"unsealed_since"`    // when the first of them was made
	Head    string     `json:"head"`              // the hash of the last seal, in hexadecimal; "" without seals
	Finding *Finding   `json:"finding,omitempty"` // the first fault; nil if there is none
	Hashes  []string   `json:"-"`                 // of all seals
}

// Tenants returns those that have an audit log or seals, erased ones too. It needs an operator's role.
func Tenants(ctx context.Context, db *storage.DB) ([]uuid.UUID, error) {
	rows, err := db.Pool().Query(ctx, `select tenant_id from audit union select tenant_id from audit_seals order by 1`)
	if err != nil {
		return nil, fmt.Errorf("list audit logs: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
}

// Verify recomputes the seals of a tenant's audit log from its entries, up to the first fault. Entries made before removedBefore
// may be missing: their digests are in the seals. It needs an operator's role.
func Verify(ctx context.Context, db *storage.DB, id uuid.UUID, removedBefore time.Time) (Result, error) {
	ctx = tenant.With(ctx, tenant.Identity{Tenant: id, User: tenant.Operator, Role: tenant.Admin})
	v := verifier{Result: Result{Tenant: id}, removedBefore: removedBefore, last: seal{Hash: make([]byte, sha256.Size)}}
	for more := true; more && v.Finding == nil; {
		err := db.InTenant(ctx, func(tx storage.Tx) (err error) {
			more, err = v.next(ctx, tx)
			return err
		})
		if err != nil {
			return v.Result, fmt.Errorf("verify the audit log of tenant %s: %w", id, err)
		}
	}
	return v.Result, nil
}

type verifier struct {
	Result
	removedBefore time.Time
	last          seal // the one before
}

// next verifies one seal, or, behind the last, counts what is not sealed and returns false.
func (v *verifier) next(ctx context.Context, tx storage.Tx) (more bool, err error) {
	rows, err := tx.Query(ctx, selectSeals+`and number > $2 order by number limit 1`, tx.Tenant, v.last.Number)
	s, err := storage.CollectOne[seal]("read seal", rows, err)
	if errors.Is(err, storage.ErrNotFound) {
		return false, v.unsealed(ctx, tx)
	}
	if err != nil {
		return false, err
	}
	switch {
	case s.Number != v.last.Number+1, !bytes.Equal(s.Previous, v.last.Hash):
		v.Finding = &Finding{Fault: SealRemoved, Seal: v.last.Number + 1}
	case !bytes.Equal(s.Hash, s.sum(tx.Tenant)), !slices.IsSorted(s.Seqs), s.Seqs[len(s.Seqs)-1] != s.LastSeq, s.Seqs[0] <= v.last.LastSeq && v.last.Number > 0:
		v.Finding = &Finding{Fault: SealChanged, Seal: s.Number}
	}
	if v.Finding != nil {
		return false, nil
	}
	if err := v.entries(ctx, tx, s); err != nil {
		return false, err
	}
	v.last = s
	v.Seals++
	v.Head = hex.EncodeToString(s.Hash)
	v.Hashes = append(v.Hashes, v.Head)
	return true, nil
}

// entries compares the entries in the range of a seal with their digests.
func (v *verifier) entries(ctx context.Context, tx storage.Tx, s seal) error {
	rows, err := tx.Query(ctx, selectEntries+`and seq <= $3 order by seq`, tx.Tenant, v.from(), s.LastSeq)
	there, err := storage.Collect[entry]("read sealed entries", rows, err)
	if err != nil {
		return err
	}
	for i, seq := range s.Seqs {
		at := s.Times[i].UTC()
		if len(there) > 0 && there[0].Seq < seq {
			break // one that was put in before it
		}
		switch {
		case len(there) == 0 || there[0].Seq > seq:
			if !at.Before(v.removedBefore) {
				v.Finding = &Finding{EntryRemoved, s.Number, seq, &at}
				return nil
			}
			v.Removed++
			continue
		case !bytes.Equal(there[0].digest(tx.Tenant), s.Digests[i]):
			v.Finding = &Finding{EntryChanged, s.Number, seq, &at}
			return nil
		case at.Before(v.last.Until):
			v.Finding = &Finding{EntryBackdated, s.Number, seq, &at}
			return nil
		}
		there = there[1:]
		v.Entries++
	}
	if len(there) > 0 {
		at := there[0].At.UTC()
		v.Finding = &Finding{EntryInserted, s.Number, there[0].Seq, &at}
	}
	return nil
}

// unsealed counts the entries behind the last seal. One that is older than what was sealed was put in.
func (v *verifier) unsealed(ctx context.Context, tx storage.Tx) error {
	var seq *int64
	err := tx.QueryRow(ctx, `select count(*), min(at), (array_agg(seq order by at, seq))[1] from audit where tenant_id = $1 and seq > $2`,
		tx.Tenant, v.from()).Scan(&v.Open, &v.Oldest, &seq)
	if err != nil {
		return fmt.Errorf("count entries that are not sealed: %w", err)
	}
	if v.Oldest != nil && v.Oldest.Before(v.last.Until) {
		v.Finding = &Finding{EntryBackdated, v.last.Number + 1, *seq, v.Oldest}
	}
	return nil
}

// from is the number behind which the entries of the next seal stand.
func (v *verifier) from() int64 {
	if v.last.Number == 0 {
		return -1 << 63
	}
	return v.last.LastSeq
}
