package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/tramo/tramo/test/stack"
)

// legacy is a server of the kind that Tramo replaces: Express, with multer into memory, the AWS SDK and sharp.
const legacy peer = "legacy"

// retries is how often the app of the legacy API sends a photo again, from its beginning.
const retries = 3

// tusDelays are tus-js-client's: how long it waits after the first failure, the second and so on, until it gives up. Progress
// begins anew.
var tusDelays = []time.Duration{0, time.Second, 3 * time.Second, 5 * time.Second}

// legacyDir has the server's program and its lock file.
func legacyDir() (string, error) {
	root, err := stack.RepoRoot()
	return filepath.Join(root, "test", "bench", "legacy"), err
}

// installLegacy has npm install exactly what the lock file says, unless it is there.
func installLegacy(ctx context.Context) error {
	dir, err := legacyDir()
	if err != nil {
		return err
	}
	wanted, err := os.Stat(filepath.Join(dir, "package-lock.json"))
	if err != nil {
		return err
	}
	// npm writes this file last.
	if got, err := os.Stat(filepath.Join(dir, "node_modules", ".package-lock.json")); err == nil && !got.ModTime().Before(wanted.ModTime()) {
		return nil
	}
	_, err = stack.Run(ctx, stack.ProcessConfig{Path: "npm", Args: []string{"ci"}, Dir: dir})
	return err
}

func (s *stand) serveLegacy(ctx context.Context, sv *server, endpoint string) error {
	dir, err := legacyDir()
	if err != nil {
		return err
	}
	sv.process, err = stack.Start(stack.ProcessConfig{
		Path: "node", Args: []string{"server.mjs", "--endpoint", endpoint, "--bucket", s.S3.Bucket()}, Dir: dir,
		Env: stack.CleanEnv(append(s.S3.Env(), "TMPDIR="+sv.temp, "NODE_ENV=production")...),
	})
	if err != nil {
		return err
	}
	address, err := sv.process.WaitForLine(ctx, "legacy on ")
	sv.url = "http://" + address + "/upload"
	return err
}

// over returns a copy of sv whose clients come through a link, and the link's end.
func (sv *server) over(l link) (through *server, end func(), err error) {
	u, err := url.Parse(sv.url)
	if err != nil {
		return nil, nil, err
	}
	proxy, err := stack.NewProxy(u.Host)
	if err != nil {
		return nil, nil, err
	}
	if l.cut > 0 {
		if err := proxy.CutAfter(l.cut); err != nil {
			proxy.Close()
			return nil, nil, err
		}
	}
	copied := *sv
	u.Host = proxy.Addr()
	copied.url = u.String()
	return &copied, proxy.Close, nil
}

// deliver sends a photo as the peer's app does: to the legacy API from the beginning, each time; to Tramo from where the
// server says that it is.
func (sv *server) deliver(ctx context.Context, picture []byte) error {
	if sv.peer == legacy {
		return again(ctx, func() error { return sv.sendForm(ctx, picture) })
	}
	var address string
	err := again(ctx, func() (err error) {
		address, err = sv.createFor(ctx, picture)
		return err
	})
	var offset int64
	for failed := 0; err == nil && offset < int64(len(picture)); {
		sending := sv.patchWith(ctx, address, offset, picture[offset:])
		if sending == nil {
			return nil
		}
		if failed == len(tusDelays) {
			return sending
		}
		if err = wait(ctx, tusDelays[failed]); err != nil {
			return err
		}
		failed++
		if told, unknown := sv.head(ctx, address); unknown == nil && told > offset {
			offset, failed = told, 0
		}
	}
	return err
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// again calls f until it succeeds, at most retries times more.
func again(ctx context.Context, f func() error) (err error) {
	for range 1 + retries {
		if err = f(); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return err
}

func (sv *server) createFor(ctx context.Context, picture []byte) (string, error) {
	h, err := sv.do(ctx, http.MethodPost, sv.url, 0, map[string]string{
		"Upload-Length":   strconv.Itoa(len(picture)),
		"Upload-Metadata": "filetype " + base64.StdEncoding.EncodeToString([]byte("image/jpeg")),
	}, http.StatusCreated)
	return h.Get("Location"), err
}

func (sv *server) patchWith(ctx context.Context, address string, offset int64, rest []byte) error {
	_, _, err := sv.send(ctx, http.MethodPatch, address, bytes.NewReader(rest), int64(len(rest)),
		map[string]string{"Upload-Offset": strconv.FormatInt(offset, 10)}, http.StatusNoContent)
	return err
}

// sendForm sends a photo as a form.
func (sv *server) sendForm(ctx context.Context, picture []byte) error {
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	part, err := form.CreatePart(textproto.MIMEHeader{
		"Content-Disposition": {`form-data; name="photo"; filename="obra.jpg"`}, "Content-Type": {"image/jpeg"},
	})
	if err == nil {
		_, err = part.Write(picture)
	}
	if err := errors.Join(err, form.Close()); err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, sv.url, &body)
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", form.FormDataContentType())
	r.GetBody = nil // the app tries again, not its connection
	_, _, err = answered(r, http.StatusCreated)
	return err
}

// A delivery is what became of many photos.
type delivery struct {
	minute  float64 // photos a minute that arrived
	arrived float64 // per cent
	p95     float64 // seconds, of those that arrived
}

// deliverAll has so many clients send n photos, each the next one when its last has arrived or has failed for good.
func deliverAll(ctx context.Context, sv *server, atOnce, n int, pictures [][]byte, progress io.Writer) (d delivery, err error) {
	var mu sync.Mutex
	var took []float64
	next := 0
	begun := time.Now()
	err = together(ctx, atOnce, n, func(ctx context.Context) error {
		mu.Lock()
		picture := pictures[next%len(pictures)]
		next++
		mu.Unlock()
		start := time.Now()
		failed := sv.deliver(ctx, picture)
		mu.Lock()
		defer mu.Unlock()
		if failed == nil {
			took = append(took, time.Since(start).Seconds())
		} else {
			fmt.Fprintf(progress, "  %s: a photo of %d bytes failed after %s: %v\n", sv.peer, len(picture), time.Since(start), failed)
		}
		return ctx.Err()
	})
	d.minute = float64(len(took)) / time.Since(begun).Minutes()
	d.arrived = float64(len(took)) / float64(n) * 100
	d.p95 = quantile(took, 0.95)
	return d, err
}

// A link is what photos come through.
type link struct {
	name string
	cut  int64 // bytes after which a connection is; 0 for never
}

var links = []link{{"a link that holds", 0}, {"a link cut every 2 MB", 2 * mb}}

// rival compares Tramo, with a worker that is at work meanwhile, and the legacy API, which does all before it answers.
func rival(ctx context.Context, b *bench) (err error) {
	if err := installLegacy(ctx); err != nil {
		return err
	}
	workers, err := b.startWorkers(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, workers.stop()) }()
	var pictures [][]byte
	for seed, width := range []int{1600, 4000, 2800, 5200} { // from half a megabyte to more than three
		pictures = append(pictures, stack.Photo(stack.PhotoConfig{Width: width, Height: width * 3 / 4, Seed: uint64(seed)}))
		b.note("photo %d: %d bytes", seed, len(pictures[seed]))
	}
	for _, l := range links {
		for _, c := range []struct{ atOnce, photos int }{{1, 12}, {64, 128}} {
			if err := b.rivals(ctx, l, c.atOnce, c.photos, pictures); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *bench) rivals(ctx context.Context, l link, atOnce, photos int, pictures [][]byte) error {
	minute, arrived, p95, done, most := figures{}, figures{}, figures{}, figures{}, figures{}
	err := b.rounds(ctx, []peer{tramo, legacy}, b.S3.Endpoint(), func(sv *server) error {
		through, end, err := sv.over(l)
		if err != nil {
			return err
		}
		begun := time.Now()
		d, err := deliverAll(ctx, through, atOnce, photos, pictures, b.progress)
		end()
		if err != nil {
			return err
		}
		minute.add(sv.peer, d.minute)
		arrived.add(sv.peer, d.arrived)
		if d.arrived > 0 {
			p95.add(sv.peer, d.p95)
		}
		err = b.drained(ctx)
		done.add(sv.peer, d.arrived/100*float64(photos)/time.Since(begun).Minutes())
		bytes, failed := peak(sv.process.Pid())
		most.add(sv.peer, bytes/mib)
		return errors.Join(err, failed)
	})
	if err != nil {
		return err
	}
	name := fmt.Sprintf("%d clients, %s", atOnce, l.name)
	if atOnce == 1 {
		name = "1 client, " + l.name
	}
	b.spread("uploads a minute, "+name, minute)
	b.row("uploads a minute, "+name, minute, "%.0f", "", true)
	b.row("% of photos that arrive, "+name, arrived, "%.0f", "", true)
	b.row("s for a photo, p95 of those that arrive, "+name, p95, "%.2f", "", true)
	b.row("photos a minute with their thumbnails, "+name, done, "%.0f", "", true)
	b.row("MiB of memory of the server at most, "+name, most, "%.0f", "", true)
	return nil
}
