package processing

import (
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/tramo/tramo/processing/deadletter"
	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

// letter returns the one dead letter of an upload's that was not retried.
func (p *fixture) letter(t *testing.T, id uuid.UUID) (d deadletter.Letter) {
	t.Helper()
	all, err := deadletter.ListAll(t.Context(), p.Worker, uuid.Nil, deadletter.Page{Limit: 10, State: deadletter.Open})
	stack.Must(t, err)
	if len(all) != 1 || all[0].Upload != id {
		t.Fatalf("the open letters are %+v", all)
	}
	return all[0]
}

// wantLetter checks what a letter says.
func (p *fixture) wantLetter(t *testing.T, id uuid.UUID, step, cause string) deadletter.Letter {
	t.Helper()
	d := p.letter(t, id)
	job := p.Count(t, `select id from river_job`)
	if d.Step != step || !strings.Contains(d.Error, cause) || d.Attempts != queue.MaxAttempts || d.Kind != string(queue.ProcessUpload) || d.Job != int64(job) {
		t.Errorf("got %+v, want one of %s: %s", d, step, cause)
	}
	return d
}

// retry does what an admin does.
func (p *fixture) retry(t *testing.T, id uuid.UUID) {
	t.Helper()
	p.Must(t, p.ctx, func(tx storage.Tx) error {
		if _, err := storage.LockFailedUpload(p.ctx, tx, id); err != nil {
			return err
		}
		if _, err := tx.Retry(p.ctx, []uuid.UUID{id}); err != nil {
			return err
		}
		if err := deadletter.MarkRetried(p.ctx, tx, id); err != nil {
			return err
		}
		return p.queue.Enqueue(p.ctx, tx, id)
	})
}

// An error, each time: the letter has the last one, the step and the trace of the request that sent the file.
func TestLetterOfAnError(t *testing.T) {
	t.Parallel()
	p := newFixture(t)
	request := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{9, 8, 7}, SpanID: trace.SpanID{6}})
	p.ctx = trace.ContextWithRemoteSpanContext(p.ctx, request)
	id := p.receive(t, smallPhoto(), damaged(), 1)
	p.run(t)
	p.await(t, allJobs, "discarded")
	d := p.wantLetter(t, id, "scan", "SHA-256")
	if d.TraceID == nil || *d.TraceID != request.TraceID().String() {
		t.Errorf("the letter is in the trace %v", d.TraceID)
	}
	for _, e := range p.timeline(t, id) {
		for _, v := range e.Detail {
			if s, ok := v.(string); ok && strings.Contains(s, "SHA-256") {
				t.Errorf("the tenant reads %q", s)
			}
		}
	}
}

// A panic, each time: the letter has it with its stack, and the step that no attempt could keep. Retried, once what was wrong
// is mended, the upload goes on from there.
func TestLetterOfAPanic(t *testing.T) {
	t.Parallel()
	p := newFixture(t)
	examiner := p.pipeline.Examiner
	p.pipeline.Examiner = nil
	id := p.receive(t, smallPhoto(), smallPhoto(), 1)
	stop := p.run(t)
	p.await(t, allJobs, "discarded")
	stop()
	d := p.wantLetter(t, id, "thumbnails", "nil pointer")
	if !strings.Contains(d.Error, "step_thumbnails.go") {
		t.Errorf("the letter has no stack: %s", d.Error)
	}
	scans := p.metric(t, stepTimes, "scan")

	p.pipeline.Examiner = examiner
	p.retry(t, id)
	p.run(t)
	p.await(t, `select status = 'completed' from uploads where id = $1`, id)
	p.wantMetric(t, stepTimes, "scan", scans)
	p.WantCount(t, 1, `select count(*) from river_job where attempt = 1 and state = 'completed' and max_attempts = $1`, queue.MaxAttempts)
	p.WantCount(t, 1, `select count(*) from dead_letters where retried_at is not null and retried_by = 'ana'`)
	p.WantCount(t, 2, `select count(*) from timeline where event = 'processing' and detail = '{"attempt": 1}'`)
}

// An outcome that cannot be recorded dies behind the last step.
func TestLetterOfARecord(t *testing.T) {
	t.Parallel()
	p := newFixture(t)
	p.Exec(t, `alter table uploads add constraint never check (status <> 'completed')`)
	id := p.receive(t, note, note, 1)
	p.run(t)
	p.await(t, allJobs, "discarded")
	p.wantLetter(t, id, "record", "never")
}

// A letter that cannot be written fails no upload: it stays for the reconciler.
func TestNoLetterNoFailure(t *testing.T) {
	t.Parallel()
	p := newFixture(t)
	p.Exec(t, `alter table dead_letters add constraint never check (kind = '')`)
	id := p.receive(t, smallPhoto(), damaged(), 1)
	p.run(t)
	p.await(t, allJobs, "discarded")
	p.want(t, id, storage.Processing, "", 0, 0)
}

// A worker was lost on the last attempt, after so many steps: the letter says which came next, and what River noted.
func TestLetterOfALostWorker(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		done         []string
		errors       string
		step, reason string
	}{
		"at once":                 {nil, `'{}'`, "scan", "its worker was lost"},
		"in the middle":           {[]string{"scan", "type"}, `array['{"error": "Stuck job rescued"}'::jsonb]`, "thumbnails", "Stuck job rescued"},
		"the last of many errors": {[]string{"scan"}, `array['{"error": "one"}', '{"error": "two"}']::jsonb[]`, "type", "two"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newFixture(t)
			own := p.ctx
			request := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{5}, SpanID: trace.SpanID{6}})
			p.ctx = trace.ContextWithRemoteSpanContext(own, request)
			id := p.receive(t, note, note, 1)
			p.ctx = own // whoever finds it is in no trace, or another
			p.Exec(t, `update river_job set state = 'discarded', attempt = 3, finalized_at = now(), errors = `+c.errors)
			p.MustWork(t, p.ctx, func(tx storage.Tx) error {
				if c.done != nil {
					if err := keepStepResults(p.ctx, tx, id, stepResults{Done: c.done}); err != nil {
						return err
					}
				}
				return GiveUp(p.ctx, tx, id)
			})
			d := p.wantLetter(t, id, c.step, c.reason)
			if d.TraceID == nil || *d.TraceID != request.TraceID().String() {
				t.Errorf("the letter is in the trace %v", d.TraceID)
			}
		})
	}
}

// Metrics count what waits for a decision, by step, and tell of steps at which nothing has failed.
func TestDeadLettersAreCounted(t *testing.T) {
	t.Parallel()
	p := newFixture(t)
	id := p.receive(t, smallPhoto(), damaged(), 1)
	p.run(t)
	p.await(t, allJobs, "discarded")
	registry := prometheus.NewRegistry()
	registry.MustRegister(&Backlog{DB: p.Worker, Log: p.pipeline.Log})
	counted := func() map[string]float64 {
		families, err := registry.Gather()
		stack.Must(t, err)
		found := map[string]float64{}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if f.GetName() == "tramo_dead_letters" {
					found[m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue()
				}
			}
		}
		return found
	}
	if got := counted(); got["scan"] != 1 || len(got) != len(lastSteps()) {
		t.Errorf("counted are %v", got)
	}
	who, err := tenant.From(p.ctx)
	stack.Must(t, err)
	who.Role = tenant.Admin
	letters := &deadletter.Service{DB: p.API}
	stack.Must(t, letters.Discard(tenant.With(p.ctx, who), p.letter(t, id).ID))
	if got := counted(); got["scan"] != 0 || len(got) != len(lastSteps()) {
		t.Errorf("counted are %v", got)
	}
}
