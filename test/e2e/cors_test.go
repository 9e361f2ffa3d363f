package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/tramo/tramo/test/stack"
)

// A page of another origin sends a file with tus-js-client, and then reads an error.
const foreignPage = `<!doctype html><title>other</title><script src="/tus.js"></script><script>
async function go(endpoint, token) {
  const headers = { Authorization: 'Bearer ' + token }
  const upload = new tus.Upload(new Blob([new Uint8Array(3 << 20).fill(65)]), {
    endpoint, headers, chunkSize: 1 << 20, metadata: { filename: 'a.txt', filetype: 'text/plain' }, retryDelays: null,
    onError: (e) => { document.title = 'upload: ' + e },
    onSuccess: async () => {
      const missing = await fetch(endpoint + '/00000000-0000-7000-8000-000000000000', { headers })
      const problem = await missing.json()
      const refused = await fetch(endpoint, { headers: { Authorization: 'Bearer x' } })
      const form = new FormData()
      form.append('project', 'torre')
      form.append('file', new File(['hello'], 'b.txt', { type: 'text/plain' }))
      const posted = await fetch(endpoint, { method: 'POST', headers, body: form })
      document.title = [missing.status, problem.type, problem.request_id === missing.headers.get('X-Request-Id'),
        refused.status, (await refused.json()).type, posted.status, (await posted.json()).project, upload.url.startsWith(endpoint)].join(' ')
    },
  })
  upload.start()
}
</script>`

// In a real browser, a page of an origin that is let in uploads by tus and by a form, and reads errors and their
// headers; to a page of another origin the API does not speak.
func TestCORSOfAnotherOrigin(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	root, err := stack.RepoRoot()
	stack.Must(t, err)
	script, err := os.ReadFile(filepath.Join(root, "web/node_modules/tus-js-client/dist/tus.min.js"))
	stack.Must(t, err)
	serve := func() string {
		other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/tus.js" {
				w.Header().Set("Content-Type", "text/javascript")
				_, _ = w.Write(script)
				return
			}
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte(foreignPage))
		}))
		t.Cleanup(other.Close)
		return other.URL
	}
	friend, stranger := serve(), serve()
	r, err := tramo.serve(stack.Context(t), "TRAMO_CORS_ORIGINS="+friend)
	stack.Must(t, err)
	t.Cleanup(func() { stack.Must(t, r.Stop()) })
	ctx := browser(t)
	for origin, want := range map[string]string{
		friend: "404 /problems/not-found true 401 /problems/unauthorized 201 torre true", stranger: "upload: ",
	} {
		stack.Must(t, chromedp.Do(ctx, chromedp.Navigate(origin+"/"), chromedp.WaitReady("script")))
		ask[any](t, ctx, chromedp.Evaluate[any](fmt.Sprintf("go(%q, %q); 0", r.URL+"/api/uploads", u.token)))
		ask[bool](t, ctx, chromedp.Poll[bool](`document.title !== "other"`))
		if got := ask(t, ctx, chromedp.Title()); got != want && (origin == friend || len(got) < len(want) || got[:len(want)] != want) {
			t.Errorf("%s: %s, want %s", origin, got, want)
		}
	}
}
