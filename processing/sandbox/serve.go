package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// A Service is what a child does for its parent.
type Service struct {
	// Warm does ahead of the first file what takes time; the child is confined already. It may be nil.
	Warm func()
	// Answer answers one request about one file, whose bytes it may not keep. An error ends the child.
	Answer func(request, input []byte, output io.Writer) error
}

// childOrder is the argument of a process that a Box starts. It names nothing that belongs to a tenant.
type childOrder struct {
	Limits  Limits   `json:"limits"`
	Files   int      `json:"files,omitempty"`
	Tool    *Tool    `json:"tool,omitempty"`
	TooWide []string `json:"too_wide,omitempty"`
}

// Serve is the whole life of a process that a Box has started: it gives up what it does not need, and answers one request
// after the other, until its parent wants no more; or becomes the tool that its parent wants. arguments are those behind
// the hidden one.
func Serve(arguments []string, service Service) error {
	if len(arguments) != 1 {
		return errors.New("this command is not for people: a worker starts it")
	}
	var order childOrder
	if err := json.Unmarshal([]byte(arguments[0]), &order); err != nil {
		return fmt.Errorf("read the order: %w", err)
	}
	if order.Tool != nil {
		return becomeTool(order)
	}
	forced, err := confineChild(order)
	if err != nil {
		return fmt.Errorf("confine the process: %w", err)
	}
	if service.Warm != nil {
		service.Warm()
	}
	if err := json.NewEncoder(os.Stdin).Encode(forced); err != nil {
		return fmt.Errorf("say hello: %w", err)
	}
	for {
		err := serveOne(service)
		if errors.Is(err, io.EOF) {
			return nil // the parent closed its end, or is dead
		}
		if err != nil {
			return err
		}
	}
}

// serveOne answers one request. The pipe is closed last: then the parent may send the next file.
func serveOne(service Service) error {
	request, input, output, err := receive()
	if err != nil {
		return err
	}
	defer func() { _ = output.Close() }()
	data, err := mapFile(input)
	_ = input.Close() // the mapping stays
	if err != nil {
		return fmt.Errorf("map the file: %w", err)
	}
	defer unmapFile(data)
	return service.Answer(request, data, output)
}
