package server

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

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/server/tus"
)

const formType = "multipart/form-data"

// isForm reports whether the request is one of a client that knows no resumable protocol and sends a form (RFC 7578).
func isForm(r *http.Request) bool {
	if r.Method != http.MethodPost || r.Header.Get("Tus-Resumable") != "" || r.Header.Get(tus.DraftHeader) != "" {
		return false
	}
	t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && t == formType
}

// What a form's fields may be, beside what admission asks of metadata.
const (
	maxFields     = 64
	maxFieldValue = 8 << 10  // bytes
	maxFormExtra  = 64 << 10 // bytes of a form beside its file; what has more is not refused before it is read
)

// fileField is the name of the file's part, if it does not say by a filename that it is one.
const fileField = "file"

// A form is a multipart/form-data body while it is read: fields, then one file, then the end. Nothing of it is kept
// here, so that a file of any size needs no more than a block of memory.
type form struct {
	body  *steadyBody
	parts *multipart.Reader
	meta  map[string]string // what tus has as Upload-Metadata
	file  *multipart.Part
	read  int64 // bytes of the file
	ended bool  // the file has been read to its end
}

// openForm reads a form up to its file's first byte.
func openForm(r *http.Request, body *steadyBody) (*form, error) {
	_, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || params["boundary"] == "" {
		return nil, problem.BadRequest("The Content-Type of a form must name its boundary.")
	}
	f := &form{body: body, parts: multipart.NewReader(body, params["boundary"]), meta: map[string]string{}}
	for len(f.meta) <= maxFields {
		p, err := f.parts.NextRawPart()
		switch {
		case err == io.EOF: // a wrapped one is that of a body without an end
			return nil, problem.BadRequest("The form has no file. Send it as the part named %s, behind all other fields.", fileField)
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
	return nil, problem.Refuse(hooks.ErrBadMetadata, "The form has more than %d fields.", maxFields)
}

func (f *form) addField(p *multipart.Part) error {
	name := p.FormName()
	if _, twice := f.meta[name]; twice || name == "" {
		return problem.Refuse(hooks.ErrBadMetadata, "Each part of a form has a name of its own, unlike %q.", strings.ToValidUTF8(name, "?"))
	}
	value, err := io.ReadAll(io.LimitReader(p, maxFieldValue+1))
	switch {
	case err != nil:
		return f.explain(err)
	case len(value) > maxFieldValue:
		return problem.Refuse(hooks.ErrBadMetadata, "A field of the form has more than %d bytes. Only the file's part may, which has a filename.", maxFieldValue)
	}
	f.meta[name] = string(value)
	return nil
}

// describeFile takes from the file's part what the fields do not say. Browsers write %22 for a quotation mark (HTML
// Standard, "multipart/form-data encoding algorithm").
func (f *form) describeFile() {
	if name := strings.ReplaceAll(f.file.FileName(), "%22", `"`); f.meta["filename"] == "" && name != "" {
		f.meta["filename"] = name
	}
	if t := f.file.Header.Get("Content-Type"); f.meta["filetype"] == "" && t != "" {
		f.meta["filetype"] = t
	}
}

// Read implements [io.Reader]: the file.
func (f *form) Read(p []byte) (int, error) {
	n, err := f.file.Read(p)
	f.read += int64(n)
	f.ended = f.ended || err == io.EOF //nolint:errorlint // a wrapped one is that of a body without an end
	return n, err
}

// Ended implements [object.Body].
func (f *form) Ended() bool { return f.ended }

// Cut implements [object.Body].
func (f *form) Cut() error { return f.body.cutBy() }

// end returns nil if the file has been read to its end, and the form with it. Before that nobody knows whether the
// file is whole: the form does not say its size.
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
	return problem.BadRequest("The form has the field %q behind its file. Send all fields before the file.", strings.ToValidUTF8(p.FormName(), "?"))
}

// explain turns an error of reading the form into one for the client.
func (f *form) explain(err error) error {
	if cut := f.body.cutBy(); cut != nil {
		return cut
	}
	return fmt.Errorf("%w: %w", problem.BadRequest("The form is not valid multipart/form-data, or ends before its last boundary."), err)
}

// A steadyBody ends when it is silent for too long, or when it is interrupted.
type steadyBody struct {
	io.ReadCloser
	connection *http.ResponseController
	silence    time.Duration

	mu  sync.Mutex
	cut error // why it ended early; nil if it did not
}

func (b *steadyBody) Read(p []byte) (int, error) {
	// Where there is no connection, as in some tests, nothing is silent.
	_ = b.connection.SetReadDeadline(time.Now().Add(b.silence))
	if err := b.cutBy(); err != nil { // asked after the deadline is set, which an interruption sets, too
		return 0, err
	}
	n, err := b.ReadCloser.Read(p)
	switch {
	case err == nil || errors.Is(err, io.EOF):
	case errors.Is(err, os.ErrDeadlineExceeded):
		b.end(&hooks.Refusal{Cause: problem.ErrSilent, Detail: "The form stopped coming. Send it again."})
	default:
		b.end(&hooks.Refusal{Cause: problem.ErrCutOff, Detail: "The form was cut off. Send it again."})
	}
	return n, err
}

// interrupt makes a read that waits, and all that follow, fail.
func (b *steadyBody) interrupt(cause error) {
	b.end(cause)
	_ = b.connection.SetReadDeadline(time.Now())
}

// end notes the first reason.
func (b *steadyBody) end(cause error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cut == nil {
		b.cut = cause
	}
}

func (b *steadyBody) cutBy() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.cut
}
