package api

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/tenant"
)

// Bounds of a form, besides those of metadata.
const (
	maxFields     = 64
	maxFieldValue = 8 << 10  // bytes
	maxFormExtra  = 64 << 10 // bytes of a form besides its file; a form with more is refused only while it is read
)

// fileField is the name of the file's part, if that part has no filename.
const fileField = "file"

// A form is a multipart/form-data body (RFC 7578) that is being read: fields, then one file, then the end. It buffers
// nothing, so a file of any size needs only a block of memory.
type form struct {
	body  *idleBody
	parts *multipart.Reader
	meta  map[string]string // as in tus's Upload-Metadata
	file  *multipart.Part
	read  int64 // bytes of the file
	ended bool  // whether the file was read to its end
}

// openForm reads a form up to the first byte of its file.
func openForm(r *http.Request, body *idleBody) (*form, error) {
	boundary, _ := Boundary(r)
	if boundary == "" || len(r.Header.Values("Content-Type")) > 1 {
		return nil, problem.BadRequest("A form must have one Content-Type, which names its boundary.")
	}
	f := &form{body: body, parts: multipart.NewReader(body, boundary), meta: map[string]string{}}
	for len(f.meta) <= maxFields {
		p, err := f.parts.NextRawPart()
		switch {
		case err == io.EOF: // a wrapped EOF means a body without a last boundary
			return nil, problem.BadRequest("The form has no file. Send the file as the part named %s, after all other fields.", fileField)
		case err != nil:
			return nil, f.explain(err)
		case p.FileName() != "" || p.FormName() == fileField:
			f.file = p
			f.describeFile()
			return f, nil
		}
		if err := f.addField(p); err != nil {
			return nil, err
		}
	}
	return nil, tenant.Refuse(hooks.ErrBadMetadata, "The form has more than %d fields.", maxFields)
}

// Boundary returns the boundary of a form, "" for none. ok is false for a request that is no form. Some clients do not quote a
// boundary with characters for which they should, such as = and : (RFC 2046, section 5.1.1).
func Boundary(r *http.Request) (boundary string, ok bool) {
	const formType = "multipart/form-data"
	header := r.Header.Get("Content-Type")
	if t, params, err := mime.ParseMediaType(header); err == nil {
		return params["boundary"], t == formType
	}
	t, params, _ := strings.Cut(header, ";")
	if !strings.EqualFold(strings.TrimSpace(t), formType) {
		return "", false
	}
	for param := range strings.SplitSeq(params, ";") {
		name, value, _ := strings.Cut(param, "=")
		if strings.EqualFold(strings.TrimSpace(name), "boundary") {
			return strings.Trim(strings.TrimSpace(value), `"`), true
		}
	}
	return "", true
}

// text returns what a client has sent as UTF-8, or, as curl does on Windows, in the code page of Western Europe and America.
func text(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	s, _ = charmap.Windows1252.NewDecoder().String(s) // it knows all bytes
	return s
}

func (f *form) addField(p *multipart.Part) error {
	name := text(p.FormName())
	if _, twice := f.meta[name]; twice || name == "" {
		return tenant.Refuse(hooks.ErrBadMetadata, "Each part of a form must have a unique name, unlike %q.", name)
	}
	value, err := io.ReadAll(io.LimitReader(p, maxFieldValue+1))
	switch {
	case err != nil:
		return f.explain(err)
	case len(value) > maxFieldValue:
		return tenant.Refuse(hooks.ErrBadMetadata, "A field of the form has more than %d bytes. Only the part of the file, which has a filename, may have more.", maxFieldValue)
	}
	f.meta[name] = text(string(value))
	return nil
}

// describeFile takes name and type from the file's part, unless fields have them. Browsers encode a quotation mark as %22
// (HTML Standard, "multipart/form-data encoding algorithm").
func (f *form) describeFile() {
	if name := strings.ReplaceAll(text(f.file.FileName()), "%22", `"`); f.meta["filename"] == "" && name != "" {
		f.meta["filename"] = name
	}
	if t := f.file.Header.Get("Content-Type"); f.meta["filetype"] == "" && t != "" {
		f.meta["filetype"] = t
	}
}

// Read implements [io.Reader] for the file.
func (f *form) Read(p []byte) (int, error) {
	n, err := f.file.Read(p)
	f.read += int64(n)
	f.ended = f.ended || err == io.EOF //nolint:errorlint // a wrapped EOF means a body without a last boundary
	return n, err
}

// Ended implements [object.Body].
func (f *form) Ended() bool { return f.ended }

// Cut implements [object.Body].
func (f *form) Cut() error { return f.body.cutBy() }

// end returns nil if the form ends with its file. Until then the file may be incomplete: a form does not declare its
// size.
func (f *form) end() error {
	if !f.ended {
		return f.explain(io.ErrUnexpectedEOF)
	}
	p, err := f.parts.NextRawPart()
	switch {
	case err == io.EOF: // as above
		return nil
	case err != nil:
		return f.explain(err)
	case p.FileName() != "":
		return problem.BadRequest("The form has more than one file. Send one form for each.")
	}
	return problem.BadRequest("The form has the field %q after its file. Send all fields before the file.", text(p.FormName()))
}

// explain translates an error of reading the form for the client.
func (f *form) explain(err error) error {
	if cut := f.body.cutBy(); cut != nil {
		return cut
	}
	return fmt.Errorf("%w: %w", problem.BadRequest("The form is not valid multipart/form-data, or ends before its last boundary."), err)
}

// An idleBody ends when it is idle for too long, or when it is interrupted.
type idleBody struct {
	io.ReadCloser
	connection *http.ResponseController
	timeout    time.Duration

	mu  sync.Mutex
	cut error // why it ended early, or nil
}

func (b *idleBody) Read(p []byte) (int, error) {
	// Tests without a connection have no deadline.
	_ = b.connection.SetReadDeadline(time.Now().Add(b.timeout))
	if err := b.cutBy(); err != nil { // after SetReadDeadline, because an interruption sets the deadline as well
		return 0, err
	}
	n, err := b.ReadCloser.Read(p)
	switch {
	case err == nil:
	case errors.Is(err, io.EOF):
		_ = b.connection.SetReadDeadline(time.Time{}) // net/http would take it for the end of the connection
	case errors.Is(err, problem.ErrGaveWay):
		b.end(&tenant.Refusal{Cause: problem.ErrGaveWay, Detail: "Hardly anything of the form arrived while others of your company waited. Send it again."})
	case errors.Is(err, os.ErrDeadlineExceeded):
		b.end(tenant.Refuse(problem.ErrSilent, "The form was idle for too long. Send it again."))
	default:
		b.end(tenant.Refuse(problem.ErrCutOff, "The form was cut off. Send it again."))
	}
	return n, err
}

// interrupt makes the current read and all later reads fail.
func (b *idleBody) interrupt(cause error) {
	b.end(cause)
	_ = b.connection.SetReadDeadline(time.Now())
}

// end keeps the first reason.
func (b *idleBody) end(cause error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cut == nil {
		b.cut = cause
	}
}

func (b *idleBody) cutBy() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.cut
}
