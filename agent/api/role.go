package api

// role is what a caller may do; each includes the ones before it.
type role int

const (
	nobody role = iota
	viewer
	operator
	admin
)

func (r role) String() string { return [...]string{"nobody", "viewer", "operator", "admin"}[r] }
