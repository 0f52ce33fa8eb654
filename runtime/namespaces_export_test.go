package runtime

// OnThreadOfItsOwn is for tests that enter a pod's namespaces.
func OnThreadOfItsOwn(f func() error) error { return onThreadOfItsOwn(f) }
