package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/tramo/tramo/test/stack"
)

const (
	photosMeasured = 16   // of 12 megapixels, a repetition
	longBurst      = 2000 // small photos
)

// processing measures what it costs to process a photo of 12 megapixels, beside the same work done by hand: vipsthumbnail
// draws the same three sizes of the same files, clamdscan has the same clamd scan them, one after the other.
func processing(ctx context.Context, b *bench) error {
	p := &photoBench{bench: b, cpu: named{}, second: figures{}}
	defer p.stop() //nolint:errcheck // Nothing is measured any more.
	if err := p.start(ctx); err != nil {
		return err
	}
	for i := range b.repeat {
		if err := p.measure(ctx, i); err != nil {
			return err
		}
	}
	p.report()
	return p.burst(ctx)
}

// A photoBench is one worker with its clamd, and a server that photos are sent to.
type photoBench struct {
	*bench
	workers *workers
	server  *server
	dir     string   // the photos
	photos  []string // their paths
	content [][]byte
	cpu     named   // milliseconds a photo, by what took them
	second  figures // photos a second
}

// What took the CPU time.
const (
	byClamd     = "clamd"
	byWorker    = "the worker: download, hash, rows"
	byChildren  = "its children: thumbnails, placeholder, facts"
	byAll       = "all steps"
	byThumbnail = "vipsthumbnail, three sizes"
	byClamdscan = "clamdscan, clamd with it"
	byHand      = "both"
)

func (p *photoBench) start(ctx context.Context) (err error) {
	if p.dir, err = os.MkdirTemp("", "tramo-bench-photos-"); err != nil {
		return err
	}
	for i := range photosMeasured {
		photo := stack.Photo(stack.PhotoConfig{Seed: uint64(i)})
		path := filepath.Join(p.dir, fmt.Sprintf("%d.jpg", i))
		if err := os.WriteFile(path, photo, 0o600); err != nil {
			return err
		}
		p.photos, p.content = append(p.photos, path), append(p.content, photo)
	}
	if p.workers, err = p.startWorkers(ctx); err != nil {
		return err
	}
	if p.server, err = p.serve(ctx, tramo, p.S3.Endpoint()); err != nil {
		return err
	}
	p.server.token, err = p.tenant(ctx, fmt.Sprintf("processing-%d", time.Now().UnixNano()), "1TiB")
	if err != nil {
		return err
	}
	return p.send(ctx, p.content[:2]) // warms up
}

func (p *photoBench) stop() error {
	err := os.RemoveAll(p.dir)
	if p.workers != nil {
		err = errors.Join(err, p.workers.stop())
	}
	if p.server != nil {
		err = errors.Join(err, p.server.stop())
	}
	return err
}

// measure takes turns: first Tramo, then by hand.
func (p *photoBench) measure(ctx context.Context, round int) error {
	before, err := p.spent()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := p.send(ctx, p.content); err != nil {
		return err
	}
	p.second.add(tramo, photosMeasured/time.Since(began).Seconds())
	after, err := p.spent()
	if err != nil {
		return err
	}
	p.add(byClamd, after.clamd-before.clamd)
	p.add(byWorker, after.worker-before.worker)
	p.add(byChildren, after.children-before.children)
	p.add(byAll, after.clamd-before.clamd+after.worker-before.worker+after.children-before.children)

	var drawn float64
	for _, size := range []int{160, 480, 1600} {
		seconds, err := cpuOf(ctx, "vipsthumbnail", append([]string{"--size", fmt.Sprintf("%dx%d", size, size),
			"-o", fmt.Sprintf("%%s-%d-%d.webp[Q=78,strip]", round, size)}, p.photos...)...)
		if err != nil {
			return err
		}
		drawn += seconds
	}
	scanning, err := cpuSeconds(p.workers.clamd.Pid())
	if err != nil {
		return err
	}
	asked, err := cpuOf(ctx, "clamdscan", append([]string{"--stream", "--no-summary", "--config-file=" + p.workers.clamd.Config()}, p.photos...)...)
	if err != nil {
		return err
	}
	scanned, err := cpuSeconds(p.workers.clamd.Pid())
	if err != nil {
		return err
	}
	p.add(byThumbnail, drawn)
	p.add(byClamdscan, asked+scanned-scanning)
	p.add(byHand, drawn+asked+scanned-scanning)
	return nil
}

func (p *photoBench) add(what string, seconds float64) {
	p.cpu.add(what, tramo, seconds*1000/photosMeasured)
}

// spent is the CPU time, in seconds, that was taken so far.
type spent struct{ clamd, worker, children float64 }

func (p *photoBench) spent() (s spent, err error) {
	pid := p.workers.process.Pid()
	var errs [3]error
	s.clamd, errs[0] = cpuSeconds(p.workers.clamd.Pid())
	s.worker, errs[1] = cpuSeconds(pid)
	s.children, errs[2] = cpuOfChildren(pid)
	return s, errors.Join(errs[:]...)
}

// send sends photos and waits until all are completed.
func (p *photoBench) send(ctx context.Context, photos [][]byte) error {
	addresses := make([]string, len(photos))
	for i, photo := range photos {
		var err error
		if addresses[i], err = p.server.sendPicture(ctx, photo); err != nil {
			return err
		}
	}
	for _, address := range addresses {
		if err := p.server.completed(ctx, address); err != nil {
			return err
		}
	}
	return nil
}

func (p *photoBench) report() {
	for _, what := range []string{byClamd, byWorker, byChildren, byAll, byThumbnail, byClamdscan, byHand} {
		p.spread(what, p.cpu[what])
		p.row("CPU ms a photo of 12 MP: "+what, p.cpu[what], "%.0f", "", true)
	}
	ratio := p.cpu[byAll].by(p.cpu[byHand])
	p.row("all steps, over the same by hand", ratio, "%.2fx", "≤ 0.6x", ratio.of(tramo) <= 0.6)
	p.row(fmt.Sprintf("photos a second, %d cores", runtime.NumCPU()), p.second, "%.1f", "", true)
	p.spread("photos a second", p.second)
}

// burst sends 2,000 small photos of one company, and in their middle single ones of another.
func (p *photoBench) burst(ctx context.Context) error {
	alone, within := figures{}, figures{}
	err := p.burstBeside(ctx, fmt.Sprintf("long-%d", time.Now().UnixNano()), longBurst, func(when string, _, done time.Duration) {
		if when == "burst" {
			within.add(tramo, done.Seconds()*1000)
		} else {
			alone.add(tramo, done.Seconds()*1000)
		}
	})
	if err != nil {
		return err
	}
	p.row("ms to complete a photo, nothing else going on", alone, "%.0f", "", true)
	p.row(fmt.Sprintf("ms to complete it in the middle of another company's burst of %d", longBurst), within, "%.0f", "≤ 2000 more",
		within.of(tramo) <= alone.of(tramo)+2000)
	return p.memory()
}

// memory reports the most that the worker and each of its children had.
func (p *photoBench) memory() error {
	own, err := peak(p.workers.process.Pid())
	if err != nil {
		return err
	}
	children, err := childrenOf(p.workers.process.Pid())
	if err != nil {
		return err
	}
	var most float64
	for _, pid := range children {
		if hwm, err := peak(pid); err == nil { // it may have ended
			most = max(most, hwm)
		}
	}
	p.row("MiB of memory at most: the worker", figures{tramo: {own / mib}}, "%.0f", "", true)
	p.row("MiB of memory at most: one of its children", figures{tramo: {most / mib}}, "%.0f", "", true)
	return nil
}

// cpuOf runs a program and returns the CPU time that it took.
func cpuOf(ctx context.Context, name string, args ...string) (seconds float64, err error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "VIPS_CONCURRENCY=1", "MALLOC_ARENA_MAX=2")
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(), nil
}
