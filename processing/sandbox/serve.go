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
	// Warm does slow initialization before the first file, when the child is already confined. It may be nil.
	Warm func()
	// Answer answers one request about one file, whose bytes it may not keep. An error ends the child.
	Answer func(request, input []byte, output io.Writer) error
}

// childOrder is the argument of a process that a Box starts. It names nothing that belongs to a tenant.
type childOrder struct {
	Limits      Limits   `json:"limits"`
	Files       int      `json:"files,omitempty"`
	Tool        *Tool    `json:"tool,omitempty"`
	Confinement string   `json:"confinement"`
	Without     []string `json:"without,omitempty"`
}

// gateFile is a tool's descriptor, until it is one, that ends when its parent has put it into its cgroup.
const gateFile = 3

// files is how many descriptors, from 0 on, the process is given.
func (o childOrder) files() int {
	if o.Tool != nil {
		return gateFile + 1
	}
	return gateFile
}

// Serve is the main function of a process that a Box has started: it gives up the rights that it does not need, and answers one
// request after the other until its parent closes the socket; or it becomes a tool. arguments are those after the hidden one.
func Serve(arguments []string, service Service) error {
	if len(arguments) != 1 {
		return errors.New("only a worker can start this command")
	}
	var order childOrder
	if err := json.Unmarshal([]byte(arguments[0]), &order); err != nil {
		return fmt.Errorf("read the order: %w", err)
	}
	if err := closeInherited(order.files()); err != nil {
		return err
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
