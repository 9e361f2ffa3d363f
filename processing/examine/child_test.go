package examine_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/processing/examine"
	"github.com/tramo/tramo/processing/vips"
)

// The test binary is its own child, as the worker is. An init and not TestMain, so that the package's
// other tests may have theirs.
func init() {
	if len(os.Args) < 3 || !slices.Contains([]string{"examine", "misbehave"}, os.Args[1]) {
		return
	}
	if os.Args[1] == "misbehave" {
		misbehave(os.Args[2])
	}
	if err := examine.ServeChild(os.Args[2:], os.Stdin, os.Stdout, vips.Render); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// What a misbehaving child keeps, so that the compiler keeps it too.
var (
	spun  int
	hoard [][]byte
)

// misbehave is a child taken over by the file that it decodes.
func misbehave(how string) {
	render := func([]byte, int, []int, int) (examine.Rendered, error) {
		switch how {
		case "hang":
			select {}
		case "spin":
			for turns := 0; ; turns++ {
				spun = turns
			}
		case "hoard":
			for {
				hoard = append(hoard, bytes.Repeat([]byte("x"), 16<<20))
			}
		case "die":
			_ = syscall.Kill(os.Getpid(), syscall.SIGSEGV)
			select {}
		case "flood":
			picture := append([]byte("RIFFxxxxWEBP"), make([]byte, 2<<20)...)
			return examine.Rendered{Width: 9, Height: 9, Pictures: []examine.Picture{{Size: 160, Width: 9, Height: 9, WebP: picture}}}, nil
		case "foreign":
			return examine.Rendered{Width: 9, Height: 9, Pictures: []examine.Picture{{Size: 160, Width: 9, Height: 9, WebP: []byte("<script>alert(1)</script>")}}}, nil
		case "leave children":
			leaveChild()
		case "look around":
			fmt.Fprintln(os.Stderr, lookAround())
			os.Exit(3)
		}
		return examine.Rendered{}, errors.New("unreadable")
	}
	if err := examine.ServeChild(os.Args[len(os.Args)-1:], os.Stdin, os.Stdout, render); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// leaveChild leaves a process behind that holds on to the pipe.
func leaveChild() {
	straggler := exec.Command("/bin/sleep", "300")
	straggler.Stdout = os.Stdout
	if err := straggler.Start(); err != nil {
		panic(err)
	}
	fmt.Fprintf(os.Stderr, "left %d\n", straggler.Process.Pid)
	os.Exit(3)
}

type surroundings struct {
	Environment []string
	Status      string
	Files       []string
}

func lookAround() string {
	var seen surroundings
	seen.Environment = os.Environ()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		panic(err)
	}
	for line := range strings.SplitSeq(string(status), "\n") {
		if strings.HasPrefix(line, "NoNewPrivs:") {
			seen.Status = line
		}
	}
	for fd := range 3 {
		to, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		seen.Files = append(seen.Files, fmt.Sprint(to, err))
	}
	if _, err := os.Stdin.Write([]byte("x")); err == nil {
		seen.Files = append(seen.Files, "the input can be written")
	}
	said, err := json.Marshal(seen)
	if err != nil {
		panic(err)
	}
	return string(said)
}

func photo(t *testing.T, width, height int) []byte {
	t.Helper()
	picture := image.NewRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			picture.SetRGBA(x, y, color.RGBA{uint8(x), uint8(y), uint8(x * y), 255})
		}
	}
	var out bytes.Buffer
	if err := jpeg.Encode(&out, picture, nil); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// unlinked returns a file that holds content, without a name and with its offset at the end, as a worker
// has it after a download.
func unlinked(t *testing.T, content []byte) *os.File {
	t.Helper()
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	if err := os.Remove(file.Name()); err != nil {
		t.Fatal(err)
	}
	if _, err := file.Write(content); err != nil {
		t.Fatal(err)
	}
	return file
}

// roomy leaves the race detector, which keeps several bytes for each of ours, its memory.
var roomy = examine.Limits{Memory: 4 << 30}

// someone is the tenant whose files these are.
var someone = uuid.New()

var request = examine.DrawRequest{ContentType: "image/jpeg", Sizes: []int{480, 160}}

func TestExamineAPhoto(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "photo.jpg")
	if err := os.WriteFile(path, photo(t, 900, 600), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("exiftool", "-q", "-overwrite_original", "-n", "-Orientation=6", "-Make=Probe", path).CombinedOutput()
	if err != nil {
		t.Fatalf("exiftool: %v\n%s", err, out)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	examiner := examine.Examiner{Limits: roomy}
	said, err := examiner.ReadFacts(t.Context(), someone, unlinked(t, content), "image/jpeg")
	if err != nil || said.CameraMake != "Probe" || said.Orientation != 6 {
		t.Errorf("facts %+v, %v", said, err)
	}
	found, err := examiner.Draw(t.Context(), someone, unlinked(t, content), request)
	if err != nil {
		t.Fatal(err)
	}
	if found.Width != 600 || found.Height != 900 || found.Partial {
		t.Errorf("found %+v", found)
	}
	if len(found.Pictures) != 2 || found.Pictures[0].Height != 480 || found.Pictures[1].Width != 107 {
		t.Errorf("%d pictures", len(found.Pictures))
	}
}

// A photo cut off on the way is drawn as far as it goes, and said to be cut off.
func TestExamineATruncatedPhoto(t *testing.T) {
	t.Parallel()
	content := photo(t, 900, 600)
	examiner := examine.Examiner{Limits: roomy}
	found, err := examiner.Draw(t.Context(), someone, unlinked(t, content[:len(content)/2]), request)
	if err != nil || !found.Partial || len(found.Pictures) != 2 {
		t.Errorf("partial=%t, %d pictures, %v", found.Partial, len(found.Pictures), err)
	}
	_, err = examiner.Draw(t.Context(), someone, unlinked(t, content[:100]), request)
	var unreadable *examine.UnreadableError
	if !errors.As(err, &unreadable) || !strings.Contains(unreadable.Sentence, "cut off") {
		t.Errorf("%v, want an UnreadableError that says cut off", err)
	}
}

func TestExamineWhatIsNoPicture(t *testing.T) {
	t.Parallel()
	examiner := examine.Examiner{Limits: roomy}
	for name, content := range map[string]string{
		"garbage": strings.Repeat("garbage ", 100), "empty": "", "pdf": "%PDF-1.7\n", "svg": "<svg></svg>",
		"damaged": "\xFF\xD8\xFF\xE0" + strings.Repeat("x", 400) + "\xFF\xD9",
	} {
		_, err := examiner.Draw(t.Context(), someone, unlinked(t, []byte(content)), request)
		var unreadable *examine.UnreadableError
		if !errors.Is(err, examine.ErrUnreadable) || !errors.As(err, &unreadable) || unreadable.Sentence == "" {
			t.Errorf("%s: %v, want ErrUnreadable", name, err)
		}
	}
	for _, contentType := range []string{"application/pdf", "text/plain", "image/vnd.dwg", "video/mp4", ""} {
		found, err := examiner.Draw(t.Context(), someone, unlinked(t, []byte("x")), examine.DrawRequest{ContentType: contentType, Sizes: []int{160}})
		if err != nil || len(found.Pictures) != 0 {
			t.Errorf("%s: %v, want nothing and no error", contentType, err)
		}
	}
	tooMany := request
	tooMany.MaxPixels = 1000
	if found, err := examiner.Draw(t.Context(), someone, unlinked(t, photo(t, 90, 60)), tooMany); err != nil || found.Problem != examine.ProblemTooLarge {
		t.Errorf("%+v, %v, want %s", found, err, examine.ProblemTooLarge)
	}
}

// Whatever a child does that was taken over, its parent gets an error that names it, and within its limits.
func TestMisbehavingChildren(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		how    string
		limits examine.Limits
		want   string // a limit, or "" for a crash
	}{
		{"hang", examine.Limits{Wall: time.Second}, examine.LimitTime},
		{"spin", examine.Limits{CPU: time.Second}, examine.LimitCPU},
		{"hoard", examine.Limits{}, examine.LimitMemory},
		{"flood", examine.Limits{Output: 1 << 20}, examine.LimitOutput},
		{"die", examine.Limits{}, ""},
		{"foreign", examine.Limits{}, ""},
	} {
		t.Run(c.how, func(t *testing.T) {
			t.Parallel()
			examiner := examine.Examiner{Limits: c.limits, Command: []string{"/proc/self/exe", "misbehave", c.how}}
			_, err := examiner.Draw(t.Context(), someone, unlinked(t, photo(t, 90, 60)), request)
			var limit *examine.LimitError
			switch {
			case c.want == "" && !errors.Is(err, examine.ErrChildCrashed):
				t.Errorf("%v, want ErrChildCrashed", err)
			case c.want != "" && (!errors.As(err, &limit) || limit.Limit != c.want):
				t.Errorf("%v, want the limit of %s", err, c.want)
			}
		})
	}
}

// Whoever stops waiting gets the context's error, and the child is gone.
func TestExamineIsCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	examiner := examine.Examiner{Command: []string{"/proc/self/exe", "misbehave", "hang"}}
	if _, err := examiner.Draw(ctx, someone, unlinked(t, photo(t, 90, 60)), request); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want the context's error", err)
	}
}

// A process that the child leaves behind is ended with its group, before Examine returns.
func TestNothingSurvives(t *testing.T) {
	t.Parallel()
	examiner := examine.Examiner{Command: []string{"/proc/self/exe", "misbehave", "leave children"}, Limits: examine.Limits{Wall: 3 * time.Second}}
	_, err := examiner.Draw(t.Context(), someone, unlinked(t, photo(t, 90, 60)), request)
	left := regexp.MustCompile(`left (\d+)`).FindStringSubmatch(fmt.Sprint(err))
	if left == nil {
		t.Fatalf("%v, want what the child said of the process it left behind", err)
	}
	// Its own parent is dead: init reaps it when it likes.
	status, err := os.ReadFile("/proc/" + left[1] + "/stat")
	if err == nil && !strings.Contains(string(status), ") Z ") {
		t.Errorf("process %s survives: %s", left[1], status)
	}
}

// The child knows nothing of its parent's environment, cannot gain privileges, and cannot write to the file.
func TestChildHoldsNothing(t *testing.T) {
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret") // and so not parallel
	t.Setenv("DATABASE_URL", "secret")
	examiner := examine.Examiner{Command: []string{"/proc/self/exe", "misbehave", "look around"}}
	_, err := examiner.Draw(t.Context(), someone, unlinked(t, photo(t, 90, 60)), request)
	if !errors.Is(err, examine.ErrChildCrashed) {
		t.Fatalf("%v, want ErrChildCrashed with what the child saw", err)
	}
	var seen surroundings
	said := err.Error()
	if err := json.Unmarshal([]byte(said[strings.IndexByte(said, '{'):]), &seen); err != nil {
		t.Fatalf("%v in %s", err, said)
	}
	known := []string{"TMPDIR", "VIPS_CONCURRENCY", "VIPS_BLOCK_UNTRUSTED", "VIPS_WARNING", "MALLOC_ARENA_MAX", "GOMAXPROCS", "GOMEMLIMIT", "GOTRACEBACK"}
	for _, variable := range seen.Environment {
		if name, _, _ := strings.Cut(variable, "="); !slices.Contains(known, name) {
			t.Errorf("the child has %s", variable)
		}
		if directory, ok := strings.CutPrefix(variable, "TMPDIR="); ok {
			if _, err := os.Stat(directory); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the child's directory is still there (%v)", err)
			}
		}
	}
	if !strings.HasSuffix(seen.Status, "1") {
		t.Errorf("%q, want NoNewPrivs 1", seen.Status)
	}
	if len(seen.Files) != 3 {
		t.Errorf("files %q", seen.Files)
	}
}
