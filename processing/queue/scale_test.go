package queue

import (
	"os"
	"regexp"
	"testing"

	"github.com/tramo/tramo/test/stack"
)

var scalerQuery = regexp.MustCompile(`query: >-\n((?:.*\n)+?) *targetQueryValue:`)

// The query by which the chart lets KEDA scale workers counts what they have to do: jobs that wait, run or failed, and not
// those that have ended, nor other work.
func TestChartCountsTheQueue(t *testing.T) {
	t.Parallel()
	template, err := os.ReadFile("../../deploy/helm/tramo/templates/autoscaling.yaml")
	stack.Must(t, err)
	found := scalerQuery.FindSubmatch(template)
	if found == nil {
		t.Fatal("the chart has no query")
	}
	p := newFixture(t)
	count := func() (n int) {
		t.Helper()
		stack.Must(t, p.Worker.Pool().QueryRow(t.Context(), string(found[1])).Scan(&n))
		return n
	}
	stack.Want(t, count(), 0, "without jobs")
	p.arrive(t, p.ctx, 5)
	stack.Want(t, count(), 5, "with jobs that wait")
	for _, state := range []string{"running", "retryable"} {
		p.Exec(t, `update river_job set state = $1 where id = (select id from river_job where state = 'available' limit 1)`, state)
	}
	stack.Want(t, count(), 5, "with one that runs and one that failed")
	p.Exec(t, `update river_job set state = 'completed', finalized_at = now() where id = (select id from river_job where state = 'available' limit 1)`)
	p.Exec(t, `update river_job set kind = 'reconcile' where id = (select id from river_job where state = 'available' limit 1)`)
	stack.Want(t, count(), 3, "when one has ended, and one is the reconciler's")
}
