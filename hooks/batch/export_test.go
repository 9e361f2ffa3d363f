package batch

// What tests of the SQL use.
var (
	CancelIn = cancel
	Once     = once
)
