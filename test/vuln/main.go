// Command vuln fails when the code reaches a known vulnerability that excused.txt does not excuse, or when that file
// excuses one that is not reached. Its arguments are govulncheck and those of it.
package main

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

//go:embed excused.txt
var excused string

// A message is a line of govulncheck -format json (golang.org/x/vuln/internal/govulncheck): a vulnerability, or a place
// where it is found. The first function of the trace is the vulnerable one; a finding without it is only required, not called.
type message struct {
	OSV *struct {
		ID      string `json:"id"`
		Summary string `json:"summary"`
	} `json:"osv"`
	Finding *struct {
		OSV          string `json:"osv"`
		FixedVersion string `json:"fixed_version"`
		Trace        []struct {
			Module   string `json:"module"`
			Version  string `json:"version"`
			Function string `json:"function"`
		} `json:"trace"`
	} `json:"finding"`
}

func main() {
	command := slices.Concat(os.Args[1:2], []string{"-format", "json"}, os.Args[2:])
	if err := check(excused, command); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func check(excused string, command []string) error {
	excuses, err := parseExcuses(excused)
	if err != nil {
		return err
	}
	reached, err := scan(command)
	if err != nil {
		return err
	}
	var faults []string
	for id, what := range reached {
		if reason, ok := excuses[id]; ok {
			fmt.Printf("%s is excused: %s\n", id, reason)
			delete(excuses, id)
			continue
		}
		faults = append(faults, fmt.Sprintf("%s is reached: %s. See https://pkg.go.dev/vuln/%[1]s.", id, what))
	}
	for id := range excuses {
		faults = append(faults, id+" is excused in test/vuln/excused.txt and no longer reached: delete the line.")
	}
	if len(faults) == 0 {
		return nil
	}
	slices.Sort(faults)
	return errors.New(strings.Join(faults, "\n"))
}

// parseExcuses reads lines of an id, a date and a reason; # begins a comment.
func parseExcuses(list string) (map[string]string, error) {
	excuses := map[string]string{}
	for line := range strings.Lines(list) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		id, rest, _ := strings.Cut(line, " ")
		date, reason, _ := strings.Cut(rest, " ")
		if _, err := time.Parse(time.DateOnly, date); err != nil || reason == "" {
			return nil, fmt.Errorf("excused.txt: %q is not an id, a date and a reason", line)
		}
		excuses[id] = reason + " (" + date + ")"
	}
	return excuses, nil
}

// scan runs govulncheck and returns the vulnerabilities whose code is called.
func scan(command []string) (map[string]string, error) {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	summaries, reached := map[string]string{}, map[string]string{}
	for d := json.NewDecoder(out); ; {
		var m message
		if err := d.Decode(&m); err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
		if m.OSV != nil {
			summaries[m.OSV.ID] = m.OSV.Summary
		}
		if f := m.Finding; f != nil && f.Trace[0].Function != "" {
			fixed := "no fix is known"
			if f.FixedVersion != "" {
				fixed = "fixed in " + f.FixedVersion
			}
			reached[f.OSV] = fmt.Sprintf("%s (%s %s, %s)", summaries[f.OSV], f.Trace[0].Module, f.Trace[0].Version, fixed)
		}
	}
	return reached, cmd.Wait()
}
