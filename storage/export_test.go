package storage

// A MoveRow is what the table of moves says of one.
type MoveRow struct {
	From                   []Status
	To                     Status
	Event                  Event
	Announce, Batch, Quota string
}

// Moves is the table of moves.
func Moves() map[Move]MoveRow {
	all := make(map[Move]MoveRow)
	for m, r := range moves {
		all[m] = MoveRow{r.from, r.to, r.event, r.announce, string(r.batch), string(r.quota)}
	}
	return all
}

// Noted counts the changes of which the transaction will notify at once, and as progress.
func Noted(tx Tx) (now, progress int) { return len(tx.changes.now), len(tx.changes.progress) }
