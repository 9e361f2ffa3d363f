package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
)

// A ledger is an [io.Writer] for the log of a Postgres. While it is open every statement is in that log, with its role and
// transaction, and the ledger knows how many transactions there were, whose they were and what they did. Unlike
// pg_stat_database it tells a job that is found from a look that finds none, and does not depend on how long things take.
type ledger struct {
	mu     sync.Mutex
	line   []byte // not yet whole
	last   *transaction
	marks  int // windows that have begun
	by     map[string]*transaction
	opened []*transaction // in order
}

// A transaction is what Postgres logged of one.
type transaction struct {
	role       string
	window     int      // in which it began; 0 before the first mark
	statements []string // begin and commit too
	wrote      bool     // it has an id of its own
}

// A prefix of the log is role, virtual transaction id and transaction id: see log_line_prefix in Postgres' documentation, 20.8.
const logPrefix = "~%u~%v~%x~"

var (
	logEntry     = regexp.MustCompile(`^~([^~]*)~([^~]*)~([^~]*)~LOG:  (.*)$`)
	logStatement = regexp.MustCompile(`^(?:statement|execute [^:]*): (.*)$`)
	space        = regexp.MustCompile(`\s+`)
)

// ledgerSettings are what makes Postgres log what a ledger reads. A duration is logged after its statement, so that its
// prefix has the id that the statement gave its transaction.
var ledgerSettings = map[string]string{
	"log_line_prefix": logPrefix, "log_statement": "all", "log_duration": "on", "log_parameter_max_length": "0",
}

// open has Postgres log every statement, until close is called.
func (l *ledger) open(ctx context.Context, admin *pgx.Conn) (close func() error, err error) {
	l.mu.Lock()
	l.by, l.opened, l.marks = map[string]*transaction{}, nil, 0
	l.mu.Unlock()
	return alter(ctx, admin, ledgerSettings)
}

// alter gives settings of Postgres other values, until reset is called.
func alter(ctx context.Context, admin *pgx.Conn, settings map[string]string) (reset func() error, err error) {
	set := func(ctx context.Context, to func(name string) string) error {
		var errs []error
		for _, name := range slices.Sorted(maps.Keys(settings)) {
			_, err := admin.Exec(ctx, "alter system "+to(name))
			errs = append(errs, err)
		}
		_, err := admin.Exec(ctx, "select pg_reload_conf()")
		return errors.Join(append(errs, err)...)
	}
	err = set(ctx, func(name string) string { return "set " + name + " = '" + settings[name] + "'" })
	return func() error {
		return set(context.WithoutCancel(ctx), func(name string) string { return "reset " + name })
	}, err
}

// mark begins a window once everything is read that Postgres logged before.
func (l *ledger) mark(ctx context.Context, admin *pgx.Conn) error {
	l.mu.Lock()
	next := l.marks + 1
	l.mu.Unlock()
	return poll(ctx, func() (bool, error) { // the first ones may come before Postgres has read its settings
		if _, err := admin.Exec(ctx, fmt.Sprintf("select 'mark %d'", next)); err != nil {
			return false, err
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.marks == next, nil
	})
}

// Write implements [io.Writer].
func (l *ledger) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range p {
		if b != '\n' {
			l.line = append(l.line, b)
			continue
		}
		l.read(string(l.line))
		l.line = l.line[:0]
	}
	return len(p), nil
}

// read takes one line of the log. A message's further lines begin with a tab.
func (l *ledger) read(line string) {
	if strings.HasPrefix(line, "\t") && l.last != nil {
		l.last.statements[len(l.last.statements)-1] += line
		return
	}
	l.last = nil
	entry := logEntry.FindStringSubmatch(line)
	if entry == nil || l.by == nil {
		return
	}
	role, id, wrote, message := entry[1], entry[2], entry[3] != "0", entry[4]
	tx := l.by[id]
	if said := logStatement.FindStringSubmatch(message); said != nil {
		if said[1] == fmt.Sprintf("select 'mark %d'", l.marks+1) {
			l.marks++
			return
		}
		if tx == nil {
			tx = &transaction{role: role, window: l.marks}
			l.by[id], l.opened = tx, append(l.opened, tx)
		}
		tx.statements = append(tx.statements, said[1])
		l.last = tx
	}
	if tx != nil {
		tx.wrote = tx.wrote || wrote
	}
}

// kind describes a transaction to a reader: the beginnings of what it said.
func (t *transaction) kind() string {
	short := make([]string, len(t.statements))
	for i, s := range t.statements {
		s = strings.TrimSpace(space.ReplaceAllString(s, " "))
		short[i] = s[:min(len(s), 60)]
	}
	kind := strings.Join(short, " · ")
	if !t.wrote {
		kind = "(reads) " + kind
	}
	return kind
}

// whole is all that a transaction said, and whether it wrote.
func (t *transaction) whole() string {
	return strings.Join(append([]string{strconv.FormatBool(t.wrote)}, t.statements...), "\n")
}

// notifies reports whether a transaction does nothing but notify.
func (t *transaction) notifies() bool {
	return !t.wrote && slices.ContainsFunc(t.statements, func(s string) bool {
		return strings.HasPrefix(strings.TrimSpace(s), "select pg_notify(")
	})
}

// count returns how many transactions a role began in each window from the first to before the last, and how many of which
// kind. Those that the role also begins in the window named idle do not count, nor those that only notify: changes are
// collected for some time, so that their number depends on how much happens in it.
func (l *ledger) count(role string, idle, first, last int) (each []float64, kinds map[string]int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	always := map[string]bool{}
	for _, t := range l.opened {
		if t.role == role && t.window == idle {
			always[t.whole()] = true
		}
	}
	each, kinds = make([]float64, last-first), map[string]int{}
	for _, t := range l.opened {
		if t.role == role && t.window >= first && t.window < last && !t.notifies() && !always[t.whole()] {
			each[t.window-first]++
			kinds[t.kind()]++
		}
	}
	return each, kinds
}

// begun returns how many transactions a role has begun in a window.
func (l *ledger) begun(role string, window int) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range l.opened {
		if t.role == role && t.window == window {
			n++
		}
	}
	return n
}
