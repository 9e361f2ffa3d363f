package e2e

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/tramo/tramo/test/stack"
)

// A refusal is a request with a large body, and the answer that it gets before the body has arrived.
type refusal struct {
	Name    string            `json:"name"`
	Method  string            `json:"method"`
	URL     string            `json:"url"`
	Headers map[string]string `json:"headers"`
	want    string            // status and type of problem
}

// refusedBody is how large the bodies are, and mobile how fast they arrive.
const (
	refusedBody = 8 << 20
	mobile      = 1_000_000 // bits a second
)

// refusals makes requests that are refused with each status that is decided before the body: each over a slow link of its
// own, which a reset does not pass at once, and directly.
func refusals(t *testing.T, r replica) (all []refusal) {
	t.Helper()
	u := newUser(t)
	mine := u.create(r, refusedBody)
	short := u.create(r, 10)
	taken := metadata("client_id", "of another")
	u.do("POST", r.URL+"/api/uploads", nil, "Upload-Length", "10", "Upload-Metadata", taken).want(t, 201, "")
	busyTenant, busy := newTenant(t, "50GiB")
	_, err := tramo.Tramo(t.Context(), "tenant", "set", busyTenant, "--max-uploads", "1")
	stack.Must(t, err)
	theirs := busy.create(r, refusedBody)
	busy.holdPlace(r)

	unknown := r.URL + "/api/uploads/01890a5d-ac96-774b-bcce-b302099a8057"
	for _, c := range []struct {
		method, url string
		as          user
		headers     []string
		want        string
	}{
		{"POST", r.URL + "/api/uploads", user{}, nil, "401 unauthorized"},
		{"POST", unknown, u, []string{"X-HTTP-Method-Override", "PATCH", "Content-Type", octets, "Upload-Offset", "0"}, "404 not-found"},
		{"POST", r.URL + "/api/uploads", u, []string{"Upload-Metadata", taken}, "409 client-id-taken"},
		{"POST", r.URL + "/api/uploads", u, []string{"Upload-Length", fmt.Sprint(maxSize + 1)}, "413 too-large"},
		{"POST", r.URL + "/api/uploads", u, []string{"Upload-Metadata", metadata("filetype", "text/html")}, "415 type-not-allowed"},
		{"POST", r.URL + "/api/uploads", busy, nil, "423 tenant-busy"},
		{"PATCH", mine, user{}, nil, "401 unauthorized"},
		{"PATCH", unknown, u, nil, "404 not-found"},
		{"PATCH", mine, u, []string{"Upload-Offset", "5"}, "409 offset-mismatch"},
		{"PATCH", short, u, nil, "413 beyond-length"},
		{"PATCH", mine, u, []string{"Content-Type", "text/plain"}, "415 content-type"},
		{"PATCH", theirs, busy, nil, "423 tenant-busy"},
		// Neighbours: a route that takes less, and a form.
		{"POST", r.URL + "/api/webhooks", u, []string{"Tus-Resumable", "", "Content-Type", "application/json"}, "413 request-too-large"},
		{"POST", r.URL + "/api/uploads", user{}, []string{"Tus-Resumable", "", "Content-Type", "multipart/form-data; boundary=b"}, "401 unauthorized"},
	} {
		headers := map[string]string{"Tus-Resumable": "1.0.0"}
		if c.as.token != "" {
			headers["Authorization"] = "Bearer " + c.as.token
		}
		switch c.method {
		case "POST":
			headers["Upload-Length"], headers["Content-Type"] = fmt.Sprint(refusedBody), octets
		case "PATCH":
			headers["Upload-Offset"], headers["Content-Type"] = "0", octets
		}
		for i := 0; i < len(c.headers); i += 2 {
			if headers[c.headers[i]] = c.headers[i+1]; c.headers[i+1] == "" {
				delete(headers, c.headers[i])
			}
		}
		link, err := stack.NewProxy(r.URL)
		stack.Must(t, err)
		t.Cleanup(link.Close)
		stack.Must(t, link.Bandwidth(mobile))
		status, problem, _ := strings.Cut(c.want, " ")
		for way, base := range map[string]string{"slowly": link.URL(), "directly": r.URL} {
			all = append(all, refusal{
				Name:   fmt.Sprintf("%s %s %d %s", c.method, c.want, len(all)/2, way),
				Method: c.method, URL: base + strings.TrimPrefix(c.url, r.URL), Headers: headers,
				want: status + " /problems/" + problem,
			})
		}
	}
	return all
}

// holdPlace takes the only place of the user's tenant until the test ends.
func (u user) holdPlace(r replica) {
	u.t.Helper()
	held := u.create(r, 10)
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.URL, "http://"))
	stack.Must(u.t, err)
	u.t.Cleanup(func() { conn.Close() })
	_, err = fmt.Fprintf(conn, "PATCH %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\nContent-Type: %s\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n",
		strings.TrimPrefix(held, r.URL), u.token, octets)
	stack.Must(u.t, err)
	line, err := bufio.NewReader(conn).ReadString('\n') // once the body is asked for, the place is taken
	stack.Must(u.t, err)
	if !strings.HasPrefix(line, "HTTP/1.1 100") {
		u.t.Fatalf("the upload that holds the place is answered with %s", line)
	}
}

// Whatever a client is, and however late it looks at the answer, it reads why its body was refused.
func TestRefusedBodyIsAnswered(t *testing.T) {
	t.Parallel()
	// Whoever holds the only place keeps it, although it sends nothing for minutes.
	r := tramo.serves(t, "TRAMO_CORS_ORIGINS=*", "TRAMO_NETWORK_TIMEOUT=10m", "TRAMO_LEAST_RATE=0")
	requests := refusals(t, r)
	clients := map[string]func(*testing.T, []refusal) map[string]string{
		"node": sendByNode, "curl": sendByCurl, "chromium": sendByChromium, "socket": sendBySocket,
	}
	for name, send := range clients {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := send(t, requests)
			for _, c := range requests {
				answers := 0
				for what, said := range got {
					if _, of, _ := strings.Cut(what, " "); of != c.Name {
						continue
					}
					answers++
					if said != c.want {
						t.Errorf("%s: %s, want %s", what, said, c.want)
					}
				}
				if answers == 0 {
					t.Errorf("%s was not sent", c.Name)
				}
			}
		})
	}
}

func sendByNode(t *testing.T, requests []refusal) (got map[string]string) {
	root, err := stack.RepoRoot()
	stack.Must(t, err)
	asked, err := json.Marshal(map[string]any{"requests": requests, "size": refusedBody})
	stack.Must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := stack.Run(ctx, stack.ProcessConfig{
		Path: "/usr/bin/env", Args: []string{"node", filepath.Join(root, "test/e2e/refused.mjs")},
		Env: stack.CleanEnv("TRAMO_TEST_REQUESTS=" + string(asked)),
	})
	stack.Must(t, err)
	stack.Must(t, json.Unmarshal([]byte(out), &got))
	return got
}

// each sends all requests at once.
func each(requests []refusal, send func(refusal) string, name string, got map[string]string, mu *sync.Mutex, wait *sync.WaitGroup) {
	for _, c := range requests {
		wait.Go(func() {
			said := send(c)
			mu.Lock()
			defer mu.Unlock()
			got[name+" "+c.Name] = said
		})
	}
}

// curl asks whether its body is wanted, unless it is told not to.
func sendByCurl(t *testing.T, requests []refusal) map[string]string {
	file := filepath.Join(t.TempDir(), "body")
	write(t, file, bytes.Repeat([]byte("x"), refusedBody))
	got, mu, wait := make(map[string]string), sync.Mutex{}, sync.WaitGroup{}
	for name, extra := range map[string][]string{"asks": nil, "sends": {"-H", "Expect:"}} {
		each(requests, func(c refusal) string {
			args := append([]string{"-sS", "-X", c.Method, "--data-binary", "@" + file, "-w", "\n%{http_code}"}, extra...)
			for k, v := range c.Headers {
				args = append(args, "-H", k+": "+v)
			}
			out, err := exec.CommandContext(t.Context(), "curl", append(args, c.URL)...).CombinedOutput()
			body, status, _ := strings.Cut(string(out), "\n")
			if err != nil {
				return fmt.Sprintf("%v: %s", err, out)
			}
			return said(status, []byte(body))
		}, name, got, &mu, &wait)
	}
	wait.Wait()
	return got
}

// said is a status and the type of a problem.
func said(status string, body []byte) string {
	var p problem
	_ = json.Unmarshal(body, &p) // then it has none
	return status + " " + cmp.Or(p.Type, string(body))
}

// A browser sends the whole body before it looks for an answer.
func sendByChromium(t *testing.T, requests []refusal) (got map[string]string) {
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte(`<!doctype html><title>other</title><script>
async function go({ requests, size }) {
  const results = {}
  await Promise.all(requests.map(async ({ name, method, url, headers }) => {
    try {
      const answer = await fetch(url, { method, headers, body: new Blob([new Uint8Array(size)]) })
      const text = await answer.text()
      results['fetch ' + name] = answer.status + ' ' + (text && JSON.parse(text).type)
    } catch (e) {
      results['fetch ' + name] = String(e)
    }
  }))
  document.title = JSON.stringify(results)
}
</script>`))
	}))
	t.Cleanup(other.Close)
	asked, err := json.Marshal(map[string]any{"requests": requests, "size": refusedBody})
	stack.Must(t, err)
	ctx := browser(t)
	stack.Must(t, chromedp.Do(ctx, chromedp.Navigate(other.URL+"/"), chromedp.WaitReady("script")))
	ask[any](t, ctx, chromedp.Evaluate[any](fmt.Sprintf("go(%s); 0", asked)))
	ask[bool](t, ctx, chromedp.Poll[bool](`document.title !== "other"`, chromedp.WithPollingTimeout(0)))
	stack.Must(t, json.Unmarshal([]byte(ask(t, ctx, chromedp.Title())), &got))
	return got
}

// The simplest client sends its request to the end, and then reads.
func sendBySocket(t *testing.T, requests []refusal) map[string]string {
	got, mu, wait := make(map[string]string), sync.Mutex{}, sync.WaitGroup{}
	for name, framing := range map[string]string{"length": fmt.Sprintf("Content-Length: %d", refusedBody), "chunked": "Transfer-Encoding: chunked"} {
		asked := slices.Clone(requests)
		if name == "chunked" { // and no length that could be too large
			asked = slices.DeleteFunc(asked, func(c refusal) bool {
				return strings.HasSuffix(c.want, "/beyond-length") || strings.HasSuffix(c.want, "/request-too-large")
			})
		}
		each(asked, func(c refusal) string {
			host, path, _ := strings.Cut(strings.TrimPrefix(c.URL, "http://"), "/")
			conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", host)
			if err != nil {
				return err.Error()
			}
			defer conn.Close()
			var head bytes.Buffer
			fmt.Fprintf(&head, "%s /%s HTTP/1.1\r\nHost: %s\r\n%s\r\n", c.Method, path, host, framing)
			for k, v := range c.Headers {
				fmt.Fprintf(&head, "%s: %s\r\n", k, v)
			}
			head.WriteString("\r\n")
			body := io.Reader(io.LimitReader(endless{}, refusedBody))
			if name == "chunked" {
				body = io.MultiReader(strings.NewReader(fmt.Sprintf("%x\r\n", refusedBody)), body, strings.NewReader("\r\n0\r\n\r\n"))
			}
			if _, err := io.Copy(conn, io.MultiReader(&head, body)); err != nil {
				return "sending: " + err.Error()
			}
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				return "receiving: " + err.Error()
			}
			defer res.Body.Close()
			text, err := io.ReadAll(res.Body)
			if err != nil {
				return "receiving: " + err.Error()
			}
			return said(fmt.Sprint(res.StatusCode), text)
		}, name, got, &mu, &wait)
	}
	wait.Wait()
	return got
}

// endless is a body of one letter.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}
