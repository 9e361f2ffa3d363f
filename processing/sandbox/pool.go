package sandbox

import (
	"context"
	"slices"
	"time"

	"github.com/sourcegraph/conc/panics"
)

// take returns a child for the owner: one of theirs that is idle, unless it has to be fresh; the spare one; or a new one.
func (b *Box) take(ctx context.Context, owner string, fresh bool) (*child, error) {
	c, evicted := b.pick(owner, fresh)
	if evicted != nil {
		b.replace(evicted, reasonEvicted)
	}
	if c == nil {
		var err error
		if c, err = b.startChild(ctx); err != nil {
			b.mu.Lock()
			b.count--
			b.mu.Unlock()
			return nil, err
		}
	}
	c.owner = owner
	if c.served == 0 {
		b.Warm()
	}
	return c, nil
}

// pick takes an existing child. Without one, the caller may start one. Whoever calls it holds a token of
// b.working, so that if there are as many children as may be, one of them is idle.
func (b *Box) pick(owner string, fresh bool) (c, evicted *child) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !fresh {
		// The one used last, so that the others can be ended as idle.
		for i, c := range slices.Backward(b.idle) {
			if c.owner == owner && !c.gone() {
				b.idle = slices.Delete(b.idle, i, i+1)
				return c, nil
			}
		}
	}
	if b.count >= b.config.Children {
		evicted, b.idle = b.idle[0], b.idle[1:]
		b.count--
	}
	b.count++
	if b.spare != nil && !b.spare.gone() {
		c = b.spare
	}
	b.spare = nil
	return c, evicted
}

// put takes a child back after a file, and keeps it if it is still good.
func (b *Box) put(c *child, err error) {
	reason := ""
	switch {
	case err != nil && !c.faulted:
		reason = reasonStopped
	case err != nil:
		reason = reasonFault
	case c.served >= b.config.Files:
		reason = reasonFiles
	}
	b.mu.Lock()
	if reason == "" && b.closed {
		reason = reasonStopped
	}
	if reason == "" {
		c.since = time.Now()
		b.idle = append(b.idle, c)
		b.mu.Unlock()
		time.AfterFunc(b.config.Idle, b.sweep)
		return
	}
	b.count--
	b.mu.Unlock()
	b.replace(c, reason)
}

// sweep ends the children that have been idle for too long.
func (b *Box) sweep() {
	b.mu.Lock()
	keep := slices.IndexFunc(b.idle, func(c *child) bool { return time.Since(c.since) < b.config.Idle })
	if keep < 0 {
		keep = len(b.idle)
	}
	old := slices.Clone(b.idle[:keep])
	b.idle = slices.Delete(b.idle, 0, keep)
	b.count -= len(old)
	b.mu.Unlock()
	for _, c := range old {
		b.replace(c, reasonIdle)
	}
}

// replace ends a child whose place was given to another.
func (b *Box) replace(c *child, reason string) {
	b.config.Metrics.replace(reason)
	c.retire()
}

// Warm starts a spare child ahead of the file that needs it, and returns at once.
func (b *Box) Warm() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.warming || (b.spare != nil && !b.spare.gone()) {
		return
	}
	b.warming = true
	b.running.Add(1)
	go func() {
		defer b.running.Done()
		var c *child
		err := recovered(func() (err error) {
			c, err = b.startChild(context.Background()) // Close ends it
			return err
		})
		b.mu.Lock()
		defer b.mu.Unlock()
		b.warming = false
		if err == nil { // or the next caller starts one, and gets the error
			b.reserve(c)
		}
	}()
}

// Prepare starts the first child, ahead of the file that needs it. Its error is why files cannot be read on this machine, such as
// what the kernel lacks.
func (b *Box) Prepare(ctx context.Context) error {
	c, err := b.startChild(ctx)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reserve(c)
	return nil
}

// reserve keeps a child that has served nobody as the spare one. The caller holds the mutex.
func (b *Box) reserve(c *child) {
	if b.closed || (b.spare != nil && !b.spare.gone()) {
		go c.retire()
		return
	}
	b.spare = c
}

// recovered makes a panic of f its error: a goroutine that works for one file must not end the worker.
func recovered(f func() error) (err error) {
	if p := panics.Try(func() { err = f() }); p != nil {
		err = p.AsError()
	}
	return err
}

// gone reports whether an idle child has died.
func (c *child) gone() bool {
	select {
	case <-c.exited:
		return true
	default:
		return false
	}
}
