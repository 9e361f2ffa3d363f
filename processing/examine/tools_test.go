package examine_test

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/image/bmp"
	"golang.org/x/image/webp"

	"github.com/tramo/tramo/processing/examine"
	"github.com/tramo/tramo/processing/sandbox"
	"github.com/tramo/tramo/test/stack"
)

const (
	dwgType  = "image/vnd.dwg"
	docxType = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
	xlsxType = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
	pptxType = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
	odtType  = "application/vnd.oasis.opendocument.text"
	pdfType  = "application/pdf"
)

var (
	red  = color.RGBA{255, 0, 0, 255}
	blue = color.RGBA{0, 0, 255, 255}
)

// The test program is a tool that was taken over: it gives back what it got.
func init() {
	if len(os.Args) > 1 && os.Args[1] == "-f" {
		_, _ = io.Copy(os.Stdout, os.Stdin)
		os.Exit(0)
	}
}

// withTools is one for all tests: its processes end with the test program.
var withTools = sync.OnceValue(func() *examine.Examiner {
	return &examine.Examiner{Box: sandbox.New(sandbox.Config{Limits: roomy, Env: examine.Environment()}), Tools: examine.FindTools()}
})

// halves is a picture that is red above and blue below.
func halves(width, height int) image.Image {
	picture := image.NewRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			if picture.SetRGBA(x, y, red); y >= height/2 {
				picture.SetRGBA(x, y, blue)
			}
		}
	}
	return picture
}

func asPNG(t *testing.T, picture image.Image) []byte {
	t.Helper()
	var out bytes.Buffer
	stack.Must(t, png.Encode(&out, picture))
	return out.Bytes()
}

// film has ffmpeg make a video; the extension says of which kind.
func film(t *testing.T, extension string, arguments ...string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "film."+extension)
	stack.Output(t, "ffmpeg", append(append([]string{"-nostdin", "-loglevel", "error"}, arguments...), path)...)
	content, err := os.ReadFile(path)
	stack.Must(t, err)
	return content
}

// colour has ffmpeg film one colour for some seconds.
func colour(t *testing.T, extension, name, seconds string, arguments ...string) []byte {
	t.Helper()
	return film(t, extension, append([]string{"-f", "lavfi", "-i", "color=c=" + name + ":s=320x180:r=25:d=" + seconds, "-pix_fmt", "yuv420p"}, arguments...)...)
}

// A spot is a place in a picture, in parts of its sides, and the colour that is expected there.
type spot struct {
	x, y float64
	want color.RGBA
}

func look(t *testing.T, name string, picture examine.Thumbnail, spots []spot) {
	t.Helper()
	drawn, err := webp.Decode(bytes.NewReader(picture.WebP))
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	for _, s := range spots {
		x, y := int(s.x*float64(picture.Width)), int(s.y*float64(picture.Height))
		r, g, b, _ := drawn.At(x, y).RGBA()
		for i, pair := range [][2]int{{int(r >> 8), int(s.want.R)}, {int(g >> 8), int(s.want.G)}, {int(b >> 8), int(s.want.B)}} {
			if pair[0]-pair[1] > 24 || pair[1]-pair[0] > 24 {
				t.Errorf("%s: channel %d at %g,%g is %d, want %d", name, i, s.x, s.y, pair[0], pair[1])
			}
		}
	}
}

// The thumbnail of a document is its first page or its preview, that of a video a frame: the right one, the right way up, in
// its colours.
func TestThumbnailsOfDocumentsAndVideos(t *testing.T) {
	t.Parallel()
	flag := asPNG(t, halves(200, 100))
	var file bytes.Buffer
	stack.Must(t, bmp.Encode(&file, halves(200, 100)))
	white := color.RGBA{255, 255, 255, 255}
	upright := []spot{{.5, .2, red}, {.5, .8, blue}}
	corner := []spot{{.1, .95, red}, {.9, .95, white}, {.1, .1, white}}
	bands := []spot{{.12, .5, color.RGBA{245, 0, 0, 255}}, {.37, .5, color.RGBA{245, 245, 245, 255}}, {.62, .5, color.RGBA{128, 128, 128, 255}}, {.87, .5, color.RGBA{0, 0, 245, 255}}}
	whole := func(c color.RGBA) []spot { return []spot{{.1, .1, c}, {.9, .9, c}} }
	for name, c := range map[string]struct {
		contentType   string
		content       []byte
		width, height int // of the picture of 480 pixels
		spots         []spot
	}{
		"docx":                {docxType, stack.OfficeDocument(stack.Word, "docProps/thumbnail.jpeg", flag), 200, 100, upright},
		"xlsx":                {xlsxType, stack.OfficeDocument(stack.Excel, "docProps/thumbnail.jpeg", flag), 200, 100, upright},
		"pptx":                {pptxType, stack.OfficeDocument(stack.PowerPoint, "docProps/thumbnail.jpeg", flag), 200, 100, upright},
		"odt":                 {odtType, stack.OpenDocument(flag), 200, 100, upright},
		"dwg with a bitmap":   {dwgType, stack.DWG("AC1015", stack.DWGEntry{Code: stack.DWGBitmap, Data: file.Bytes()[14:]}), 200, 100, upright},
		"dwg with a png":      {dwgType, stack.DWG("AC1032", stack.DWGEntry{Code: stack.DWGPNG, Data: flag}), 200, 100, upright},
		"pdf":                 {pdfType, stack.PDF(stack.PDFConfig{Content: stack.RedCorner}), 339, 480, corner},
		"pdf, cropped":        {pdfType, stack.PDF(stack.PDFConfig{MediaBox: "0 0 595 842] /CropBox [0 0 200 200", Content: stack.RedCorner}), 480, 480, whole(red)},
		"pdf of 50,000 pages": {pdfType, stack.PDF(stack.PDFConfig{Pages: 50_000, Content: stack.RedCorner}), 339, 480, corner},
		"pdf of 350 metres":   {pdfType, stack.PDF(stack.PDFConfig{MediaBox: "0 0 1000000 1000000", Content: "1 0 0 rg 0 0 200000 200000 re f"}), 480, 480, corner},
		"pdf whose form has itself": {pdfType, stack.PDF(stack.PDFConfig{Content: stack.RedCorner + " /F Do", Objects: []string{
			"<< /Type /XObject /Subtype /Form /BBox [0 0 595 842] /Resources << /XObject << /F 4 0 R >> >> /Length 11 >>\nstream\n/F Do /F Do\nendstream"}}), 339, 480, corner},
		"mp4":                    {"video/mp4", colour(t, "mp4", "blue", "3", "-c:v", "libx264"), 320, 180, whole(blue)},
		"mp4 with its end first": {"video/mp4", colour(t, "mp4", "red", "3", "-c:v", "libx264", "-movflags", "faststart"), 320, 180, whole(red)},
		"mov of an iphone":       {"video/quicktime", colour(t, "mov", "red", "2", "-c:v", "libx265", "-x265-params", "log-level=none", "-tag:v", "hvc1"), 320, 180, whole(red)},
		"3gp of 0.2 seconds":     {"video/3gpp", colour(t, "3gp", "blue", "0.2", "-c:v", "mpeg4"), 320, 180, whole(blue)},
		// Black for the first 0.8 seconds.
		"mp4 that begins black": {"video/mp4", film(t, "mp4", "-f", "lavfi", "-i", "color=c=black:s=320x180:r=25:d=0.8", "-f", "lavfi", "-i", "color=c=blue:s=320x180:r=25:d=2",
			"-filter_complex", "[0][1]concat", "-pix_fmt", "yuv420p", "-c:v", "libx264", "-g", "10"), 320, 180, whole(blue)},
		// A phone that is held upright films on its side, and says so in a matrix.
		"mp4 held upright": {"video/mp4", turned(t, film(t, "mp4", "-f", "lavfi", "-i", "color=c=red:s=320x180:r=25:d=2,drawbox=x=0:w=160:h=180:t=fill:color=blue", "-pix_fmt", "yuv420p", "-c:v", "libx264")),
			180, 320, upright},
		"mp4 of wide pixels":           {"video/mp4", shaped(t, "320x240", "4/3"), 427, 240, upright},
		"mp4 of wide pixels, large":    {"video/mp4", shaped(t, "1440x1080", "4/3"), 480, 270, upright},
		"mp4 of narrow pixels":         {"video/mp4", shaped(t, "352x288", "10/11"), 320, 288, upright},
		"mp4 of wide pixels, upright":  {"video/mp4", turned(t, shaped(t, "320x240", "4/3")), 180, 320, []spot{{.2, .5, red}, {.8, .5, blue}}},
		"mp4 of pixels like threads":   {"video/mp4", shaped(t, "320x240", "1/200"), 2, 240, nil},
		"mov in PQ":                    {"video/quicktime", bright(t, "smpte2084", 320), 320, 180, bands},
		"mov in HLG, as an iphone's":   {"video/quicktime", bright(t, "arib-std-b67", 320), 320, 180, bands},
		"mov in HLG, of odd thumbnail": {"video/quicktime", bright(t, "arib-std-b67", 1928), 480, 45, bands},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			drawing, err := withTools().Draw(t.Context(), someone, unlinked(t, c.content), examine.DrawRequest{ContentType: c.contentType, Sizes: []int{160, 480}})
			if err != nil || drawing.NoThumbnail != "" || len(drawing.Thumbnails) != 2 || drawing.Partial {
				t.Fatalf("%d thumbnails, %q, partial=%t, %v", len(drawing.Thumbnails), drawing.NoThumbnail, drawing.Partial, err)
			}
			if drawing.Width != 0 || drawing.Height != 0 {
				t.Errorf("%d by %d pixels, of a file that has none", drawing.Width, drawing.Height)
			}
			picture := drawing.Thumbnails[1]
			if abs(picture.Width-c.width) > 1 || abs(picture.Height-c.height) > 1 { // pdftoppm rounds up
				t.Errorf("%d by %d, want %d by %d", picture.Width, picture.Height, c.width, c.height)
			}
			look(t, name, picture, c.spots)
		})
	}
}

func abs(n int) int { return max(n, -n) }

// turned has ffmpeg note in a film that it is to be shown turned.
func turned(t *testing.T, content []byte) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "flat.mp4")
	stack.Must(t, os.WriteFile(path, content, 0o600))
	return film(t, "mp4", "-i", path, "-c", "copy", "-metadata:s:v:0", "rotate=90")
}

// shaped has ffmpeg film halves in stored pixels of a size, each so much wider than high.
func shaped(t *testing.T, size, aspect string) []byte {
	t.Helper()
	return film(t, "mp4", "-f", "lavfi", "-i", "color=c=red:s="+size+":r=5:d=1,drawbox=y=ih/2:h=ih/2:t=fill:color=blue,setsar="+aspect,
		"-pix_fmt", "yuv420p", "-c:v", "libx264")
}

// bright has ffmpeg film four bands, 180 pixels high, in high dynamic range: red, reference white, grey and blue.
func bright(t *testing.T, transfer string, width int) []byte {
	t.Helper()
	return film(t, "mov", "-f", "lavfi", "-i", fmt.Sprintf("color=c=red:s=%dx180:r=5:d=1,"+
		"drawbox=x=iw/4:w=iw/4:t=fill:color=white,drawbox=x=iw/2:w=iw/4:t=fill:color=gray,drawbox=x=3*iw/4:w=iw/4:t=fill:color=blue", width),
		"-vf", "format=gbrp,zscale=tin=bt709:pin=bt709:min=gbr:rin=full:t=linear:p=bt709:m=gbr:npl=203,format=gbrpf32le,"+
			"zscale=p=bt2020:t="+transfer+":m=bt2020nc:r=limited:npl=203,format=yuv420p10le",
		"-c:v", "libx265", "-x265-params", "log-level=none:colorprim=bt2020:colormatrix=bt2020nc:transfer="+transfer, "-tag:v", "hvc1")
}

// A file without a thumbnail is reported with the reason; only one that no program opens is unreadable.
func TestNoThumbnails(t *testing.T) {
	t.Parallel()
	page := stack.PDF(stack.PDFConfig{Content: stack.RedCorner})
	hex := strings.Repeat("61", 32)
	protected := stack.PDF(stack.PDFConfig{Content: stack.RedCorner, Trailer: "/Encrypt 4 0 R /ID [<" + hex + "> <" + hex + ">]",
		Objects: []string{"<< /Filter /Standard /V 1 /R 2 /O <" + hex + "> /U <" + hex + "> /P -4 >>"}})
	locked := bytes.Replace(protected, []byte("/Standard"), []byte("/Entrusts"), 1)
	clip := colour(t, "mp4", "blue", "1", "-c:v", "libx264")
	const unreadable = "unreadable"
	for name, c := range map[string]struct {
		contentType string
		content     []byte
		want        string // a problem, "" for none, or that it is sent back
	}{
		"docx without a preview":       {docxType, stack.OfficeDocument(stack.Word, "", nil), ""},
		"docx with a metafile":         {docxType, stack.OfficeDocument(stack.Word, "docProps/thumbnail.emf", []byte("x")), examine.NoThumbnailUnsupported},
		"docx with a broken preview":   {docxType, stack.OfficeDocument(stack.Word, "docProps/thumbnail.jpeg", photo(t, 90, 60)[:100]), examine.NoThumbnailUnsupported},
		"docx cut off":                 {docxType, stack.OfficeDocument(stack.Word, "docProps/thumbnail.jpeg", page)[:600], examine.NoThumbnailUnsupported},
		"dwg without a preview":        {dwgType, stack.DWG("AC1027"), ""},
		"dwg whose preview is nowhere": {dwgType, bytes.Replace(stack.DWG("AC1027", stack.DWGEntry{Code: 6}), []byte{0x80, 0, 0, 0}, []byte{0x80, 0, 0, 0x7F}, 1), examine.NoThumbnailUnsupported},
		"pdf with a password":          {pdfType, protected, examine.NoThumbnailProtected},
		"pdf locked by something else": {pdfType, locked, examine.NoThumbnailProtected},
		"pdf cut off":                  {pdfType, page[:len(page)/2], unreadable},
		"pdf that is none":             {pdfType, []byte("%PDF-1.7\n" + strings.Repeat("garbage ", 100)), unreadable},
		"pdf without a page":           {pdfType, bytes.Replace(page, []byte("/Count 1 /Kids [5 0 R ]"), []byte("/Count 0 /Kids [      ]"), 1), unreadable},
		"pdf whose pages are a circle": {pdfType, bytes.Replace(page, []byte("/Kids [5 0 R ]"), []byte("/Kids [2 0 R ]"), 1), examine.NoThumbnailUnsupported},
		"video of sound alone":         {"video/mp4", film(t, "mp4", "-f", "lavfi", "-i", "sine=d=1", "-c:a", "aac"), ""},
		"video cut off":                {"video/mp4", clip[:len(clip)/2], unreadable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			drawing, err := withTools().Draw(t.Context(), someone, unlinked(t, c.content), examine.DrawRequest{ContentType: c.contentType, Sizes: []int{160}})
			stack.Want(t, len(drawing.Thumbnails), 0, "number of thumbnails")
			if c.want == unreadable {
				var sentBack *examine.UnreadableError
				if !errors.As(err, &sentBack) || sentBack.Cause == "" {
					t.Errorf("%q, %v, want an UnreadableError", drawing.NoThumbnail, err)
				}
				return
			}
			if err != nil || drawing.NoThumbnail != c.want {
				t.Errorf("%q, %v, want %q", drawing.NoThumbnail, err, c.want)
			}
		})
	}
}

// What costs a tool more than is allowed has no picture, and says which limit that was.
func TestToolsHitLimits(t *testing.T) {
	t.Parallel()
	endless := stack.PDF(stack.PDFConfig{Content: strings.Repeat(stack.RedCorner+"\n", 1_000_000)})
	page := stack.PDF(stack.PDFConfig{Content: stack.RedCorner})
	clip := colour(t, "mp4", "blue", "1", "-c:v", "libx264")
	for name, c := range map[string]struct {
		contentType string
		content     []byte
		limits      sandbox.Limits
		want        string
	}{
		"pdf of a million strokes": {pdfType, endless, sandbox.Limits{CPU: time.Second}, sandbox.LimitCPU},
		"pdf for too long":         {pdfType, endless, sandbox.Limits{Wall: 500 * time.Millisecond}, sandbox.LimitTime},
		"pdf in too little memory": {pdfType, page, sandbox.Limits{Memory: 4 << 20}, sandbox.LimitMemory},
		"pdf in too few bytes":     {pdfType, page, sandbox.Limits{Output: 1 << 10}, sandbox.LimitOutput},
		"video in too little":      {"video/mp4", clip, sandbox.Limits{Memory: 24 << 20}, sandbox.LimitMemory},
		"video in too few bytes":   {"video/mp4", clip, sandbox.Limits{Output: 100}, sandbox.LimitOutput},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			examiner := newExaminer(t, sandbox.Config{Limits: c.limits}, examine.FindTools())
			drawing, err := examiner.Draw(t.Context(), someone, unlinked(t, c.content), examine.DrawRequest{ContentType: c.contentType, Sizes: []int{1600}})
			if err != nil || drawing.NoThumbnail != c.want || len(drawing.Thumbnails) != 0 {
				t.Errorf("%q, %d pictures, %v, want %q", drawing.NoThumbnail, len(drawing.Thumbnails), err, c.want)
			}
		})
	}
}

// What a tool makes is decoded only if it is what the tool is asked for, and is not the file's fault.
func TestToolTakenOver(t *testing.T) {
	dir := t.TempDir()
	self, err := os.Executable()
	stack.Must(t, err)
	stack.Must(t, os.Symlink(self, filepath.Join(dir, examine.PDFToPPM)))
	t.Setenv("PATH", dir) // and so not parallel
	examiner := newExaminer(t, sandbox.Config{Limits: roomy}, examine.FindTools())
	for name, c := range map[string]struct {
		content string
		want    string
	}{
		"a picture":         {string(asPNG(t, halves(90, 60))), ""},
		"another picture":   {string(photo(t, 90, 60)), examine.NoThumbnailUnsupported},
		"a broken picture":  {"\x89PNG\r\n\x1a\n" + strings.Repeat("x", 100), examine.NoThumbnailUnsupported},
		"nothing":           {"", examine.NoThumbnailUnsupported},
		"less than nothing": {"\x89PNG", examine.NoThumbnailUnsupported},
	} {
		drawing, err := examiner.Draw(t.Context(), someone, unlinked(t, []byte(c.content)), examine.DrawRequest{ContentType: pdfType, Sizes: []int{160}})
		if err != nil || drawing.NoThumbnail != c.want || (c.want != "" && len(drawing.Thumbnails) != 0) {
			t.Errorf("%s: %q, %d pictures, %v, want %q", name, drawing.NoThumbnail, len(drawing.Thumbnails), err, c.want)
		}
	}
}

// Where the tools are not installed, their files are kept without pictures, and say so.
func TestToolsMissing(t *testing.T) {
	t.Parallel()
	gone := filepath.Join(t.TempDir(), "gone")
	for name, tools := range map[string]examine.Tools{
		"never there": nil,
		"since gone":  {examine.PDFToPPM: gone, examine.PDFInfo: gone, examine.FFmpeg: gone, examine.FFprobe: gone},
	} {
		examiner := newExaminer(t, sandbox.Config{Limits: roomy}, tools)
		for _, contentType := range []string{pdfType, "video/mp4"} {
			drawing, err := examiner.Draw(t.Context(), someone, unlinked(t, stack.PDF(stack.PDFConfig{})), examine.DrawRequest{ContentType: contentType, Sizes: []int{160}})
			if err != nil || drawing.NoThumbnail != examine.NoThumbnailToolMissing {
				t.Errorf("%s: %s: %+v, %v", name, contentType, drawing, err)
			}
		}
		if d, err := examiner.ReadDocument(t.Context(), unlinked(t, stack.PDF(stack.PDFConfig{})), pdfType); err != nil || d.Pages != 0 {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
	}
	for _, tool := range examine.ToolNames() {
		if examine.Tools(nil).Check(tool) == nil {
			t.Errorf("%s is found", tool)
		}
		if err := withTools().Tools.Check(tool); err != nil {
			t.Errorf("these tests need it: %v", err)
		}
	}
}

// A playlist or a script for ffmpeg that is passed off as a video has it open nothing.
func TestVideosLeadNowhere(t *testing.T) {
	t.Parallel()
	var visits atomic.Int32
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	stack.Must(t, err)
	defer listener.Close()
	go func() {
		for {
			visitor, err := listener.Accept()
			if err != nil {
				return
			}
			visits.Add(1)
			_ = visitor.Close()
		}
	}()
	secret := filepath.Join(t.TempDir(), "secret.mp4")
	stack.Must(t, os.WriteFile(secret, colour(t, "mp4", "red", "1", "-c:v", "libx264"), 0o600))
	url := "http://" + listener.Addr().String() + "/x.mp4"
	for name, content := range map[string]string{
		"hls":        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n" + url + "\n#EXT-X-ENDLIST\n",
		"hls, local": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://" + secret + "\n#EXT-X-ENDLIST\n",
		"concat":     "ffconcat version 1.0\nfile '" + secret + "'\n",
		"dash":       `<?xml version="1.0"?><MPD type="static"><Period><AdaptationSet><Representation id="1"><BaseURL>` + url + `</BaseURL></Representation></AdaptationSet></Period></MPD>`,
		"sdp":        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
	} {
		drawing, err := withTools().Draw(t.Context(), someone, unlinked(t, []byte(content)), examine.DrawRequest{ContentType: "video/mp4", Sizes: []int{160}})
		if unreadable := new(examine.UnreadableError); len(drawing.Thumbnails) != 0 || !errors.As(err, &unreadable) {
			t.Errorf("%s: %d pictures, %v", name, len(drawing.Thumbnails), err)
		}
	}
	stack.Want(t, visits.Load(), 0, "number of ffmpeg's connections")
}

func TestReadDocument(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		config stack.PDFConfig
		pages  int32
		title  string
	}{
		"plain":              {stack.PDFConfig{Title: "Acta de obra 14"}, 1, "Acta de obra 14"},
		"without a title":    {stack.PDFConfig{}, 1, ""},
		"accents and pages":  {stack.PDFConfig{Title: `Hormig\363n`, Pages: 12}, 12, "Hormigón"},
		"a title of lines":   {stack.PDFConfig{Title: `one\nPages:          7\nTitle: two`, Pages: 2}, 2, "one"},
		"a title of markup":  {stack.PDFConfig{Title: `<script>\b[31m`}, 1, "<script>[31m"},
		"a title in UTF-16":  {stack.PDFConfig{Title: `\376\377\000A\4n`}, 1, "AѮ"},
		"a title of a novel": {stack.PDFConfig{Title: strings.Repeat("word ", 100)}, 1, strings.TrimSpace(strings.Repeat("word ", 40))},
		"many pages":         {stack.PDFConfig{Pages: 50_000}, 50_000, ""},
	} {
		d, err := withTools().ReadDocument(t.Context(), unlinked(t, stack.PDF(c.config)), pdfType)
		if err != nil || d.Pages != c.pages || d.Title != c.title {
			t.Errorf("%s: %+v, %v, want %d pages and %q", name, d, err, c.pages, c.title)
		}
	}
	d, err := withTools().ReadDocument(t.Context(), unlinked(t, []byte("%PDF-1.7 garbage")), pdfType)
	if err != nil || d.Pages != 0 {
		t.Errorf("garbage: %+v, %v", d, err)
	}
}
