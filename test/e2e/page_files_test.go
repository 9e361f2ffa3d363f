package e2e

import (
	"encoding/base64"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"github.com/tramo/tramo/test/stack"
)

// What an iPhone took, and a document that a browser printed, sent through the page: it shows their pictures, and the
// document's title and pages.
func TestPageShowsRealFiles(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	r := watched(t, tramo.replicas[0])
	ctx := browser(t)
	dir := t.TempDir()
	document := filepath.Join(dir, "informe.pdf")
	write(t, document, printed(t, `<title>Informe de obra 14</title><h1 style="background:#fc0;font:96px sans-serif">Torre Norte</h1>
		<p>Avance de la semana</p><p style="break-before:page">Segunda página</p>`))
	photo := filepath.Join(dir, "iphone.heic")
	write(t, photo, read(t, iPhonePhoto(t)))
	stack.Must(t, chromedp.Do(ctx,
		chromedp.EmulateViewport(390, 844, chromedp.EmulateScale(2)),
		chromedp.Navigate(r.URL+"/#token="+u.token),
		chromedp.WaitReady("#files"),
		chromedp.SetUploadFiles("#files", []string{photo, document}),
	))
	for _, name := range []string{"iphone.heic", "informe.pdf"} {
		row := `[data-testid="upload"][data-name="` + name + `"][data-status="completed"]`
		stack.Must(t, chromedp.Do(ctx, chromedp.WaitVisible(row+` img[data-testid="thumbnail"]`)))
		ask[bool](t, ctx, chromedp.Poll[bool](`(() => { const i = document.querySelector('`+row+` img'); return i.complete && i.naturalWidth > 0 })()`))
		if pixels := ask(t, ctx, chromedp.Evaluate[int](`(() => { const i = document.querySelector('`+row+` img'); return i.naturalWidth * i.naturalHeight })()`)); pixels < 160*100 {
			t.Errorf("%s: its picture has %d pixels", name, pixels)
		}
	}
	if text := ask(t, ctx, chromedp.Text(`[data-testid="upload"][data-name="informe.pdf"]`)); !strings.Contains(text, "Informe de obra 14") || !strings.Contains(text, "2 páginas") {
		t.Errorf("of the document the page says %q", text)
	}
	screenshot(t, ctx, "files-phone.png")
	stack.Must(t, chromedp.Do(ctx, chromedp.EmulateViewport(1280, 800)))
	screenshot(t, ctx, "files-desktop.png")
}

// printed is a page of HTML as a browser prints it to PDF.
func printed(t *testing.T, html string) []byte {
	t.Helper()
	ctx := browser(t)
	stack.Must(t, chromedp.Do(ctx, chromedp.Navigate("data:text/html;charset=utf-8;base64,"+base64.StdEncoding.EncodeToString([]byte(html)))))
	result, err := chromedp.Call(ctx, page.PrintToPDF, page.PrintToPDFParams{PrintBackground: new(true)})
	stack.Must(t, err)
	return result.Data
}

// iPhonePhoto is one of an iPhone 11 Pro, which a module that is compiled in carries among its tests.
func iPhonePhoto(t *testing.T) string {
	t.Helper()
	root, err := stack.RepoRoot()
	stack.Must(t, err)
	cmd := exec.CommandContext(stack.Context(t), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/h2non/bimg")
	cmd.Dir = root
	dir, err := cmd.Output()
	stack.Must(t, err)
	return filepath.Join(strings.TrimSpace(string(dir)), "testdata", "test.heic")
}
