package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/google/pprof/profile"
)

// profiles collects the CPU and wall profiles of Tramo's processes while a case is measured, in windows of a second: a
// process that ends in the middle of one costs no more than that. A nil *profiles collects nothing.
type profiles struct {
	dir string // of the run

	mu     sync.Mutex
	merged map[string]*profile.Profile // by what was profiled, such as "server-cpu"
	errs   []error
}

// profileKinds are the paths of the operations listener, and what their files are called.
var profileKinds = map[string]string{"cpu": "profile?seconds=1", "wall": "wall?seconds=1"}

// env is what a process needs to be profiled.
func (p *profiles) env() []string {
	if p == nil {
		return nil
	}
	return []string{"TRAMO_PPROF=true"}
}

// watch profiles the process whose operations listener is at ops, a server or a worker, until end is called; end must be
// called while the process lives.
func (p *profiles) watch(process, ops string) (end func()) {
	if p == nil {
		return func() {}
	}
	ending := make(chan struct{})
	var watching sync.WaitGroup
	for kind, path := range profileKinds {
		watching.Go(func() {
			for {
				if err := p.window(process+"-"+kind, ops+"/debug/pprof/"+path); err != nil {
					p.failed(fmt.Errorf("profile the %s: %w", process, err))
					return
				}
				select {
				case <-ending:
					return
				default:
				}
			}
		})
	}
	return sync.OnceFunc(func() { close(ending); watching.Wait() })
}

// window adds one second's profile.
func (p *profiles) window(name, url string) error {
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, http.NoBody) // ends after its second
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	content, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, bytes.TrimSpace(content))
	}
	if err != nil {
		return err
	}
	window, err := profile.ParseData(content)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if so := p.merged[name]; so != nil {
		window, err = profile.Merge([]*profile.Profile{so, window})
	}
	if err == nil {
		p.merged[name] = window
	}
	return err
}

func (p *profiles) failed(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.errs = append(p.errs, err)
}

// save writes what was collected while a case was measured, such as latency-server-wall.pprof, and begins anew.
func (p *profiles) save(name string) error {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	err := errors.Join(p.errs...)
	for _, of := range slices.Sorted(maps.Keys(p.merged)) {
		var content bytes.Buffer
		err = errors.Join(err, p.merged[of].Write(&content), os.WriteFile(filepath.Join(p.dir, name+"-"+of+".pprof"), content.Bytes(), 0o644))
	}
	p.merged, p.errs = map[string]*profile.Profile{}, nil
	return err
}
