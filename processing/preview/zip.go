package preview

import (
	"archive/zip"
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// directoryLimit is how much of an archive may be read for its list of files, in bytes: enough for 20,000 files;
// documents have some hundred. An archive of a million files, or with a false count, exceeds it.
const directoryLimit = 2 << 20

// relationsLimit is the largest list of relationships read, in bytes.
const relationsLimit = 256 << 10

// fromOOXML follows the package's relationship of type "thumbnail" (ECMA-376 part 2, 11 and annex E: thumbnails are
// parts that a package relationship names; part 1, 15.2.16).
func fromOOXML(data []byte) ([]byte, error) {
	files, err := openZip(data)
	if err != nil {
		return nil, err
	}
	relations, err := unpack(files, "_rels/.rels", relationsLimit)
	if err != nil || relations == nil {
		return nil, err
	}
	target, err := thumbnailTarget(relations)
	if err != nil || target == "" {
		return nil, err
	}
	return unpack(files, strings.TrimPrefix(path.Clean("/"+target), "/"), Limit)
}

// thumbnailTarget returns the name of the part with the package's preview, or "". It may be a URL, or lead out of the archive: only a
// file of the archive is read.
func thumbnailTarget(relations []byte) (string, error) {
	var list struct {
		Relationships []struct {
			Type   string `xml:"Type,attr"`
			Target string `xml:"Target,attr"`
		} `xml:"Relationship"`
	}
	if err := xml.Unmarshal(relations, &list); err != nil {
		return "", fmt.Errorf("read the document's relationships: %w", err)
	}
	for _, r := range list.Relationships {
		if strings.HasSuffix(r.Type, "/relationships/metadata/thumbnail") {
			return r.Target, nil
		}
	}
	return "", nil
}

// fromODF takes the preview from where it has to be (ODF 1.3 part 2, 3: "Preview Image").
func fromODF(data []byte) ([]byte, error) {
	files, err := openZip(data)
	if err != nil {
		return nil, err
	}
	return unpack(files, "Thumbnails/thumbnail.png", Limit)
}

func openZip(data []byte) (*zip.Reader, error) {
	source := &limitedReaderAt{bytes.NewReader(data), directoryLimit + 128<<10} // its end is looked for in the last 65 KiB, twice
	reader, err := zip.NewReader(source, int64(len(data)))
	if err != nil {
		return nil, fmt.Errorf("read the document's list of files: %w", err)
	}
	source.left = 2 * Limit // unpack counts the unpacked bytes; this bounds archives that unpack to nothing
	return reader, nil
}

// unpack unpacks one file of at most limit bytes; nil if there is none of that name, in upper or lower case.
func unpack(files *zip.Reader, name string, limit int64) ([]byte, error) {
	for _, file := range files.File {
		if !strings.EqualFold(file.Name, name) {
			continue
		}
		content, err := file.Open()
		if err != nil {
			return nil, fmt.Errorf("open the document's %s: %w", name, err)
		}
		defer func() { _ = content.Close() }()
		unpacked, err := io.ReadAll(io.LimitReader(content, limit+1))
		switch {
		case int64(len(unpacked)) > limit:
			return nil, fmt.Errorf("%w: %s has more than %d bytes", ErrTooLarge, name, limit)
		case err != nil:
			return nil, fmt.Errorf("unpack the document's %s: %w", name, err)
		}
		return unpacked, nil
	}
	return nil, nil
}

// limitedReaderAt bounds how much a crafted archive makes its reader read.
type limitedReaderAt struct {
	source io.ReaderAt
	left   int
}

func (l *limitedReaderAt) ReadAt(p []byte, offset int64) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, fmt.Errorf("%w: there is too much in the document", ErrTooLarge)
	}
	n, err := l.source.ReadAt(p, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return n, fmt.Errorf("read the document: %w", err)
	}
	return n, err
}
