package chaos

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A client sends one upload by tus 1.0.0, as tus-js-client does: POST, then PATCH from 0; after an error HEAD, and PATCH from
// there. It retries what tus-js-client retries, 409, 423, 5xx and broken connections, and gives up on other answers.
type client struct {
	name    string
	upload  *upload
	plan    uploadPlan
	random  *rand.Rand
	journal *journal
	token   string
	servers []string        // their addresses, or a balancer's
	delays  []time.Duration // before retries in a row; nil for short ones without end
	running *sync.WaitGroup // its requests, which may outlive it
	steady  bool            // nothing happens to its network

	url      string // the upload's path; "" before its creation
	sent     int64  // bytes of all bodies
	failures int    // in a row
	silenced bool   // the last request met silence

	mu      sync.Mutex
	link    *link
	current int // the server
	links   int // so far
}

// An upload is what clients send, and the answers that they received.
type upload struct {
	name string
	data []byte
	sum  string // SHA-256 in hex

	mu   sync.Mutex
	ids  map[string]bool
	done bool
}

func (u *upload) told(id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.ids[id] = true
}

// id returns one that a client was told; "" for none.
func (u *upload) id() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	for id := range u.ids {
		return id
	}
	return ""
}

func (u *upload) finish() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.done = true
}

// errGivenUp is an answer that no tus client tries again.
var errGivenUp = errors.New("the client gives up")

// errSilent means that no answer has arrived for too long.
var errSilent = errors.New("silence")

// send sends the upload to its end.
func (c *client) send(ctx context.Context) error {
	defer func() {
		if l := c.network(); l != nil {
			l.close()
		}
	}()
	var before int64
	for ; ; c.failures++ {
		offset, err := c.attempt(ctx)
		if err == nil {
			c.upload.finish()
			return nil
		}
		if errors.Is(err, errGivenUp) || ctx.Err() != nil {
			return err
		}
		if offset > before { // what was received before the connection broke counts, as in tus-js-client
			c.failures = 0
		}
		before = offset
		delay, ok := c.delay()
		if !ok {
			return fmt.Errorf("%w after %d attempts: %w", errGivenUp, c.failures+1, err)
		}
		pause(ctx, delay)
	}
}

func (c *client) delay() (time.Duration, bool) {
	if c.delays != nil {
		if c.failures >= len(c.delays) {
			return 0, false
		}
		return c.delays[c.failures], true
	}
	most := 50 * time.Millisecond << min(c.failures, 5)
	return between(c.random, most/4, most), true
}

// attempt goes on until something goes wrong, and returns the offset as far as it is known.
func (c *client) attempt(ctx context.Context) (offset int64, err error) {
	if err := c.connect(); err != nil {
		return 0, err
	}
	if c.url == "" {
		offset, err = c.create(ctx)
	} else {
		offset, err = c.head(ctx)
	}
	for err == nil && offset < int64(len(c.upload.data)) {
		var next int64
		if next, err = c.patch(ctx, offset); err == nil {
			offset = next
		}
	}
	return offset, err
}

func (c *client) create(ctx context.Context) (int64, error) {
	meta := map[string]string{"filename": c.upload.name + ".jpg", "filetype": "image/jpeg", "client_id": c.upload.name}
	if c.plan.hashed {
		meta["sha256"] = c.upload.sum
	}
	var pairs []string
	for k, v := range meta {
		pairs = append(pairs, k+" "+base64.StdEncoding.EncodeToString([]byte(v)))
	}
	header := http.Header{"Upload-Length": {strconv.Itoa(len(c.upload.data))}, "Upload-Metadata": {strings.Join(pairs, ",")}}
	var body []byte
	if c.plan.withBody {
		body = c.chunkAt(0)
		header.Set("Content-Type", "application/offset+octet-stream")
	}
	e, location, err := c.do(ctx, http.MethodPost, "/api/uploads", -1, header, body)
	if err != nil {
		return 0, err
	}
	if e.status != http.StatusCreated || location == "" {
		return 0, refused(e)
	}
	c.url = "/api/uploads/" + path.Base(location)
	c.upload.told(path.Base(location))
	// tus-js-client reads no offset from an answer to a creation without a body.
	return max(0, min(e.offset, int64(len(body)))), nil
}

func (c *client) head(ctx context.Context) (int64, error) {
	e, _, err := c.do(ctx, http.MethodHead, c.url, -1, http.Header{}, nil)
	if err != nil {
		return 0, err
	}
	if e.status == http.StatusLocked {
		return 0, refused(e)
	}
	if e.status >= 300 || e.offset < 0 {
		// tus-js-client forgets the upload and begins again.
		c.journal.violate(c.upload.name, "HEAD was answered %d, offset %d: tus-js-client would begin again from zero", e.status, e.offset)
		c.url = ""
		return 0, errors.New("begin again")
	}
	return e.offset, nil
}

func (c *client) patch(ctx context.Context, offset int64) (int64, error) {
	header := http.Header{"Content-Type": {"application/offset+octet-stream"}}
	body := c.chunkAt(offset)
	e, _, err := c.do(ctx, http.MethodPatch, c.url, offset, header, body)
	if err != nil {
		return 0, err
	}
	if e.status != http.StatusNoContent {
		return 0, refused(e)
	}
	if e.offset < offset || e.offset > offset+int64(len(body)) {
		c.journal.violate(c.upload.name, "PATCH of %d bytes at %d was told offset %d", len(body), offset, e.offset)
		return 0, errors.New("wrong offset")
	}
	return e.offset, nil
}

func (c *client) chunkAt(offset int64) []byte {
	rest := c.upload.data[offset:]
	if c.plan.chunk > 0 {
		return rest[:min(c.plan.chunk, len(rest))]
	}
	return rest
}

// refused is what tus-js-client makes of an answer that is no success.
func refused(e exchange) error {
	err := fmt.Errorf("%s was answered %d: %s", e.method, e.status, e.note)
	if e.status >= 400 && e.status < 500 && e.status != http.StatusConflict && e.status != http.StatusLocked {
		return fmt.Errorf("%w: %w", errGivenUp, err)
	}
	return err
}

// patience is for how long a client bears silence. It grows, because a client that never waits long enough for a lease
// would disturb itself for ever.
func (c *client) patience() time.Duration {
	if c.delays != nil {
		return time.Minute // tus-js-client has none
	}
	if c.plan.patient {
		return 6 * time.Second
	}
	return time.Second << min(c.failures/2, 4)
}

// network returns the link in use, for faults.
func (c *client) network() *link {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.link
}

func (c *client) setNetwork(l *link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.link = l
	c.links++
}

// connect makes sure of a link that the client has not left: after a failure it is often another server's.
func (c *client) connect() error {
	if l := c.network(); l != nil {
		select {
		case <-l.left:
		default:
			return nil
		}
	}
	if c.silenced || c.failures > 0 && c.random.IntN(2) == 0 {
		c.current++ // a balancer uses no server that does not answer
	}
	c.silenced = false
	var cut int64
	if c.links < c.plan.shaky {
		cut = int64(50_000 + c.random.IntN(3<<20))
	}
	server := c.servers[c.current%len(c.servers)]
	if c.steady {
		c.setNetwork(plainLink(server))
		return nil
	}
	l, err := newLink(server, cut)
	if err != nil {
		return err
	}
	c.setNetwork(l)
	return nil
}

// do sends one request and notes it.
func (c *client) do(ctx context.Context, method, path string, from int64, header http.Header, data []byte) (exchange, string, error) {
	l := c.network()
	patience := c.patience()
	alive := make(chan struct{}, 1)
	body := &pacedBody{data: data, pace: c.plan.pace, link: l, alive: alive}
	req, err := http.NewRequestWithContext(l.ctx, method, l.server+path, nil)
	if err != nil {
		return exchange{}, "", err
	}
	if len(data) > 0 {
		req.Body, req.ContentLength = io.NopCloser(body), int64(len(data))
	}
	header.Set("Tus-Resumable", "1.0.0")
	header.Set("Authorization", "Bearer "+c.token)
	if from >= 0 {
		header.Set("Upload-Offset", strconv.FormatInt(from, 10))
	}
	req.Header = header

	type result struct {
		exchange
		location string
		err      error
	}
	answer := make(chan result, 1)
	c.running.Go(func() {
		e := exchange{upload: c.upload.name, client: c.name, method: method, from: from, offset: -1, sent: c.journal.now()}
		location, err := roundTrip(l.transport, req, &e)
		e.answered = c.journal.now()
		c.journal.add(e)
		answer <- result{e, location, err}
	})
	defer func() { c.sent += body.read() }()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case r := <-answer:
			if r.err != nil {
				l.close()
			}
			return r.exchange, r.location, r.err
		case <-alive:
			timer.Reset(patience)
		case <-timer.C:
			c.silenced = true
			l.abandon(between(c.random, 0, 3*time.Second))
			return exchange{}, "", errSilent
		case <-ctx.Done():
			l.close()
			return exchange{}, "", ctx.Err()
		}
	}
}

func roundTrip(transport *http.Transport, req *http.Request, e *exchange) (location string, err error) {
	res, err := transport.RoundTrip(req)
	if err != nil {
		e.note = err.Error()
		return "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		e.note = err.Error()
		return "", err
	}
	e.status, e.note = res.StatusCode, string(text)
	if offset, err := strconv.ParseInt(res.Header.Get("Upload-Offset"), 10, 64); err == nil {
		e.offset = offset
	}
	return res.Header.Get("Location"), nil
}

// A pacedBody is read no faster than a client's network is.
type pacedBody struct {
	data  []byte
	pace  int // bytes a second; 0 for no limit
	link  *link
	alive chan<- struct{} // receives a value at each read

	due time.Time // when the network takes more

	mu sync.Mutex
	at int
}

func (b *pacedBody) Read(p []byte) (int, error) {
	select {
	case <-b.link.left: // a client that has left sends nothing and keeps the connection open
		<-b.link.ctx.Done()
		return 0, b.link.ctx.Err()
	default:
	}
	b.mu.Lock()
	at := b.at
	b.mu.Unlock()
	if at == len(b.data) {
		return 0, io.EOF
	}
	if b.pace > 0 {
		pause(b.link.ctx, time.Until(b.due))
		p = p[:min(len(p), 16<<10)]
	}
	n := copy(p, b.data[at:])
	if b.pace > 0 { // what a slow server has held up is not caught up with
		b.due = time.Now().Add(time.Duration(float64(n) / float64(b.pace) * float64(time.Second)))
	}
	b.mu.Lock()
	b.at += n
	b.mu.Unlock()
	select {
	case b.alive <- struct{}{}:
	default:
	}
	return n, nil
}

// read returns how many bytes were taken.
func (b *pacedBody) read() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return int64(b.at)
}

// pause waits for d or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
