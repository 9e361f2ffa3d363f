package server_test

import (
	"context"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/tramo/tramo/server/live"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

// streams opens the streams that an attacker can: with filters that name the victim's things, resuming from the victim's
// last id, over either transport. Each also receives the attacker's own project and batch.
func (s *site) streams(t *testing.T, u user, v victim, lastID string) map[string]*listening {
	t.Helper()
	all := map[string]*listening{
		"everything":      u.listen(s.url, ""),
		"project":         u.listen(s.url, query("project", v["project"], "project", u.project())),
		"batch":           u.listen(s.url, query("batch", v["batch"], "batch", v["batch_client"], "batch", v["batch_id"], "batch", "marca")),
		"own":             u.listen(s.url, query("mine", "true")),
		"Last-Event-ID":   u.listen(s.url, "", "Last-Event-ID", lastID),
		"last_event_id":   u.listen(s.url, query("last_event_id", lastID)),
		"the first there": u.listen(s.url, "", "Last-Event-ID", "1"),
		"ticket":          u.listen(s.url, query("ticket", s.ticket(t, u)), "Authorization", ""),
	}
	for name, q := range map[string]string{"WebSocket": "", "WebSocket of batch": query("batch", v["batch_id"], "batch", "marca")} {
		l, _, err := u.webSocket(s.url, q, "Authorization", "Bearer "+u.token, "Last-Event-ID", lastID)
		stack.Must(t, err)
		all[name] = l
	}
	return all
}

// A stream sends an attacker nothing of the victim, neither in its snapshot nor while it is open, whatever its filter. The
// attacker's own upload, created last, marks the end.
func TestAttacksOnStreams(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.live(t, nil)
	u, v := s.newDoneVictim(t)
	mine := u.listen(s.url, "")
	mine.ready()
	open := map[string]map[string]*listening{}
	who := map[string]user{}
	for name, newAttacker := range s.attackers(t, u, true) {
		who[name] = newAttacker()
		open[name] = s.streams(t, who[name], v, mine.lastID)
		for stream, l := range open[name] {
			v.wantUntold(t, name+", "+stream+", at first", l.ready())
		}
	}

	s.busy(t, u, v, mine)
	for name, streams := range open {
		maker := s.like(t, who[name], func(id *tenant.Identity) { id.Role = tenant.Constructora })
		marker := s.sendPlain(t, maker, "project", maker.project(), "batch", "marca")
		for stream, l := range streams {
			v.wantUntold(t, name+", "+stream, l.upload(idOf(marker), "completed"))
		}
	}
}

// busy makes changes of each kind, and returns when the victim itself has received them.
func (s *site) busy(t *testing.T, u user, v victim, mine *listening) {
	t.Helper()
	manager := s.like(t, u, func(id *tenant.Identity) { id.Role = tenant.Constructora })
	s.sendPlain(t, u, "project", v["project"], "batch", v["batch"], "filename", "secreto.txt")
	manager.do("PATCH", u.batches()+"/"+v["batch_id"], strings.NewReader(`{"name":"otro secreto.txt"}`), "Content-Type", "application/json").want(t, 200, "")
	manager.do("POST", u.batches()+"/"+v["batch_id"]+"/cancel", nil).want(t, 200, "")
	s.in(t, u, func(ctx context.Context, tx storage.Tx) error {
		return tx.Announce(ctx, storage.Announcement{Type: storage.AnnounceQuotaWarning, Detail: map[string]any{"percent": 80}})
	})
	mine.until("the warning", func(_ event, j saying) bool { return j.Type == storage.AnnounceQuotaWarning })
	u.do("DELETE", u.uploads+"/"+v["upload"], nil).want(t, 204, "")
	mine.upload(uuid.MustParse(v["upload"]), "cancelled")
}

// sendPlain sends a file of which no picture is drawn, and has it processed.
func (s *site) sendPlain(t *testing.T, u user, pairs ...string) string {
	t.Helper()
	file := noise(100)
	url := u.create(len(file), "Upload-Metadata", metadata(pairs...))
	u.patch(url, 0, reader(file)).want(t, 204, "")
	ctx := tenant.With(t.Context(), u.who)
	stack.Must(t, s.Worker.InTenant(ctx, func(tx storage.Tx) error {
		if err := tx.MarkProcessing(ctx, idOf(url), 1); err != nil {
			return err
		}
		return tx.Complete(ctx, idOf(url), storage.Results{DetectedType: "text/plain"})
	}))
	return url
}

// wantUntold fails if an event contains something that only the victim has.
func (v victim) wantUntold(t *testing.T, what string, es []event) {
	t.Helper()
	for kind, secret := range v {
		if kind == "user" || kind == "tenant" || len(secret) < 8 {
			continue // a stranger has the same name, and who is narrowed is of the same tenant
		}
		if mentions(es, secret) {
			t.Errorf("%s: it is told the victim's %s: %v", what, kind, names(es))
		}
	}
	// Who is narrowed is of the same tenant, and so is its quota.
	if mentions(es, "secreto.txt") || mentions(es, storage.AnnounceQuotaWarning) && !strings.HasPrefix(what, "narrowed") {
		t.Errorf("%s: it is told %v", what, names(es))
	}
}

// A ticket is valid only for its tenant: with another tenant's name in front it is refused, and stays unused.
func TestAttacksOnTickets(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.live(t, nil)
	stranger := s.newTenant(t)
	renamed := func(ticket string, to uuid.UUID) string {
		raw, err := base64.RawURLEncoding.DecodeString(ticket)
		stack.Must(t, err)
		copy(raw, to[:])
		return base64.RawURLEncoding.EncodeToString(raw)
	}
	victims, strangers := s.ticket(t, s.user), s.ticket(t, stranger)
	never := renamed(base64.RawURLEncoding.EncodeToString(noise(48)), stranger.who.Tenant)
	ask := func(ticket string) string {
		a := stranger.do("GET", s.url+live.Path+"?"+query("ticket", ticket), nil, "X-Request-Id", "same").want(t, 401, "bad-ticket")
		return victim{}.normal(stranger, a)
	}
	want := ask(never)
	for name, forged := range map[string]string{
		"the victim's secret behind the stranger's name": renamed(victims, stranger.who.Tenant),
		"the stranger's secret behind the victim's name": renamed(strangers, s.user.who.Tenant),
		"the victim's secret behind nobody's name":       renamed(victims, uuid.New()),
		"the victim's secret behind no name":             renamed(victims, uuid.Nil),
	} {
		stack.Want(t, ask(forged), want, "%s: answer, which must be that for what never was", name)
	}
	s.user.listen(s.url, query("ticket", victims), "Authorization", "").ready()
	stranger.listen(s.url, query("ticket", strangers), "Authorization", "").ready()
}
