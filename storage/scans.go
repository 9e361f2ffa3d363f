package storage

import "time"

// A ScanVerdict is what the virus scanner says of an upload.
type ScanVerdict string

// The verdicts.
const (
	ScanClean          ScanVerdict = "clean"
	ScanInfected       ScanVerdict = "infected"
	ScanUnscannable    ScanVerdict = "unscannable"     // it could not look inside
	ScanOversizePassed ScanVerdict = "oversize_passed" // it was not asked: the upload is larger than what it takes
)

// Scanned is what the row of an upload's latest scan says. A nil field is unknown, or has not come to pass.
type Scanned struct {
	ScanVerdict    *ScanVerdict `db:"scan_verdict"`
	ScanSignature  *string      `db:"scan_signature"`
	ScanEngine     *string      `db:"scan_engine"`
	ScanSignatures *int64       `db:"scan_signatures"`
	ScanSignedAt   *time.Time   `db:"scan_signed_at"`
	ScannedAt      *time.Time   `db:"scanned_at"`
	ReleasedBy     *string      `db:"released_by"` // who let it out of quarantine last
	ReleasedAt     *time.Time   `db:"released_at"`
	ReleaseReason  *string      `db:"release_reason"`
}
