package e2e

import (
	"context"
	"strings"
	"testing"

	requests "github.com/chromedp/cdproto/fetch"
	"github.com/chromedp/chromedp"
	"github.com/jackc/pgx/v5"

	"github.com/tramo/tramo/test/stack"
)

// A person sees of a photo its placeholder, at once and where the picture will be, and then the picture: nothing moves. Of a
// damaged one the page says so, of one that cannot be drawn why, and that it is safe; of a document its title and pages.
func TestPageShowsResults(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	r := watched(t, tramo.replicas[0])
	photo := read(t, fieldPhoto(t))
	for name, results := range map[string]string{
		"norte.jpg":   `placeholder = '1QcSHQRnh493V4dIh4eXh1h4kJUI'`,
		"cortada.jpg": `partial = true`,
		"rota.jpg":    `no_thumbnail = 'unreadable'`,
		"mural.png":   `no_thumbnail = 'too_large'`,
		"acta.pdf":    `detected_type = 'application/pdf', pages = 12, title = 'Acta de <b>obra</b>'`,
	} {
		url := u.send(r, photo, "filename", name, "filetype", "image/jpeg")
		u.completes(url)
		setResults(t, idOf(url), results)
	}
	ctx := browser(t)
	held := make(chan requests.RequestID, 10)
	stack.Must(t, chromedp.Listen(ctx, func(event any) {
		if e, ok := event.(*requests.EventRequestPaused); ok {
			held <- e.RequestID
		}
	}))
	_, err := chromedp.Call(ctx, requests.Enable, requests.EnableParams{Patterns: []*requests.RequestPattern{{URLPattern: tramo.S3.Endpoint() + "/*"}}})
	stack.Must(t, err)
	const row = `[data-testid="recent-upload"]`
	stack.Must(t, chromedp.Do(ctx,
		chromedp.EmulateViewport(390, 844, chromedp.EmulateScale(2)),
		chromedp.Navigate(r.URL+"/#token="+u.token),
		chromedp.WaitVisible(row+`[data-name="norte.jpg"] [data-testid="placeholder"]`),
	))
	before := ask(t, ctx, chromedp.Evaluate[layout](measure))
	if c, p := before.Placeholder, before.Picture; !near(c.Height, c.Width*before.Height/before.Width) || !near(min(c.Width, c.Height), p.Width) ||
		!near(c.X+c.Width/2, p.X+p.Width/2) || !near(c.Y+c.Height/2, p.Y+p.Height/2) || before.Colours < 50 {
		t.Errorf("the placeholder does not lie where the picture will: %+v", before)
	}
	if before.Width == before.Height {
		t.Error("the picture is a square: this shows nothing")
	}
	for name, want := range map[string]string{
		"cortada.jpg": "La foto llegó dañada: se ve una parte.",
		"rota.jpg":    "Lo tenemos tal como lo enviaste, pero no se puede mostrar. Revísalo antes de borrarlo.",
		"mural.png":   "Sin imagen: es demasiado grande para mostrarla. El archivo está a salvo.",
		"acta.pdf":    "Acta de <b>obra</b> · 12 páginas",
	} {
		if text := ask(t, ctx, chromedp.Text(row+`[data-name="`+name+`"]`)); !strings.Contains(text, want) {
			t.Errorf("%s: the page says %q, want %q", name, text, want)
		}
	}
	if text := ask(t, ctx, chromedp.Text(row+`[data-name="norte.jpg"]`)); strings.Contains(text, "imagen") || strings.Contains(text, "dañad") {
		t.Errorf("of a sound photo the page says %q", text)
	}
	screenshot(t, ctx, "results-placeholder.png")

	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for {
			select {
			case id := <-held:
				_, _ = chromedp.Call(ctx, requests.ContinueRequest, requests.ContinueRequestParams{RequestID: id}) // what follows fails without it
			case <-stop:
				return
			}
		}
	}()
	ask[bool](t, ctx, chromedp.Poll[bool](`(() => {
		const row = document.querySelector('[data-name="norte.jpg"]'), img = row.querySelector('img')
		return img.complete && img.naturalWidth > 0 && !row.querySelector('canvas') })()`))
	after := ask(t, ctx, chromedp.Evaluate[layout](measure))
	if after.Rows != before.Rows || after.Picture != before.Picture || after.NaturalWidth*before.Height != after.NaturalHeight*before.Width {
		t.Errorf("the page moved from %+v to %+v", before, after)
	}
	screenshot(t, ctx, "results-phone.png")
	stack.Must(t, chromedp.Do(ctx, chromedp.EmulateViewport(1280, 800)))
	screenshot(t, ctx, "results-desktop.png")
}

// Where browsers cannot reach S3, the server sends the thumbnails itself, and the page's policy names no other place.
func TestPageWithoutS3(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	r := tramo.serves(t, "TRAMO_SERVE_CONTENT=true")
	url := u.send(r, read(t, fieldPhoto(t)), "filename", "norte.jpg", "filetype", "image/jpeg")
	u.completes(url)
	if policy := u.do("GET", r.URL+"/", nil).header.Get("Content-Security-Policy"); !strings.HasSuffix(policy, "img-src 'self'") {
		t.Errorf("the policy is %q", policy)
	}
	ctx := browser(t)
	stack.Must(t, chromedp.Do(ctx,
		chromedp.EmulateViewport(390, 844, chromedp.EmulateScale(2)),
		chromedp.Navigate(r.URL+"/#token="+u.token),
		chromedp.WaitVisible(`[data-testid="recent-thumbnail"]`),
	))
	ask[bool](t, ctx, chromedp.Poll[bool](`(() => {
		const i = document.querySelector('img[data-testid="recent-thumbnail"]'); return i.complete && i.naturalWidth > 0 })()`))
	from := ask(t, ctx, chromedp.Evaluate[string](`document.querySelector('img[data-testid="recent-thumbnail"]').currentSrc`))
	if !strings.HasPrefix(from, url+"/thumbnails/160?link=") {
		t.Errorf("the thumbnail is from %s", from)
	}
	screenshot(t, ctx, "page-without-s3.png")
}

// A layout is where things are on the page, in its pixels.
type layout struct {
	Rows                        string // of all rows, as text
	Picture, Placeholder        rect   // of norte.jpg
	Width, Height               float64
	NaturalWidth, NaturalHeight float64
	Colours                     int
}

type rect struct{ X, Y, Width, Height float64 }

const measure = `(() => {
	const rect = (el) => { const { x, y, width, height } = el?.getBoundingClientRect() ?? {}; return { x, y, width, height } }
	const row = document.querySelector('[data-name="norte.jpg"]'), img = row.querySelector('img'), canvas = row.querySelector('canvas')
	const pixels = canvas?.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data ?? []
	return {
		rows: JSON.stringify([...document.querySelectorAll('#recent li')].map(rect)),
		picture: rect(row.querySelector('.thumbnail')), placeholder: rect(canvas),
		width: img.width && +img.getAttribute('width'), height: +img.getAttribute('height'),
		naturalWidth: img.naturalWidth, naturalHeight: img.naturalHeight,
		colours: new Set(pixels).size,
	}
})()`

func near(a, b float64) bool { return a-b < 0.5 && b-a < 0.5 }

// setResults changes what processing has found out about an upload.
func setResults(t *testing.T, id, results string) {
	t.Helper()
	conn, err := pgx.Connect(stack.Context(t), tramo.Postgres.URL("postgres", tramo.Database))
	stack.Must(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	tag, err := conn.Exec(stack.Context(t), `update uploads set `+results+` where id = $1`, id)
	stack.Must(t, err)
	if tag.RowsAffected() != 1 {
		t.Fatalf("%s: %s", results, tag)
	}
	_, err = conn.Exec(stack.Context(t), `delete from thumbnails d using uploads u where u.id = d.upload_id and u.id = $1 and u.no_thumbnail is not null`, id)
	stack.Must(t, err)
}
