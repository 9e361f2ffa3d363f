package server_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/server"
	"github.com/tramo/tramo/server/live"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/test/stack"
)

// counter reads a metric of the site, summed over all labels except those given as name and value.
func (s *site) counter(t testing.TB, name string, labels ...string) (sum float64) {
	t.Helper()
	families, err := s.registry.Gather()
	stack.Must(t, err)
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			match := true
			for i := 0; i < len(labels); i += 2 {
				for _, l := range m.GetLabel() {
					match = match && (l.GetName() != labels[i] || l.GetValue() == labels[i+1])
				}
			}
			if match {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// A change without a notification, as of a process that is killed between commit and notification, is found by polling:
// a change of the status, and one of the offset alone.
func TestLiveMissedNotifications(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.live(t, func(c *server.Config) { c.Live.Recheck = 50 * time.Millisecond })
	l := s.user.listen(s.url, "")
	l.ready()
	url := s.user.create(1000)
	l.upload(idOf(url), "pending")
	s.exec(t, `update contents set received = 700, touched_at = clock_timestamp() where upload_id = $1`, idOf(url))
	l.until("the offset", func(_ event, j saying) bool { return j.ID == idOf(url) && j.Offset == 700 })
	s.exec(t, `update uploads set status = 'cancelled', updated_at = clock_timestamp() where id = $1`, idOf(url))
	l.upload(idOf(url), "cancelled")
	if n := s.counter(t, "tramo_live_missed_notifications_total"); n < 2 {
		t.Errorf("%v changes were found by polling", n)
	}
}

// A change by a long transaction without a notification is found too, although its rows have the time at which the
// transaction began.
func TestLiveLongTransaction(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.live(t, func(c *server.Config) { c.Live.Recheck = 20 * time.Millisecond })
	l := s.user.listen(s.url, "")
	l.ready()
	url, marker := s.user.create(1000), s.user.create(1000)
	waiting := map[uuid.UUID]bool{idOf(url): true, idOf(marker): true}
	l.until("both", func(_ event, j saying) bool { delete(waiting, j.ID); return len(waiting) == 0 })
	tx := s.transaction(t, `update uploads set status = 'cancelled', updated_at = now() where id = $1`, idOf(url))
	for i := range 5 { // each is found by a poll at which the transaction is not committed
		s.exec(t, `update contents set received = $2, touched_at = clock_timestamp() where upload_id = $1`, idOf(marker), i+1)
		l.until("the marker", func(_ event, j saying) bool { return j.ID == idOf(marker) && j.Offset == int64(i+1) })
	}
	stack.Must(t, tx.Commit(t.Context()))
	l.upload(idOf(url), "cancelled")
}

// Cut the connection for notifications: changes meanwhile are sent as soon as it is restored.
func TestLiveConnectionLost(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.live(t, nil) // it polls only after a reconnect
	l := s.user.listen(s.url, "")
	l.ready()
	for range 3 {
		before := s.counter(t, "tramo_live_reconnects_total")
		const listens = ` from pg_stat_activity where datname = current_database() and query = 'listen tramo_changes'`
		// What the last connection began to poll may have told of the upload before there is another one.
		stack.Until(t, "a connection listens", func() bool { return s.count(t, `select count(*)`+listens) > 0 })
		s.exec(t, `select pg_terminate_backend(pid)`+listens)
		stack.Until(t, "the loss is noticed", func() bool { return s.counter(t, "tramo_live_reconnects_total") > before })
		url := s.user.create(1000) // it is created before the next connection listens
		l.upload(idOf(url), "pending")
	}
}

// changer makes random changes to a tenant's uploads, in storage and through the server, and knows their last state.
type changer struct {
	s     *site
	rnd   *rand.Rand
	final map[uuid.UUID]string
	open  []string
}

func (c *changer) change(t testing.TB) {
	switch n := c.rnd.IntN(10); {
	case n < 4 || len(c.open) == 0:
		url := c.s.user.create(1000)
		c.open = append(c.open, url)
		c.final[idOf(url)] = "pending 0"
	case n < 7:
		url := c.open[c.rnd.IntN(len(c.open))]
		if strings.HasPrefix(c.final[idOf(url)], "pending") {
			size := 1 + c.rnd.IntN(900)
			c.s.user.patch(url, 0, reader(noise(size))).want(t, 204, "")
			c.final[idOf(url)] = fmt.Sprintf("uploading %d", size)
		}
	default:
		i := c.rnd.IntN(len(c.open))
		url := c.open[i]
		c.open = append(c.open[:i], c.open[i+1:]...)
		c.s.user.do("DELETE", url, nil).want(t, 204, "")
		_, offset, _ := strings.Cut(c.final[idOf(url)], " ")
		c.final[idOf(url)] = "cancelled " + offset
	}
}

// A client that is disconnected repeatedly under random changes, and that resumes from the last id, ends with every
// upload's last state, while notifications are lost as well.
func TestLiveReconnect(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	if v := os.Getenv("TRAMO_TEST_SEED"); v != "" {
		var err error
		seed, err = strconv.ParseUint(v, 10, 64)
		stack.Must(t, err)
	}
	t.Logf("TRAMO_TEST_SEED=%d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	s := newSite(t)
	looking := func(c *server.Config) { c.Live.Recheck, c.Live.Overlap = 200*time.Millisecond, 5*time.Second }
	s.live(t, looking)
	second, _ := s.another(t, looking)
	bases := []string{s.url, second}
	c := &changer{s: s, rnd: rnd, final: make(map[uuid.UUID]string)}
	seen := make(map[uuid.UUID]string)
	lastID, resumed := "", 0
	note := func(e event, j saying) {
		if e.Event == "upload" {
			seen[j.ID] = fmt.Sprintf("%s %d", j.Status, j.Offset)
		}
	}
	for range 12 {
		l := s.user.listen(bases[rnd.IntN(2)], "", "Last-Event-ID", lastID)
		first, _ := l.next()
		note(first, first.told(t))
		if first.Event != "reset" {
			resumed++
		}
		if first.Event != "ready" && rnd.IntN(3) > 0 {
			for _, e := range l.ready() {
				note(e, e.told(t))
			}
		}
		for range 1 + rnd.IntN(4) {
			for range 1 + rnd.IntN(8) {
				c.change(t)
				if rnd.IntN(8) == 0 { // notifications are lost for a moment
					s.run(t, `select pg_terminate_backend(pid) from pg_stat_activity
						where datname = current_database() and query = 'listen tramo_changes'`)
				}
			}
			for range rnd.IntN(6) { // the stream is closed after some of its events
				select {
				case e := <-l.events:
					if e.ID != "" {
						l.lastID = e.ID
					}
					note(e, e.told(t))
				case <-time.After(time.Duration(rnd.IntN(100)) * time.Millisecond):
				}
			}
		}
		l.close()
		lastID = l.lastID
		for range rnd.IntN(5) { // while the client is disconnected
			c.change(t)
		}
	}
	if resumed == 0 {
		t.Error("no stream went on from where another had ended")
	}
	l := s.user.listen(bases[0], "", "Last-Event-ID", lastID)
	for _, e := range l.ready() {
		note(e, e.told(t))
	}
	for id, state := range c.final {
		if seen[id] != state {
			t.Errorf("upload %s is %s; the client thinks %q", id, state, seen[id])
		}
	}
	t.Logf("%d uploads, %d streams resumed, %v found by polling, %v connections lost", len(c.final), resumed,
		s.counter(t, "tramo_live_missed_notifications_total"),
		s.counter(t, "tramo_live_reconnects_total"))
}

// A client that stops reading is disconnected, and its backlog is dropped; another receives everything meanwhile.
func TestLiveSlowListener(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.live(t, func(c *server.Config) { c.Live.Backlog = 50; c.Live.WriteTimeout = time.Minute })
	s.listenWithoutReading(t)
	good := s.user.listen(s.url, "")
	good.ready()
	name := strings.Repeat("x", 20_000)
	for i := 0; s.counter(t, "tramo_listeners_dropped_total") == 0; i++ {
		if i > 200 {
			t.Fatal("the slow listener is not dropped")
		}
		// Together they fill the kernel's buffers of the slow client's connection.
		waiting := make(map[uuid.UUID]bool)
		s.in(t, s.user, func(ctx context.Context, tx storage.Tx) error {
			for range 40 {
				n := storage.NewUpload{ID: uuid.Must(uuid.NewV7()), UserID: "ana", Project: "torre", Filename: name, Metadata: map[string]string{}, Size: 10}
				waiting[n.ID] = true
				if err := tx.CreateUpload(ctx, n); err != nil {
					return err
				}
			}
			return nil
		})
		good.until("all of them", func(_ event, j saying) bool { delete(waiting, j.ID); return len(waiting) == 0 })
	}
	if n := s.counter(t, "tramo_listeners_dropped_total"); n != 1 {
		t.Errorf("%v were dropped", n)
	}
	stack.Until(t, "the stream of the client that reads nothing has ended, and one listener is left", func() bool { return s.counter(t, "tramo_listeners") == 1 })
}

// listenWithoutReading opens a stream whose client never reads.
func (s *site) listenWithoutReading(t testing.TB) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	stack.Must(t, err)
	t.Cleanup(func() { conn.Close() })
	stack.Must(t, conn.(*net.TCPConn).SetReadBuffer(4096))
	began := s.counter(t, "tramo_live_messages_total", "event", "ready")
	_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", live.Path, s.user.token)
	stack.Must(t, err)
	stack.Until(t, "it listens", func() bool { return s.counter(t, "tramo_live_messages_total", "event", "ready") > began })
}

// A server that shuts down ends its streams at once with a reason, and does not wait for a client that reads nothing.
func TestLiveShutdown(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	conf := server.DefaultConfig()
	addr := freeAddress(t)
	conf.Listen, conf.ShutdownTimeout = addr, stack.Patience
	sv, err := server.New(conf, s.server.Parts)
	stack.Must(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- sv.Run(ctx) }()
	base := "http://" + addr
	stack.Until(t, "it serves", func() bool {
		res, err := client.Get(base + "/")
		if err == nil {
			res.Body.Close()
		}
		return err == nil
	})
	s.url = base
	s.listenWithoutReading(t)
	var all []*listening
	for range 3 {
		ws, _, err := s.user.webSocket(base, "", "Authorization", "Bearer "+s.user.token)
		stack.Must(t, err)
		all = append(all, s.user.listen(base, ""), ws)
	}
	for _, l := range all {
		l.ready()
	}
	began := time.Now()
	cancel()
	var reading sync.WaitGroup
	for _, l := range all {
		reading.Go(func() {
			for e := range l.events {
				if e.Event == "end" && e.told(t).Reason == "shutdown" {
					return
				}
			}
			t.Error("a stream ended without a reason")
		})
	}
	stack.Must(t, stack.Receive(t, "end of the server", ended))
	reading.Wait() // the server has closed all connections
	if took := time.Since(began); took > conf.ShutdownTimeout/2 {
		t.Errorf("it took %s", took)
	}
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	stack.Must(t, err)
	defer l.Close()
	return l.Addr().String()
}
