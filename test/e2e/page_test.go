package e2e

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"github.com/tramo/tramo/test/stack"
)

// A person opens the page, chooses a photo, a document and a virus, and sees the first two completed, the
// photo with its thumbnail, and the third refused with a reason. With TRAMO_TEST_SCREENSHOTS set to a
// directory, what the person sees is kept there.
func TestPageInABrowser(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	r := watched(t, tramo.replicas[0])
	ctx := browser(t)
	photo := fieldPhoto(t)
	document := filepath.Join(t.TempDir(), "acta de obra.csv")
	virus := filepath.Join(t.TempDir(), "eicar.com")
	write(t, document, []byte("fecha;avance\n2026-11-21;40 %\n"))
	write(t, virus, eicar())

	stack.Must(t, chromedp.Do(ctx,
		chromedp.EmulateViewport(390, 844, chromedp.EmulateScale(2)),
		chromedp.Navigate(r.URL+"/#token="+u.token),
		chromedp.WaitReady("#files"),
		chromedp.SetUploadFiles("#files", []string{photo, document, virus}),
		chromedp.WaitVisible(`[data-testid="upload"][data-name="photo.jpg"][data-status="completed"] img[data-testid="thumbnail"]`),
		chromedp.WaitVisible(`[data-testid="upload"][data-name="acta de obra.csv"][data-status="completed"]`),
		chromedp.WaitVisible(`[data-testid="upload"][data-name="eicar.com"][data-status="failed"]`),
	))
	ask[bool](t, ctx, chromedp.Poll[bool](`(() => {
		const i = document.querySelector('img[data-testid="thumbnail"]'); return i.complete && i.naturalWidth > 0 })()`))
	address := ask(t, ctx, chromedp.Location())
	reason := ask(t, ctx, chromedp.Text(`[data-testid="upload"][data-name="eicar.com"]`))
	stack.Want(t, address, r.URL+"/", "address bar, which must not keep a token")
	if !strings.Contains(reason, "virus") {
		t.Errorf("the virus's row says %q", reason)
	}
	screenshot(t, ctx, "page-phone.png")
	stack.Must(t, chromedp.Do(ctx, chromedp.EmulateViewport(1280, 800)))
	screenshot(t, ctx, "page-desktop.png")
}

// A person pauses a large file in the middle and resumes it, then closes the page in the middle, opens it
// again and chooses the file again: it is one upload, and no byte that was safe is sent twice.
func TestPagePausesAndResumes(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	proxy, err := stack.NewProxy(tramo.S3.Endpoint())
	stack.Must(t, err)
	defer proxy.Close()
	stack.Must(t, proxy.Latency(500*time.Millisecond)) // a part takes a while, so that a person is fast enough
	r := tramo.serves(t, "TRAMO_S3_ENDPOINT="+proxy.URL())
	ctx := browser(t)
	path := filepath.Join(t.TempDir(), "medidas.csv")
	line := []byte("fecha;hora;medida;nota\n")
	data := bytes.Repeat(line, 60<<20/len(line))
	write(t, path, data)
	const row = `[data-testid="upload"]`

	stack.Must(t, chromedp.Listen(ctx, func(event any) {
		if _, ok := event.(*page.EventJavascriptDialogOpening); ok { // "leave this page?"
			go chromedp.Call(ctx, page.HandleJavaScriptDialog, page.HandleJavaScriptDialogParams{Accept: true}) //nolint:errcheck // what follows fails without it
		}
	}))
	stack.Must(t, chromedp.Do(ctx,
		chromedp.EmulateViewport(1280, 800), // the row is in view, as it is for a person who clicks in it
		chromedp.Navigate(r.URL+"/#token="+u.token),
		chromedp.WaitReady("#files"),
		chromedp.SetUploadFiles("#files", []string{path}),
		chromedp.WaitVisible(row+`[data-status="uploading"]`),
	))
	r.awaitMetric(t, "tramo_upload_received_bytes_total", 10<<20)
	stack.Must(t, chromedp.Do(ctx,
		chromedp.Click(row+` [data-action="pause"]`),
		chromedp.WaitVisible(row+`[data-status="paused"]`),
		chromedp.Click(row+` [data-action="resume"]`),
		chromedp.WaitVisible(row+`[data-status="uploading"]`),
	))
	r.awaitMetric(t, "tramo_upload_received_bytes_total", 30<<20)
	stack.Must(t, chromedp.Do(ctx, chromedp.Navigate("about:blank")))
	stack.Must(t, chromedp.Do(ctx,
		chromedp.Navigate(r.URL+"/"),
		chromedp.WaitReady("#files"),
		chromedp.SetUploadFiles("#files", []string{path}),
		chromedp.WaitVisible(row+`[data-status="completed"]`),
	))
	var listed struct{ Items []upload }
	a := u.do("GET", r.URL+"/api/uploads", nil)
	stack.Must(t, json.Unmarshal(a.body, &listed))
	if len(listed.Items) != 1 || listed.Items[0].SHA256 != sumOf(data) {
		t.Errorf("uploads: %s", a.body)
	}
	if r.metric(t, `tramo_live_messages_total{event="upload"}`) == 0 {
		t.Error("the page was told nothing of its uploads: it has asked")
	}
	// What a browser has handed to the network when it stops is sent, but not always received.
	again := int(r.metric(t, "tramo_upload_received_bytes_total")) - len(data)
	if again > 0 {
		t.Errorf("%d bytes were received twice", again)
		for _, e := range u.timeline(r.URL+"/api/uploads/"+listed.Items[0].ID, "100") {
			t.Log(e.At, e.Event, *cmp.Or(e.Offset, new(int)), e.Detail)
		}
	}
}

// Without a token the page asks for one and shows nothing else.
func TestPageAsksForAToken(t *testing.T) {
	t.Parallel()
	ctx := browser(t)
	stack.Must(t, chromedp.Do(ctx,
		chromedp.EmulateViewport(390, 844, chromedp.EmulateScale(2)),
		chromedp.Navigate(tramo.replicas[0].URL+"/"),
		chromedp.WaitVisible(`form input`),
	))
	screenshot(t, ctx, "page-token.png")
}

// browser starts a Chromium of its own for the test.
func browser(t *testing.T) context.Context {
	t.Helper()
	opts := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(chromium(t)), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("accept-lang", "es"),
	)
	ctx, cancel := chromedp.NewExecAllocator(context.WithoutCancel(t.Context()), opts...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	stack.Must(t, chromedp.Do(ctx)) // the browser lives as long as this context
	ctx, cancel = context.WithTimeout(ctx, patience)
	t.Cleanup(cancel)
	return ctx
}

// chromium returns the path of a Chromium or Chrome. Those from snap are passed over: they cannot read a test's temporary
// files.
func chromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"google-chrome-stable", "google-chrome", "chromium", "chromium-browser"} {
		path, err := exec.LookPath(name)
		if err != nil || strings.HasPrefix(path, "/snap/") {
			continue
		}
		if start, err := os.ReadFile(path); err == nil && bytes.HasPrefix(start, []byte("#!")) && bytes.Contains(start, []byte("/snap/")) {
			continue
		}
		return path
	}
	t.Fatal("no chromium or google-chrome in PATH but a snap; make setup says what to install")
	panic("unreachable")
}

// ask runs an action that returns something.
func ask[T any](t *testing.T, ctx context.Context, a chromedp.Action[T]) T {
	t.Helper()
	v, err := chromedp.Run(ctx, a)
	stack.Must(t, err)
	return v
}

// screenshot keeps what the browser shows.
func screenshot(t *testing.T, ctx context.Context, name string) {
	t.Helper()
	dir := os.Getenv("TRAMO_TEST_SCREENSHOTS")
	if dir == "" {
		return
	}
	write(t, filepath.Join(dir, name), ask(t, ctx, chromedp.FullScreenshot(100)))
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	stack.Must(t, os.WriteFile(path, data, 0o600))
}

// The description of the API is a page that loads nothing from elsewhere, breaks none of its own rules, and fits a phone.
func TestOpenAPIPageInABrowser(t *testing.T) {
	t.Parallel()
	ctx := browser(t)
	r := watched(t, tramo.replicas[0])
	const operation = `#operations-Uploads-getUpload`
	_, err := chromedp.Call(ctx, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: `
		window.broken = []
		addEventListener('securitypolicyviolation', (e) => broken.push(e.violatedDirective + ' ' + e.blockedURI))
		addEventListener('error', (e) => broken.push(e.message))`})
	stack.Must(t, err)
	stack.Must(t, chromedp.Do(ctx,
		chromedp.EmulateViewport(390, 844, chromedp.EmulateScale(2)),
		chromedp.Navigate(r.URL+"/docs"),
		chromedp.WaitVisible(operation+` .opblock-summary`),
		chromedp.Click(operation+` .opblock-summary-control`),
		chromedp.WaitVisible(operation+` .response[data-code="404"]`),
	))
	if broken := ask(t, ctx, chromedp.Evaluate[[]string]("broken")); len(broken) > 0 {
		t.Errorf("the page's rules were broken: %q", broken)
	}
	for _, from := range ask(t, ctx, chromedp.Evaluate[[]string](`performance.getEntriesByType('resource').map((e) => e.name)`)) {
		if !strings.HasPrefix(from, r.URL+"/") && !strings.HasPrefix(from, "data:") {
			t.Errorf("it loaded %s", from)
		}
	}
	if text := ask(t, ctx, chromedp.Text(operation)); !strings.Contains(text, "State of an upload") || !strings.Contains(text, "completed") {
		t.Errorf("it says %q", text)
	}
	if wide := ask(t, ctx, chromedp.Evaluate[int]("document.documentElement.scrollWidth")); wide > 390 {
		t.Errorf("it is %d pixels wide", wide)
	}
	screenshot(t, ctx, "docs-phone.png")
	stack.Must(t, chromedp.Do(ctx, chromedp.EmulateViewport(1280, 800)))
	screenshot(t, ctx, "docs-desktop.png")
}

// A link with a token does not replace the token in use: the page shows whose it is, and asks. Pictures and lists stay those of
// the person who was signed in, until that person agrees. Without a session, and for a fresh token of the same person, nobody is
// asked; a link whose token is refused changes nothing.
func TestPageAsksBeforeReplacingASession(t *testing.T) {
	t.Parallel()
	r := watched(t, tramo.replicas[0])
	mine, _ := newTenant(t, "1GiB")
	theirs, _ := newTenant(t, "1GiB")
	ana, eva := tramo.userOf(t, mine, "ana", "empleado"), tramo.userOf(t, theirs, "eva", "constructora")
	ana.completes(ana.send(r, stack.PNG(20, 20), "filename", "mia.png", "filetype", "image/png"))
	eva.completes(eva.send(r, stack.PNG(20, 20), "filename", "suya.png", "filetype", "image/png"))
	ctx := browser(t)
	const dialog, session = `[data-testid="replace"]`, `[data-testid="session"]`
	stored := func() string { return ask(t, ctx, chromedp.Evaluate[string](`sessionStorage.getItem('tramo:token')`)) }
	wantSession := func(want string) {
		t.Helper()
		if got := ask(t, ctx, chromedp.Text(session)); got != want {
			t.Errorf("the page shows the session of %q, want %q", got, want)
		}
	}
	stack.Must(t, chromedp.Do(ctx,
		chromedp.EmulateViewport(390, 844, chromedp.EmulateScale(2)),
		chromedp.Navigate(r.URL+"/#token="+ana.token),
		chromedp.WaitVisible(session),
		chromedp.WaitVisible(`[data-name="mia.png"]`),
	))
	wantSession("ana · " + mine)
	for way, open := range map[string]string{
		"while the page is open": `location.hash = 'token=` + eva.token + `'`,
		"as a new page":          `location.href = '/?again#token=` + eva.token + `'`,
	} {
		stack.Must(t, chromedp.Do(ctx, chromedp.Evaluate[chromedp.Void](open), chromedp.WaitVisible(dialog)))
		text := ask(t, ctx, chromedp.Text(dialog))
		if !strings.Contains(text, "Ahora: ana · "+mine) || !strings.Contains(text, "eva · "+theirs) {
			t.Errorf("%s: the page asks %q", way, text)
		}
		if stored() != ana.token {
			t.Fatalf("%s: the link has replaced the session", way)
		}
		screenshot(t, ctx, "page-replace.png")
		stack.Must(t, chromedp.Do(ctx, chromedp.Click(dialog+` [data-action="keep"]`), chromedp.WaitNotVisible(dialog), chromedp.WaitVisible(`[data-name="mia.png"]`)))
		if at := ask(t, ctx, chromedp.Location()); stored() != ana.token || strings.Contains(at, "token") {
			t.Errorf("%s: after the person has refused, at %s", way, at)
		}
		wantSession("ana · " + mine)
	}
	stack.Must(t, chromedp.Do(ctx, chromedp.Evaluate[chromedp.Void](`location.hash = 'token=forged'`), chromedp.WaitVisible(dialog)))
	if text := ask(t, ctx, chromedp.Text(dialog)); !strings.Contains(text, "no es válido") || strings.Contains(text, "Cambiar\n") {
		t.Errorf("of a forged token the page says %q", text)
	}
	stack.Must(t, chromedp.Do(ctx, chromedp.Click(dialog+` [data-action="keep"]`), chromedp.WaitNotVisible(dialog)))
	fresh := tramo.userOf(t, mine, "ana", "constructora").token
	stack.Must(t, chromedp.Do(ctx, chromedp.Evaluate[chromedp.Void](`location.hash = 'token=`+fresh+`'`)))
	ask[bool](t, ctx, chromedp.Poll[bool](`sessionStorage.getItem('tramo:token') === '`+fresh+`'`))
	stack.Must(t, chromedp.Do(ctx,
		chromedp.Evaluate[chromedp.Void](`location.hash = 'token=`+eva.token+`'`),
		chromedp.WaitVisible(dialog),
		chromedp.Click(dialog+` [data-action="replace"]`),
		chromedp.WaitVisible(`[data-name="suya.png"]`),
	))
	wantSession("eva · " + theirs)
	if stored() != eva.token {
		t.Error("the person has agreed, and the session is still the old one")
	}
}
