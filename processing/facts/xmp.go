package facts

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// The limits of an XMP packet. A phone's is 3 KiB; an editor's history can be hundreds.
const (
	maxXMP      = 1 << 20 // bytes
	maxXMPDepth = 32
)

const rdf = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"

// xmpGroups are the namespaces that are read, as exiftool calls them; others are of use to programs only.
var xmpGroups = map[string]string{
	"http://ns.adobe.com/tiff/1.0/":               "XMP-tiff",
	"http://ns.adobe.com/exif/1.0/":               "XMP-exif",
	"http://cipa.jp/exif/1.0/":                    "XMP-exifEX",
	"http://ns.adobe.com/exif/1.0/aux/":           "XMP-aux",
	"http://ns.adobe.com/xap/1.0/":                "XMP-xmp",
	"http://purl.org/dc/elements/1.1/":            "XMP-dc",
	"http://ns.adobe.com/photoshop/1.0/":          "XMP-photoshop",
	"http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/": "XMP-iptcCore",
	"http://www.dji.com/drone-dji/1.0/":           "XMP-drone-dji",
	"http://ns.google.com/photos/1.0/panorama/":   "XMP-GPano",
	"http://ns.adobe.com/xap/1.0/rights/":         "XMP-xmpRights",
}

// readXMP adds the simple properties and lists of a packet (ISO 16684-1, 7); structures are left out.
// encoding/xml resolves no entity that a document declares; a document that declares any is refused.
func (t tags) readXMP(r io.Reader) error {
	decoder := xml.NewDecoder(io.LimitReader(r, maxXMP))
	p := xmpParser{tags: t}
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the packet: %w", err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			err = p.start(token)
		case xml.CharData:
			p.text.Write(token)
		case xml.EndElement:
			p.end(token.Name)
		case xml.Directive:
			err = errors.New("the packet has a document type")
		}
		if err != nil {
			return err
		}
	}
}

// An xmpParser knows where it is in a packet.
type xmpParser struct {
	tags
	path  []xml.Name
	text  strings.Builder // since the last element began
	items []any           // of the list that is the property's value
}

// property is how deep in the path the property is that is being read: the child of a top-level description.
// It is 0 outside of one.
func (p *xmpParser) property() int {
	for i := 0; i+2 < len(p.path); i++ {
		if p.path[i] == (xml.Name{Space: rdf, Local: "RDF"}) {
			if p.path[i+1] == (xml.Name{Space: rdf, Local: "Description"}) {
				return i + 2
			}
			return 0
		}
	}
	return 0
}

func (p *xmpParser) start(e xml.StartElement) error {
	if p.path = append(p.path, e.Name); len(p.path) > maxXMPDepth {
		return errors.New("the packet is too deep")
	}
	p.text.Reset()
	last := len(p.path) - 1
	switch at := p.property(); {
	case at == 0 && last > 0 && e.Name == (xml.Name{Space: rdf, Local: "Description"}) && p.path[last-1] == (xml.Name{Space: rdf, Local: "RDF"}):
		for _, attribute := range e.Attr {
			p.keepXMP(attribute.Name, attribute.Value)
		}
	case at == last && at > 0:
		p.items = nil
		for _, attribute := range e.Attr {
			if attribute.Name == (xml.Name{Space: rdf, Local: "resource"}) {
				p.keepXMP(e.Name, attribute.Value)
			}
		}
	}
	return nil
}

// end takes a list's item, or a property's value. Text in between is of neither.
func (p *xmpParser) end(name xml.Name) {
	at, last := p.property(), len(p.path)-1
	switch text := strings.TrimSpace(p.text.String()); {
	case at == 0:
	case last == at+2 && name == (xml.Name{Space: rdf, Local: "li"}):
		if text != "" {
			p.items = append(p.items, text)
		}
	case last == at && len(p.items) == 1:
		p.keepXMP(name, p.items[0])
	case last == at && len(p.items) > 1:
		p.keepXMP(name, p.items)
	case last == at && text != "":
		p.keepXMP(name, text)
	}
	p.text.Reset()
	p.path = p.path[:last]
}

func (p *xmpParser) keepXMP(name xml.Name, value any) {
	if group := xmpGroups[name.Space]; group != "" && name.Local != "" && name.Local[0] < 0x80 {
		p.keep(group, strings.ToUpper(name.Local[:1])+name.Local[1:], value)
	}
}

// xmpCoordinate reads "34,36.22332S" or "34,36,13.4S" (XMP specification part 2, 3.3), or returns nil.
func xmpCoordinate(text, positive, negative string) *float64 {
	hemisphere := strings.ToUpper(text[max(0, len(text)-1):])
	if hemisphere != positive && hemisphere != negative {
		return nil
	}
	var degrees float64
	unit := 1.0
	for part := range strings.SplitSeq(text[:len(text)-1], ",") {
		n, err := strconv.ParseFloat(part, 64)
		if err != nil || n < 0 || unit > 3600 {
			return nil
		}
		degrees += n / unit
		unit *= 60
	}
	if hemisphere == negative {
		degrees = -degrees
	}
	return &degrees
}
