package worker

import (
	"github.com/tramo/tramo/cmd/internal/cli"
	"github.com/tramo/tramo/processing"
	"github.com/tramo/tramo/processing/clamd"
	"github.com/tramo/tramo/processing/mediatype"
)

// contentSettings say what content has to be like.
type contentSettings struct {
	cli.Types
	Clamd        string    `placeholder:"ADDRESS" help:"clamd: unix:/path/to/socket or tcp://host:port. Of several, with commas between them, the one that has the least to do is asked, and one that is away is not."`
	ScanMax      cli.Bytes `default:"512MiB" help:"The largest file that clamd takes: its StreamMaxLength and MaxFileSize, below 2 GiB."`
	ScanOversize string    `default:"fail" enum:"fail,pass" help:"What becomes of a file that is larger: it fails, or passes unscanned."`
	TypeMismatch string    `default:"fail" enum:"fail,record" help:"What becomes of a file that is not of the kind that its sender said: it fails, or is only recorded to be."`
}

func (s contentSettings) scanner(m *cli.Mistakes) (*clamd.Scanner, processing.ScanPolicy) {
	scanner, err := clamd.New(s.Clamd, clamd.Timeouts{Reply: processing.ScanReply})
	m.Check("TRAMO_CLAMD", err)
	policy := processing.ScanPolicy{Max: int64(s.ScanMax), PassOversize: s.ScanOversize == "pass"}
	m.Check("TRAMO_SCAN_MAX", policy.Validate())
	return scanner, policy
}

func (s contentSettings) types(m *cli.Mistakes) mediatype.Policy {
	p := s.Policy(m)
	p.AllowMismatch = s.TypeMismatch == "record"
	return p
}
