package connection

import "hash/maphash"

// seed is the process's own, so that nobody can make two request lines that look the same.
var seed = maphash.MakeSeed()

// A head is what is known of a request's head while it arrives. It is not parsed here, which is net/http's business; but
// net/http keeps to itself that a request had two framings, and how many lines it has.
type head struct {
	size  int  // bytes
	lines int  // that have ended
	ended bool // by its empty line; what follows is a body

	first       maphash.Hash // of the first line
	length      int          // bytes of the line so far
	bare        bool         // the line so far is a CR, if anything
	name        [len("transfer-encoding")]byte
	named       int // bytes of the line's name; more than name has if it is longer, -1 behind the colon
	hasLength   bool
	hasEncoding bool
}

func newHead() (h head) {
	h.first.SetSeed(seed)
	h.bare = true
	return h
}

// scan looks at more bytes of the connection.
func (h *head) scan(p []byte) {
	h.size += len(p)
	for _, b := range p {
		if h.ended {
			return
		}
		if b == '\n' {
			h.endLine()
			continue
		}
		h.bare = h.bare && b == '\r' && h.length == 0
		h.length++
		switch {
		case h.lines == 0:
			if b != '\r' {
				_ = h.first.WriteByte(b) // never fails
			}
		case h.named < 0:
		case b == ':':
			h.learn()
		case h.named < len(h.name):
			h.name[h.named] = b | 0x20 // lower case; a hyphen has that bit already
			h.named++
		default:
			h.named = len(h.name) + 1
		}
	}
}

func (h *head) endLine() {
	if !h.bare || h.lines > 0 { // empty lines before the first one are passed over
		h.lines++
		h.ended = h.bare
	}
	h.length, h.named, h.bare = 0, 0, true
}

// learn looks at the name of a header.
func (h *head) learn() {
	if h.named <= len(h.name) {
		switch string(h.name[:h.named]) {
		case "content-length":
			h.hasLength = true
		case "transfer-encoding":
			h.hasEncoding = true
		}
	}
	h.named = -1
}

// certain reports whether the head was seen as a whole, with this request line, and has one framing.
func (h *head) certain(method, uri, proto string) bool {
	if !h.ended || h.first.Sum64() != maphash.String(seed, method+" "+uri+" "+proto) {
		return false
	}
	return !h.hasEncoding || !h.hasLength && proto != "HTTP/1.0"
}
