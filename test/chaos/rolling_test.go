package chaos

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/tramo/tramo/test/stack"
)

const (
	rolling = 200 // uploads
	atOnce  = 64
	// checkpoint is what a server may lose of an upload at most.
	checkpoint = 1 << 20
)

// standard are tus-js-client's default retryDelays.
func standard() []time.Duration {
	return []time.Duration{0, time.Second, 3 * time.Second, 5 * time.Second}
}

// Both replicas behind a TCP balancer are restarted by SIGTERM, one after the other, while 200 clients upload: no client sees
// an error that tus-js-client's standard retries do not absorb, none sends a checkpoint again, and every upload is whole.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), runLimit)
	defer cancel()
	j := newJournal()
	s, err := newSite(ctx, servers.take(t), fmt.Sprintf("rolling-%d", time.Now().UnixNano()), j)
	t.Cleanup(func() {
		if err := s.remove(context.Background()); err != nil {
			t.Error(err)
		}
	})
	stack.Must(t, err)
	front, err := newLine(s.urls()...)
	stack.Must(t, err)
	defer front.close()
	watching := &saboteur{site: s, journal: j, ctx: ctx}
	watching.begin()
	j.begun = time.Now()

	var sending, requests sync.WaitGroup
	begun, room := make(chan struct{}, rolling), make(chan struct{}, atOnce)
	clients := rollingClients(s, front, &requests)
	var uploads []*upload
	for _, c := range clients {
		uploads = append(uploads, c.upload)
		sending.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			begun <- struct{}{}
			if err := c.send(ctx); err != nil {
				j.violate(c.upload.name, "%v", err)
			}
		})
	}
	for i := range 3 {
		u := newUpload(uploadPlan{name: fmt.Sprintf("unmodified-%d", i), size: 6 << 20}, uint64(i))
		uploads = append(uploads, u)
		sending.Go(func() {
			if err := sendWithTusJS(ctx, t.TempDir(), s, front.url(), uploadPlan{chunk: 100_000}, u, "[0,1000,3000,5000]"); err != nil {
				j.violate(u.name, "%v", err)
			}
		})
	}
	for range atOnce * 3 / 2 {
		stack.Receive(t, "upload that has begun", begun)
	}
	for _, r := range s.replicas {
		j.fault("SIGTERM of %s", r.name)
		asked := j.now()
		if err := r.stop(); err != nil {
			t.Error(err)
		}
		j.fault("%s has stopped after %s", r.name, j.now()-asked)
		stack.Must(t, r.start(ctx))
		j.fault("%s is ready again", r.name)
	}
	stack.Wait(t, "end of the clients", &sending)
	stack.Wait(t, "end of the requests", &requests)
	watching.end()
	if missed := watching.missed(); len(missed) > 0 {
		t.Errorf("the harness does not recognise these moments, and breaks nothing at them: %v", missed)
	}
	checkRolling(ctx, t, s, clients, uploads)
}

// rollingClients shares bytes among uploads, each of which begins at another place of them.
func rollingClients(s *site, front *line, requests *sync.WaitGroup) []*client {
	var data [3 << 20]byte
	_, _ = rand.NewChaCha8([32]byte{}).Read(data[:]) // never errs
	random := rand.New(rand.NewPCG(1, 2))
	clients := make([]*client, rolling)
	for i := range clients {
		size := 1_000_000 + random.IntN(500_000)
		u := &upload{name: fmt.Sprintf("upload-%d", i), data: data[i*100 : i*100+size], ids: map[string]bool{}}
		sum := sha256.Sum256(u.data)
		u.sum = hex.EncodeToString(sum[:])
		clients[i] = &client{
			name: "client of " + u.name, upload: u, journal: s.journal, token: s.token, servers: []string{front.url()}, delays: standard(),
			plan:   uploadPlan{size: size, pace: 250_000, hashed: i%2 == 0},
			random: rand.New(rand.NewPCG(3, uint64(i))), running: requests, steady: true,
		}
	}
	return clients
}

func checkRolling(ctx context.Context, t *testing.T, s *site, clients []*client, uploads []*upload) {
	t.Helper()
	var disturbed int
	var again, most int64
	for _, c := range clients {
		extra := c.sent - int64(len(c.upload.data))
		if c.links > 1 || extra > 0 {
			disturbed++
		}
		again, most = again+extra, max(most, extra)
		if extra >= checkpoint {
			s.journal.violate(c.upload.name, "%d bytes were sent again", extra)
		}
	}
	if disturbed < rolling/10 {
		t.Errorf("the restarts disturbed %d uploads of %d: they prove nothing", disturbed, rolling)
	}
	t.Logf("%d uploads of %d were disturbed; %d bytes were sent again, at most %d of one", disturbed, rolling, again, most)
	if err := s.halt(); err != nil {
		t.Error(err)
	}
	if _, err := checkAll(ctx, s, uploads); err != nil {
		t.Error(err)
	}
	if broken := s.journal.broken(); len(broken) > 0 {
		t.Errorf("%d violations, the first: %s\n%s", len(broken), broken[0], last(s.journal.describe(), 20_000))
	}
}
