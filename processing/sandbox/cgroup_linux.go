package sandbox

// placeholder
type cgroups struct{}
type cgroup struct{}

func findCgroups([]string) *cgroups                 { return nil }
func (*cgroups) hold(pid int, memory int64) *cgroup { return nil }
func (*cgroup) String() string                      { return "" }
func (*cgroup) wasFull() bool                       { return false }
func (*cgroup) remove()                             {}
