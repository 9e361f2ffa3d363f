package tramo

import (
	"time"

	"github.com/tramo/tramo/cmd/internal/cli"
	"github.com/tramo/tramo/storage/object"
)

// storeSettings say how bytes get from a client to where they are durable.
type storeSettings struct {
	cli.Expiry
	PartSize           cli.Bytes     `default:"8MiB" help:"Size of a part in S3; 5MiB or more."`
	CheckpointBytes    cli.Bytes     `default:"1MiB" help:"While a client is slow, what it has brought becomes durable each time that is so much. A server that dies costs a client no more."`
	CheckpointInterval time.Duration `default:"2s" help:"After how long at the latest what has arrived becomes durable."`
	BufferMemory       cli.Bytes     `default:"64MiB" help:"Memory, over all uploads, for bytes on their way to S3. More goes to disk."`
	BufferDisk         cli.Bytes     `default:"1GiB" help:"Disk, over all uploads, for what does not fit into that memory. When both are full uploads wait."`
	BufferDir          string        `placeholder:"DIR" help:"Where that disk is. Default: the system's directory for temporary files."`
}

// store checks the settings, given the largest upload in bytes.
func (s storeSettings) store(maxUpload int64, m *cli.Mistakes) object.Config {
	c := object.Config{
		PartSize: int64(s.PartSize), Expiry: s.UploadExpiry,
		CheckpointBytes: int64(s.CheckpointBytes), CheckpointInterval: s.CheckpointInterval,
		Buffers: object.BufferConfig{Memory: int64(s.BufferMemory), Disk: int64(s.BufferDisk), Dir: s.BufferDir},
	}
	m.Check("TRAMO_PART_SIZE", c.ValidatePartSize(maxUpload))
	m.Check("TRAMO_CHECKPOINT_BYTES, TRAMO_CHECKPOINT_INTERVAL", c.ValidateCheckpoints())
	m.Check("TRAMO_UPLOAD_EXPIRY", c.ValidateExpiry())
	m.Check("TRAMO_BUFFER_MEMORY, TRAMO_BUFFER_DISK", c.Buffers.Validate())
	return c
}
