package storage

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// A beginner begins transactions for [pgx.BeginTxFunc].
type beginner struct {
	pool     *pgxpool.Pool
	settings []Setting // beside [unlessIdle]
}

// BeginTx implements the interface of [pgx.BeginTxFunc]. It sends nothing yet.
func (b beginner) BeginTx(context.Context, pgx.TxOptions) (pgx.Tx, error) {
	return &pipeline{pool: b.pool, settings: append(b.settings, unlessIdle)}, nil
}

// A pipeline is a transaction whose statements travel together as far as they can: each round trip is one that a phone waits
// for, and that the locks of a tenant's row are held for. BEGIN travels with the first statement; a statement that nobody
// waits for ([Later]) travels with the next one whose answer is read, or with COMMIT. Postgres executes them in order, and
// none after one that fails. One goroutine uses a pipeline.
type pipeline struct {
	pool     *pgxpool.Pool
	settings []Setting

	conn   *pgxpool.Conn // nil until something is sent
	tx     pgx.Tx        // begun on conn
	later  []*Statement
	failed error // of BEGIN, or of a statement that nobody waited for
	ended  bool
}

// A Statement is one that travels with others.
type Statement struct {
	doing, sql string
	args       []any
	read       func(pgx.Rows) error // nil for a statement without an answer
	decides    bool
	repeatable bool
}

// Later is [Exec] for a statement whose answer nobody waits for. If it fails, what it travels with has its error.
func Later(tx Tx, doing, sql string, args ...any) *Statement {
	s := &Statement{doing: doing, sql: sql, args: args}
	tx.pipeline.later = append(tx.pipeline.later, s)
	return s
}

// ReadLater is [Later] for a statement that changes nothing, and has read read the answer.
func ReadLater(tx Tx, doing string, read func(pgx.Rows) error, sql string, args ...any) {
	s := Later(tx, doing, sql, args...)
	s.read, s.repeatable = read, true
}

// Read has f read the answer, before that of the next statement is read, or before COMMIT returns.
func (s *Statement) Read(f func(pgx.Rows) error) { s.read = f }

// Decide is Read for an answer on which it depends whether the transaction may commit: an error of f undoes it.
func (s *Statement) Decide(f func(pgx.Rows) error) { s.read, s.decides = f, true }

// Into is for [ReadLater] and [Statement.Read]: it scans the only row, if there is one.
func Into(to ...any) func(pgx.Rows) error {
	return func(rows pgx.Rows) error {
		_, err := pgx.ForEachRow(rows, to, func() error { return nil })
		return err
	}
}

// Flush sends what waits, and reads the answers.
func Flush(ctx context.Context, tx Tx) error {
	if len(tx.pipeline.later) == 0 {
		return nil
	}
	return tx.pipeline.flush(ctx)
}

// answered reads the answer to s.
func (s *Statement) answered(results pgx.BatchResults) (err error) {
	if s.read == nil {
		_, err = results.Exec()
	} else {
		var rows pgx.Rows
		if rows, err = results.Query(); err == nil {
			err = s.read(rows)
			rows.Close()
			if err == nil {
				err = rows.Err()
			}
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.doing, err)
	}
	return nil
}

// send sends what waits, and then b, in one round trip, and reads the answers to what waited. The caller reads those to b, and
// closes the results.
func (p *pipeline) send(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	results, err := p.begin(ctx, b)
	later := p.later
	p.later = nil
	for _, s := range later {
		if err == nil {
			if err = s.answered(results); err != nil {
				_ = results.Close() // with the error of a statement of Postgres, once more
			}
		}
	}
	if err != nil {
		p.failed = err
		return pgx.FailedBatchResults(b, err)
	}
	return results
}

// begin sends what waits, and then b, after BEGIN if that was not sent yet. A connection of the pool may be broken, as all are
// after Postgres has restarted: then it begins on another one, because nothing has been done.
func (p *pipeline) begin(ctx context.Context, b *pgx.Batch) (pgx.BatchResults, error) {
	if p.ended {
		return nil, pgx.ErrTxClosed
	}
	if p.failed != nil { // and without what failed, nothing after it may be done
		return nil, p.failed
	}
	if p.tx != nil {
		return p.conn.SendBatch(ctx, p.batch(b)), nil
	}
	for tries := p.pool.Stat().MaxConns(); ; tries-- {
		conn, err := p.pool.Acquire(ctx)
		if err != nil {
			return nil, fmt.Errorf("begin: %w", err)
		}
		results := conn.SendBatch(ctx, p.batch(b))
		if _, err = results.Exec(); err == nil {
			_, err = results.Exec() // the settings
		}
		if err == nil {
			p.conn, p.tx = conn, results.Tx()
			return results, nil
		}
		_ = results.Close()
		conn.Release() // it is dropped if it is broken
		if !isBroken(err) || ctx.Err() != nil || tries <= 0 {
			return nil, err
		}
	}
}

// batch is what is to be sent. A batch can be sent once only.
func (p *pipeline) batch(b *pgx.Batch) *pgx.Batch {
	all := new(pgx.Batch)
	if p.tx == nil {
		all.BeginTx(pgx.TxOptions{})
		set, args := setLocal(p.settings)
		all.Queue(set, args...)
	}
	for _, s := range p.later {
		all.Queue(s.sql, s.args...)
	}
	for _, q := range b.QueuedQueries {
		all.Queue(q.SQL, q.Arguments...).Fn = q.Fn
	}
	return all
}

// setLocal is a statement with its arguments.
func setLocal(settings []Setting) (sql string, args []any) {
	calls := make([]string, len(settings))
	for i, s := range settings {
		calls[i] = fmt.Sprintf("set_config($%d, $%d, true)", 2*i+1, 2*i+2)
		args = append(args, s.name, s.value)
	}
	return "select " + strings.Join(calls, ", "), args
}

// flush sends what waits, and BEGIN if that was not sent.
func (p *pipeline) flush(ctx context.Context) error {
	if p.tx != nil && len(p.later) == 0 {
		return p.failed
	}
	return p.send(ctx, new(pgx.Batch)).Close()
}

// Commit implements [pgx.Tx].
func (p *pipeline) Commit(ctx context.Context) error {
	if p.ended {
		return pgx.ErrTxClosed
	}
	err := p.commit(ctx)
	if err != nil {
		_ = p.Rollback(ctx) // the connection is dropped if that fails
	}
	p.end()
	return err
}

func (p *pipeline) commit(ctx context.Context) error {
	if p.tx == nil && len(p.later) == 0 && p.failed == nil {
		return nil // nothing was done
	}
	for _, s := range p.later {
		// What travels with BEGIN may be executed twice, each time in a transaction of its own.
		if s.decides || p.tx == nil && !s.repeatable {
			if err := p.flush(ctx); err != nil {
				return err
			}
			break
		}
	}
	last := new(pgx.Batch)
	last.Queue("commit")
	results := p.send(ctx, last)
	tag, err := results.Exec()
	if closed := results.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	if tag.String() == "ROLLBACK" {
		return pgx.ErrTxCommitRollback
	}
	return nil
}

// Rollback implements [pgx.Tx].
func (p *pipeline) Rollback(ctx context.Context) (err error) {
	if p.ended {
		return pgx.ErrTxClosed
	}
	if p.tx != nil {
		err = p.tx.Rollback(ctx)
	}
	p.end()
	return err
}

func (p *pipeline) end() {
	p.ended = true
	if p.conn != nil {
		p.conn.Release()
		p.conn = nil
	}
}

// Exec implements [pgx.Tx].
func (p *pipeline) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	rows, err := p.Query(ctx, sql, args...)
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	rows.Close()
	return rows.CommandTag(), rows.Err()
}

// Query implements [pgx.Tx].
func (p *pipeline) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if len(args) > 0 {
		if _, alone := args[0].(pgx.QueryExecMode); alone { // which a batch does not know
			if err := p.flush(ctx); err != nil {
				return nil, err
			}
		}
	}
	if p.tx != nil && len(p.later) == 0 && p.failed == nil && !p.ended {
		return p.conn.Query(ctx, sql, args...)
	}
	b := new(pgx.Batch)
	b.Queue(sql, args...)
	results := p.send(ctx, b)
	rows, err := results.Query()
	if err != nil {
		_ = results.Close() // with the same error
		return rows, err
	}
	return &onlyRows{rows, results, nil}, nil
}

// QueryRow implements [pgx.Tx].
func (p *pipeline) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	rows, err := p.Query(ctx, sql, args...)
	return onlyRow{rows, err}
}

// SendBatch implements [pgx.Tx].
func (p *pipeline) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	return p.send(ctx, b)
}

// CopyFrom implements [pgx.Tx]. One row is inserted, which travels with others: before it copies, pgx asks for the types of the
// columns.
func (p *pipeline) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, source pgx.CopyFromSource) (int64, error) {
	var all [][]any
	for source.Next() {
		row, err := source.Values()
		if err != nil {
			return 0, err
		}
		all = append(all, row)
	}
	if err := source.Err(); err != nil {
		return 0, err
	}
	if len(all) == 1 {
		p.later = append(p.later, insertion(table, columns, all[0]))
		return 1, nil
	}
	if err := p.flush(ctx); err != nil {
		return 0, err
	}
	return p.conn.CopyFrom(ctx, table, columns, pgx.CopyFromRows(all))
}

func insertion(table pgx.Identifier, columns []string, row []any) *Statement {
	names, places := make([]string, len(columns)), make([]string, len(columns))
	for i, name := range columns {
		names[i], places[i] = pgx.Identifier{name}.Sanitize(), fmt.Sprintf("$%d", i+1)
	}
	return &Statement{
		doing: "insert into " + table.Sanitize(),
		sql:   "insert into " + table.Sanitize() + " (" + strings.Join(names, ", ") + ") values (" + strings.Join(places, ", ") + ")",
		args:  row,
	}
}

// Begin implements [pgx.Tx], with a savepoint.
func (p *pipeline) Begin(ctx context.Context) (pgx.Tx, error) {
	if err := p.flush(ctx); err != nil {
		return nil, err
	}
	return p.tx.Begin(ctx)
}

// Prepare implements [pgx.Tx].
func (p *pipeline) Prepare(ctx context.Context, name, sql string) (*pgconn.StatementDescription, error) {
	if err := p.flush(ctx); err != nil {
		return nil, err
	}
	return p.tx.Prepare(ctx, name, sql)
}

// LargeObjects implements [pgx.Tx].
func (p *pipeline) LargeObjects() pgx.LargeObjects { panic("storage: large objects are not used") }

// Conn implements [pgx.Tx]. It is nil until something is sent.
func (p *pipeline) Conn() *pgx.Conn {
	if p.conn == nil {
		return nil
	}
	return p.conn.Conn()
}

// onlyRows are those of the only query of a batch.
type onlyRows struct {
	pgx.Rows
	results pgx.BatchResults
	closed  error
}

// Next implements [pgx.Rows].
func (r *onlyRows) Next() bool {
	if r.Rows.Next() {
		return true
	}
	r.Close()
	return false
}

// Close implements [pgx.Rows].
func (r *onlyRows) Close() {
	r.Rows.Close()
	r.closed = r.results.Close() // the same each time
}

// Err implements [pgx.Rows].
func (r *onlyRows) Err() error {
	if err := r.Rows.Err(); err != nil {
		return err
	}
	return r.closed
}

// onlyRow is the first of some rows.
type onlyRow struct {
	rows pgx.Rows
	err  error
}

// Scan implements [pgx.Row].
func (r onlyRow) Scan(to ...any) error {
	if r.err != nil {
		return r.err
	}
	defer r.rows.Close()
	if !r.rows.Next() {
		if err := r.rows.Err(); err != nil {
			return err
		}
		return pgx.ErrNoRows
	}
	if err := r.rows.Scan(to...); err != nil {
		return err
	}
	r.rows.Close()
	return r.rows.Err()
}
