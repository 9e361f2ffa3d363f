package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
)

// patience is for how long an endpoint may fail without one success before it is disabled.
const patience = 5 * 24 * time.Hour

// A Sender makes the attempts that a [Dispatcher] asks for, as jobs of a worker pool.
type Sender struct {
	conf       SenderConfig
	db         *storage.DB
	vault      *Vault
	client     *http.Client
	dispatcher *Dispatcher
	metrics    *Metrics
	tracer     trace.Tracer
	log        *slog.Logger
}

// NewSender makes a sender.
func NewSender(c SenderConfig, d *Dispatcher, v *Vault, g *Guard, m *Metrics, tracers trace.TracerProvider, log *slog.Logger) *Sender {
	return &Sender{
		conf: c, db: d.db, vault: v, dispatcher: d, metrics: m, log: log,
		tracer: tracers.Tracer("github.com/tramo/tramo/hooks/webhook"),
		client: &http.Client{
			Transport: g.transport(c.Timeout),
			// A redirect is a failure: its target was never registered.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Register has the pool make attempts, as many at a time as [SenderConfig.Concurrency] says.
func (s *Sender) Register(p *queue.Pool) {
	p.Register(queue.DeliverWebhook, s, queue.Options{Workers: s.conf.Concurrency, Timeout: s.conf.Timeout + grace})
}

// Failed implements [queue.Worker]. The delivery's row says when the next attempt is due, whatever happened to this one.
func (*Sender) Failed(context.Context, *queue.Job, error) error { return nil }

// Work implements [queue.Worker]: it makes one attempt. If the worker dies between the request and the
// record, the endpoint gets the webhook again under the same id.
func (s *Sender) Work(ctx context.Context, job *queue.Job) error {
	defer s.dispatcher.wake()
	ctx, span := s.tracer.Start(inTrace(ctx, job.TraceID), string(job.Kind), trace.WithSpanKind(trace.SpanKindClient))
	defer span.End()
	e, a, err := s.prepare(ctx, job)
	if errors.Is(err, storage.ErrNotFound) {
		return nil // it was deleted, disabled, or is another job's
	}
	if err != nil {
		return fmt.Errorf("prepare delivery %s: %w", job.Delivery, err)
	}
	r := s.attempt(ctx, e, a)
	if ctx.Err() != nil && r.Error != "" {
		return ctx.Err() // the worker stops; another one tries again
	}
	r.Delivery, r.Job = job.Delivery, job.ID
	return s.record(ctx, r)
}

// inTrace returns ctx in the trace with the id.
func inTrace(ctx context.Context, id string) context.Context {
	traceID, err := trace.TraceIDFromHex(id)
	if err != nil {
		return ctx // it belongs to none
	}
	return trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: traceID, TraceFlags: trace.FlagsSampled, Remote: true,
	}))
}

// prepare reads the message and its endpoint.
func (s *Sender) prepare(ctx context.Context, job *queue.Job) (e envelope, a attempt, err error) {
	err = s.db.InTenant(ctx, func(tx storage.Tx) (err error) {
		if a, err = readAttempt(ctx, tx, job.Delivery, job.ID); err != nil {
			return err
		}
		e.body, err = payload(ctx, tx, a)
		return err
	})
	if err != nil {
		return e, a, err
	}
	e.id, e.url = a.AnnouncementID.String(), a.URL
	for _, sealed := range a.Secrets {
		secret, err := s.vault.open(job.Tenant, a.EndpointID, sealed)
		if err != nil {
			return e, a, err
		}
		e.secrets = append(e.secrets, secret)
	}
	return e, a, nil
}

// attempt sends the webhook and returns the result to record.
func (s *Sender) attempt(ctx context.Context, e envelope, a attempt) result {
	ctx, cancel := context.WithTimeout(ctx, s.conf.Timeout)
	defer cancel()
	start := time.Now()
	status, header, err := post(ctx, s.client, e, start)
	now := time.Now()
	r := result{Endpoint: a.EndpointID, Status: status, Error: judge(status, err), Took: now.Sub(start)}
	if r.Error == "" {
		return r
	}
	if r.Gone = r.Error == errorGone; r.Gone {
		return r
	}
	wait := retryAfter(status, header, now)
	r.RetryAt, r.Hold = next(a.Made+1, wait, now), wait > 0
	return r
}

// record records the result. The job's time may be over, and the worker may be stopping.
func (s *Sender) record(ctx context.Context, r result) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	var disabled string
	err := s.db.InTenant(ctx, func(tx storage.Tx) (err error) {
		if disabled, err = recordAttempt(ctx, tx, r, patience); err != nil || disabled == "" {
			return err
		}
		detail := map[string]any{"endpoint_id": r.Endpoint, "reason": disabled}
		if err := tx.Audit(ctx, storage.Audit{Action: storage.AuditWebhookDisable, Subject: r.Endpoint.String(), Detail: detail}); err != nil {
			return err
		}
		return tx.Announce(ctx, storage.Announcement{Type: storage.AnnounceWebhookDisabled, Detail: detail})
	})
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("record delivery %s: %w", r.Delivery, err)
	}
	s.metrics.count(r)
	s.say(ctx, r, disabled)
	return nil
}

func (s *Sender) say(ctx context.Context, r result, disabled string) {
	log := s.log.With(slog.String("endpoint_id", r.Endpoint.String()), slog.String("delivery_id", r.Delivery.String()),
		slog.Int("status", r.Status), slog.Int64("duration_ms", r.Took.Milliseconds()))
	switch {
	case disabled != "":
		log.WarnContext(ctx, "webhook endpoint disabled", slog.String("reason", disabled))
	case r.Error == "":
		log.DebugContext(ctx, "webhook delivered")
	case r.RetryAt.IsZero():
		log.WarnContext(ctx, "webhook is a dead letter", slog.String("reason", r.Error))
	default:
		log.InfoContext(ctx, "webhook not delivered and tried again", slog.String("reason", r.Error))
	}
}
