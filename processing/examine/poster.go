package examine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/tramo/tramo/processing/sandbox"
)

// posterPixels is the largest video whose frames are decoded: twice 8K.
const posterPixels = 1 << 26

// asMovie has ffmpeg and ffprobe read the file as ISO/IEC 14496-12 whatever it looks like: no playlist is followed, no other file
// opened.
func asMovie() []string {
	return []string{"-loglevel", "error", "-hide_banner", "-protocol_whitelist", "file", "-f", "mov", "-threads", "1", "-max_pixels", strconv.Itoa(posterPixels)}
}

// posterArguments take one frame out of a video, upright, into a box of a size. The frame is the last key frame within the first
// second: the first frame is often black. Its time is kept (-copyts), because that of a shorter video would be before the beginning.
func posterArguments(size int, transfer string) []string {
	return append(append([]string{"-nostdin"}, asMovie()...),
		"-noaccurate_seek", "-ss", "1", "-copyts", "-i", sandbox.StdinPath, "-map", "0:V:0", "-an", "-sn", "-dn", "-frames:v", "1",
		"-vf", fitSquarePixels(size)+toneMap(transfer), "-threads", "1", "-pix_fmt", "rgb24", "-c:v", "png", "-f", "image2pipe", "pipe:1")
}

// fitSquarePixels is a filter that scales a frame into a box of a size, and never enlarges it. sar is the width of a stored pixel in
// parts of its height, as the file says (ISO/IEC 14496-12, 12.1.4, pasp): one of 1440 by 1080 at 4:3 is shown as 1920 by 1080. The
// filter's own force_original_aspect_ratio is not used: it takes stored pixels for square.
func fitSquarePixels(size int) string {
	scale := fmt.Sprintf("min(1,%d/max(iw*sar,ih))", size)
	return "scale=w='max(1,round(iw*sar*" + scale + "))':h='max(1,round(ih*" + scale + "))',setsar=1"
}

// The transfer functions of high dynamic range (ITU-R BT.2100), as FFmpeg calls them.
const (
	transferPQ  = "smpte2084"
	transferHLG = "arib-std-b67"
)

// toneMap is a filter, to be put behind another one, that brings a frame of high dynamic range into that of a screen. Reference white,
// 203 cd/m2 (ITU-R BT.2408, 2.1), becomes almost white. What is below four fifths of it is kept, and from there to
// 1,000 cd/m2, the peak of HLG and of most films in PQ, highlights are compressed.
func toneMap(transfer string) string {
	if transfer == "" {
		return ""
	}
	// zscale refuses odd sides with subsampled colours, and colours that the file leaves unspecified.
	return ",format=yuv444p10le,zscale=tin=" + transfer + ":pin=bt2020:min=bt2020nc:t=linear:npl=203:p=bt709:m=gbr,format=gbrpf32le" +
		",tonemap=mobius:param=0.8:desat=0:peak=5,zscale=tin=linear:min=gbr:t=bt709:r=full,format=rgb24"
}

// drawPoster makes the frame. An ffmpeg without the filters of toneMap makes a dull one.
func (e *Examiner) drawPoster(ctx context.Context, file, image *os.File, size int) error {
	transfer, err := e.transfer(ctx, file)
	if err != nil {
		return err
	}
	err = e.run(ctx, FFmpeg, posterArguments(size, transfer), file, image)
	if failed := new(sandbox.ToolError); transfer == "" || !errors.As(err, &failed) {
		return err
	}
	if err := emptied(image); err != nil {
		return err
	}
	return e.run(ctx, FFmpeg, posterArguments(size, ""), file, image)
}

// emptied makes a file as it was when it was made.
func emptied(f *os.File) error {
	_, err := f.Seek(0, io.SeekStart)
	if err := errors.Join(err, f.Truncate(0)); err != nil {
		return fmt.Errorf("empty a temporary file: %w", err)
	}
	return nil
}

// transfer returns a video's transfer function if it is one of high dynamic range, and nothing if it is not, or cannot be found out.
func (e *Examiner) transfer(ctx context.Context, file *os.File) (string, error) {
	var said bytes.Buffer
	arguments := append(asMovie(), "-select_streams", "V:0", "-show_entries", "stream=color_transfer", "-of", "default=nw=1:nk=1", sandbox.StdinPath)
	if err := e.run(ctx, FFprobe, arguments, file, &said); err != nil {
		_, err = drawer{}.explain(err)
		return "", err
	}
	switch name := string(bytes.TrimSpace(said.Bytes())); name {
	case transferPQ, transferHLG:
		return name, nil
	}
	return "", nil
}
