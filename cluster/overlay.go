package cluster

import (
	"bytes"
	"crypto/sha256"
	"slices"
)

// fanOut is how many children a host has in the tree.
const fanOut = 8

// neighbours are the hosts that this one passes news on to: its parent and children in a tree over the sorted names, and the two
// beside it on a ring in another order, so that one host that is gone and not yet missed cuts nobody off. A fleet of up to nine
// is two hops across, one of 5,000 ten. names are the hosts that are alive, self among them or not.
func neighbours(self string, names []string) []string {
	all := slices.Clone(names)
	if !slices.Contains(all, self) {
		all = append(all, self)
	}
	slices.Sort(all)
	var found []string
	add := func(name string) {
		if name != self && !slices.Contains(found, name) {
			found = append(found, name)
		}
	}
	at := slices.Index(all, self)
	if at > 0 {
		add(all[(at-1)/fanOut])
	}
	for child := at*fanOut + 1; child <= at*fanOut+fanOut && child < len(all); child++ {
		add(all[child])
	}
	place := make(map[string][sha256.Size]byte, len(all))
	for _, name := range all {
		place[name] = sha256.Sum256([]byte(name))
	}
	slices.SortFunc(all, func(a, b string) int {
		x, y := place[a], place[b]
		return bytes.Compare(x[:], y[:])
	})
	at = slices.Index(all, self)
	add(all[(at+1)%len(all)])
	add(all[(at+len(all)-1)%len(all)])
	return found
}
