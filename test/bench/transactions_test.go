package main

import (
	"context"
	"testing"

	"github.com/tramo/tramo/test/stack"
)

// A photo costs no more Postgres transactions than its row in the benchmarks allows, on the server and on the worker, and
// neither does a HEAD.
func TestTransactionsOfAPhoto(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*enough)
	defer cancel()
	costs, err := shared.ledgers(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, sp := range spenders {
		got := costs[sp.name]
		t.Logf("%s: %v", sp.name, got.median)
		if got.median > float64(sp.most) {
			t.Errorf("%s: %v transactions; %d are enough", sp.name, got.median, sp.most)
		}
		if got.median < 1 {
			t.Errorf("%s: %v transactions; some were not counted", sp.name, got.median)
		}
		for kind, n := range got.kinds {
			t.Logf("%5.1fx %s", float64(n)/photosCounted, kind)
		}
	}
}

// A ledger counts transactions by what Postgres logs: however many statements they have, in the window in which they begin,
// and neither those of other roles, nor those that an idle process has too, nor those that only notify.
func TestLedger(t *testing.T) {
	t.Parallel()
	l := &ledger{by: map[string]*transaction{}}
	const log = `~postgres~9/1~0~LOG:  statement: select 'mark 1'
~app~3/1~0~LOG:  execute stmtcache_1: select due
	from jobs
~app~3/1~0~LOG:  duration: 0.1 ms
~postgres~9/2~0~LOG:  statement: select 'mark 2'
~app~4/1~0~LOG:  statement: begin
~app~4/1~0~LOG:  duration: 0.1 ms
~app~3/2~0~LOG:  execute stmtcache_1: select due
	from jobs
~app~3/2~7~LOG:  duration: 0.1 ms
~app~3/3~0~LOG:  execute stmtcache_1: select due
	from jobs
~app~3/3~0~LOG:  duration: 0.1 ms
~app~4/1~8~LOG:  execute <unnamed>: insert into uploads
~app~4/1~8~WARNING:  statement: select 1
~app~5/1~0~LOG:  statement: begin
~app~5/1~0~LOG:  execute s: select pg_notify('changes', p) from unnest($1::text[]) p
~app~5/1~0~LOG:  statement: commit
~other~6/1~0~LOG:  statement: select 1
~postgres~9/3~0~LOG:  statement: select 'mark 3'
~app~4/1~8~LOG:  statement: commit
~app~7/1~9~LOG:  statement: delete from uploads
a line of something else
~postgres~9/4~0~LOG:  statement: select 'mark 4'
`
	for _, part := range []string{log[:100], log[100:101], log[101:]} { // as a pipe delivers it
		if _, err := l.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	each, kinds := l.count("app", 1, 2, 4)
	stack.Want(t, each, []float64{2, 1}, "transactions of each window")
	stack.Want(t, kinds, map[string]int{"select due from jobs": 1, "begin · insert into uploads · commit": 1, "delete from uploads": 1}, "kinds")
	stack.Want(t, l.begun("app", 1), 1, "transactions while idle")
}
