package hooks_test

import (
	"testing"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
)

// The previous release knows labels and no batches: one photo failed and was sent again, one is on its way.
func (y *yard) unfiled(t *testing.T) planted {
	old, again, open := y.admit(t), y.admit(t), y.admit(t)
	y.exec(t, `update uploads set batch = 'lunes', client_id = case when id = $3 then 'b' else 'a' end,
		status = case id when $1 then 'failed' else status end, failure_reason = case id when $1 then 'unreadable' end
		where id in ($1, $2, $3)`, old, again, open)
	return planted{repaired: func(t *testing.T) {
		if n := y.count(t, `select count(distinct batch_id) from uploads where batch = 'lunes' having count(batch_id) = 3`); n != 1 {
			t.Errorf("they are in %d batches", n)
		}
		if n := y.count(t, `select count(*) from uploads where replaced_by = $1 and id = $2`, again, old); n != 1 {
			t.Error("what was sent again is not taken for what failed")
		}
		if n := y.count(t, `select count(*) from batches where client_id = 'lunes' and name = 'lunes' and completed_at is null`); n != 1 {
			t.Errorf("there are %d such batches", n)
		}
	}}
}

// A worker of the previous release ended the last upload of a batch.
func (y *yard) unsettled(t *testing.T) planted {
	id, _, _ := y.complete(t)
	batch := uuid.Must(uuid.NewV7())
	y.exec(t, `insert into batches (tenant_id, id, project, name, user_id) select tenant_id, $1, project, 'x', 'ana' from uploads where id = $2`, batch, id)
	y.exec(t, `update uploads set batch_id = $1 where id = $2`, batch, id)
	return planted{repaired: func(t *testing.T) {
		if n := y.count(t, `select count(*) from announcements where type = 'batch.completed' and batch_id = $1`, batch); n != 1 {
			t.Errorf("it was announced %d times", n)
		}
	}}
}

// Labels of long ago become batches that have ended when their last upload did, and nobody is told of them.
func TestOldLabelsAreNotAnnounced(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	id, _, _ := y.complete(t)
	y.exec(t, `update uploads set batch = 'mayo', created_at = '2026-05-04', updated_at = '2026-05-05' where id = $1`, id)
	y.reconcile(t)
	if n := y.count(t, `select count(*) from announcements where batch_id is not null`); n != 0 {
		t.Errorf("%d announcements", n)
	}
	var b storage.Batch
	must(t, y.API.InTenant(y.ctx, func(tx storage.Tx) (err error) {
		b, err = tx.FindBatch(y.ctx, uuid.Nil, y.upload(t, y.ctx, id).Project, "mayo")
		return err
	}))
	if b.State() != storage.BatchCompleted || b.CreatedAt.Month() != 5 || b.CompletedAt.Month() != 5 {
		t.Errorf("got %+v", b)
	}
}
