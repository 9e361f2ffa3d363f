package deadletter

// The SQL under the service.
var (
	List    = list
	Find    = find
	Discard = discard
)
