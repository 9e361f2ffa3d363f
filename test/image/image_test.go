//go:build image

// Package image runs the images that make image-test has built: their files as a read-only root, a user that is not root, no
// capabilities, no new privileges.
package image

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tramo/tramo/test/stack"
)

var ground stack.Ground

func TestMain(m *testing.M) { ground.Main(m) }

// root is the directory with an image's files.
func root(image string) string { return filepath.Join(os.Getenv("TRAMO_TEST_IMAGES"), image) }

// inside describes a program in an image as a container engine would run it. It shares this machine's network, and sees of its
// files only the image's, and what is mounted besides.
func inside(image string, env []string, mounts []string, program ...string) stack.ProcessConfig {
	args := []string{
		"--reuid=65532", "--regid=65532", "--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all",
		"bwrap", "--die-with-parent", "--unshare-user", "--unshare-pid", "--unshare-ipc", "--cap-drop", "ALL",
		"--ro-bind", root(image), "/", "--tmpfs", "/tmp",
	}
	args = append(append(args, mounts...), "--")
	return stack.ProcessConfig{Path: "setpriv", Name: filepath.Base(program[0]), Args: append(args, program...), Env: env}
}

// overTCP returns an address at which what listens on a socket of this machine is reached.
func overTCP(t *testing.T, socket string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	stack.Must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("unix", socket)
			if err != nil {
				_ = client.Close()
				continue
			}
			go func() {
				_, _ = io.Copy(server, client)
				_ = server.(*net.UnixConn).CloseWrite()
			}()
			go func() {
				_, _ = io.Copy(client, server)
				_ = errors.Join(client.Close(), server.Close())
			}()
		}
	}()
	return l.Addr().String()
}

// The photo of an iPhone 15 Pro with iOS 26, and a PDF, sent to the image tramo, come out of the image tramo-worker with thumbnails.
func TestImages(t *testing.T) {
	// Before the S3 server takes this process to another directory.
	module := strings.TrimSpace(stack.Output(t, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/bep/imagemeta"))
	heic, err := os.ReadFile(filepath.Join(module, "testdata/images/iphone.heic"))
	stack.Must(t, err)
	postgres, bucket, clamd := stack.Get(t, ground.Postgres), stack.Get(t, ground.S3), stack.Get(t, ground.Clamd)
	ctx := stack.Context(t)
	stack.Must(t, postgres.CreateDatabase(ctx, "image", "template0"))
	at, err := url.Parse(postgres.URL("", "image"))
	stack.Must(t, err)
	address := overTCP(t, filepath.Join(at.Query().Get("host"), ".s.PGSQL."+at.Query().Get("port")))
	in := &stack.Installation{Database: "image", Postgres: postgres, S3: bucket, Bucket: bucket.Bucket(), Endpoint: bucket.Endpoint()}
	env := func(role string, extra ...string) []string {
		own := slices.DeleteFunc(in.Env(role, extra...), func(kv string) bool { return !strings.HasPrefix(kv, "TRAMO_") && !strings.HasPrefix(kv, "AWS_") })
		return append(own, "PATH="+os.Getenv("PATH"), "TRAMO_DATABASE_URL=postgres://"+role+"@"+address+"/image?sslmode=disable")
	}
	tramo := func(args ...string) string {
		out, err := stack.Run(ctx, inside("tramo", env("postgres"), nil, append([]string{"/usr/bin/tramo"}, args...)...))
		stack.Must(t, err)
		return strings.TrimSpace(out)
	}
	tramo("migrate")
	tramo("tenant", "add", "sur")
	token := tramo("token", "--tenant=sur", "--user=ana", "--role=constructora")

	server, err := stack.Start(inside("tramo", env("tramo_api"), nil, "/usr/bin/tramo", "serve"))
	stack.Must(t, err)
	t.Cleanup(server.Kill) // bubblewrap passes no SIGTERM on
	api, err := server.WaitForLine(ctx, "msg=serving address=")
	stack.Must(t, err)
	ops, err := server.WaitForLine(ctx, `msg="serving operations" address=`)
	stack.Must(t, err)
	stack.Must(t, server.WaitForURL(ctx, "http://"+ops+"/readyz"))
	// A worker reads /proc and /dev, which every engine mounts.
	worker, err := stack.Start(inside("tramo-worker", env("tramo_worker", "TRAMO_CLAMD=tcp://"+overTCP(t, strings.TrimPrefix(clamd.Address(), "unix:"))),
		[]string{"--proc", "/proc", "--dev", "/dev"}, "/usr/bin/tramo-worker"))
	stack.Must(t, err)
	t.Cleanup(worker.Kill)
	workerOps, err := worker.WaitForLine(ctx, `msg="serving operations" address=`)
	stack.Must(t, err)

	for name, content := range map[string][]byte{"image/heic": heic, "application/pdf": stack.PDF(stack.PDFConfig{Content: stack.RedCorner})} {
		upload := send(t, "http://"+api, token, name, content)
		var got struct {
			Status     string
			Thumbnails []json.RawMessage
		}
		stack.Until(t, name+" is processed", func() bool {
			answer := ask(t, http.MethodGet, upload, nil, http.StatusOK, map[string]string{"Authorization": "Bearer " + token})
			stack.Must(t, json.NewDecoder(answer.Body).Decode(&got))
			return got.Status == "completed" || got.Status == "failed"
		})
		if got.Status != "completed" || len(got.Thumbnails) == 0 {
			t.Errorf("%s: %s with %d thumbnails\n%s", name, got.Status, len(got.Thumbnails), worker.LastOutput())
		}
	}

	// Each is asked for its health by its own program, with its own settings.
	for _, c := range []struct{ image, ops string }{{"tramo", ops}, {"tramo-worker", workerOps}} {
		_, err := stack.Run(ctx, inside(c.image, []string{"PATH=" + os.Getenv("PATH"), "TRAMO_OPS_LISTEN=" + c.ops}, nil, "/usr/bin/"+c.image, "healthcheck", "--ready"))
		stack.Must(t, err)
	}
	if _, err := stack.Run(ctx, inside("tramo", []string{"PATH=" + os.Getenv("PATH"), "TRAMO_OPS_LISTEN=127.0.0.1:1"}, nil, "/usr/bin/tramo", "healthcheck")); err == nil {
		t.Error("nobody listens, and tramo is healthy")
	}
}

// send creates an upload with its content in one request, and returns its address.
func send(t *testing.T, api, token, mediaType string, content []byte) (location string) {
	t.Helper()
	encode := base64.StdEncoding.EncodeToString
	answer := ask(t, http.MethodPost, api+"/api/uploads", content, http.StatusCreated, map[string]string{
		"Authorization": "Bearer " + token, "Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream",
		"Upload-Length": strconv.Itoa(len(content)), "Upload-Metadata": "filename " + encode([]byte("file")) + ",filetype " + encode([]byte(mediaType)),
	})
	return answer.Header.Get("Location")
}

// ask sends a request and reads the whole answer.
func ask(t *testing.T, method, to string, content []byte, status int, header map[string]string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(stack.Context(t), method, to, bytes.NewReader(content))
	stack.Must(t, err)
	for k, v := range header {
		r.Header.Set(k, v)
	}
	answer, err := http.DefaultClient.Do(r)
	stack.Must(t, err)
	body, err := io.ReadAll(answer.Body)
	stack.Must(t, errors.Join(err, answer.Body.Close()))
	if answer.StatusCode != status {
		t.Fatalf("%s %s: %s %s", method, to, answer.Status, body)
	}
	answer.Body = io.NopCloser(bytes.NewReader(body))
	return answer
}

// The server's image has one program, certificates, and nothing that could run or be written.
func TestServerImageHasNothingElse(t *testing.T) {
	var files []string
	err := filepath.WalkDir(root("tramo"), func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			files = append(files, strings.TrimPrefix(path, root("tramo")))
		}
		return err
	})
	stack.Must(t, err)
	if !slices.Equal(files, []string{"/etc/ssl/certs/ca-certificates.crt", "/usr/bin/tramo"}) {
		t.Errorf("it has %q", files)
	}
}

// No program of the worker's image runs with the rights of its owner or group.
func TestWorkerImageHasNoSetuid(t *testing.T) {
	seen := 0
	err := filepath.WalkDir(root("tramo-worker"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Mode()&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
			t.Errorf("%s: %s", path, info.Mode())
		}
		seen++
		return err
	})
	stack.Must(t, err)
	if seen < 1000 {
		t.Errorf("only %d files: this is not the image", seen)
	}
}
