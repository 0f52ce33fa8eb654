package manifest

import (
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// tree is a document (or one item of a List) with its line numbers. It is built only when there is something to report, or when
// the document has aliases.
type tree struct {
	node   *yaml.Node
	offset int // to add to the node's line numbers
}

// lines parses the document once more, keeping positions. A nil tree answers 0 to everything.
func (d *document) lines() *tree {
	if d.root == nil {
		d.root = &tree{offset: d.start - 1}
		var root yaml.Node
		if yaml.Unmarshal(d.text, &root) == nil && len(root.Content) == 1 {
			d.root.node = root.Content[0]
		}
	}
	return d.root
}

// item is the i-th item of a List.
func (t *tree) item(i int) *tree {
	items := child(t.node, "items")
	if items == nil || items.Kind != yaml.SequenceNode || i >= len(items.Content) {
		return &tree{offset: t.offset}
	}
	return &tree{node: resolve(items.Content[i]), offset: t.offset}
}

// start is the first line, 0 when unknown.
func (t *tree) start() int {
	if t.node == nil {
		return 0
	}
	return t.node.Line + t.offset
}

// line finds the field ("spec.template.spec.containers[0].ports", "data[a.b]"), or the deepest field above it that exists.
func (t *tree) line(field string) int {
	if t.node == nil {
		return 0
	}
	node, line := t.node, t.node.Line
	for rest := field; rest != ""; {
		next, at, remaining := step(node, rest)
		if next == nil {
			break
		}
		node, line, rest = resolve(next), at, remaining
	}
	return line + t.offset
}

// step goes one segment down the path.
func step(node *yaml.Node, path string) (next *yaml.Node, line int, rest string) {
	if node == nil {
		return nil, 0, ""
	}
	switch node.Kind {
	case yaml.SequenceNode:
		inside, rest, ok := strings.Cut(strings.TrimPrefix(path, "["), "]")
		i, err := strconv.Atoi(inside)
		if !ok || err != nil || i < 0 || i >= len(node.Content) {
			return nil, 0, ""
		}
		return node.Content[i], node.Content[i].Line, rest
	case yaml.MappingNode:
		return stepMap(node, path)
	}
	return nil, 0, ""
}

// stepMap takes the longest key that the path begins with, because keys of labels and data may contain dots.
func stepMap(node *yaml.Node, path string) (next *yaml.Node, line int, rest string) {
	longest := -1
	for i := 0; i+1 < len(node.Content); i += 2 {
		key := node.Content[i].Value
		var after string
		if inside, ok := strings.CutPrefix(path, "["+key+"]"); ok {
			after = inside
		} else if tail, ok := strings.CutPrefix(strings.TrimPrefix(path, "."), key); ok && (tail == "" || tail[0] == '.' || tail[0] == '[') {
			after = tail
		} else {
			continue
		}
		if len(key) > longest {
			longest, next, line, rest = len(key), node.Content[i+1], node.Content[i].Line, after
		}
	}
	return next, line, rest
}

func child(node *yaml.Node, key string) *yaml.Node {
	if node == nil || node.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		if node.Content[i].Value == key {
			return resolve(node.Content[i+1])
		}
	}
	return nil
}

func resolve(node *yaml.Node) *yaml.Node {
	for node != nil && node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	return node
}

// duplicate is a key given twice.
type duplicate struct {
	path        string
	line, first int
}

// duplicates finds all keys given twice, in order.
func (t *tree) duplicates() []duplicate {
	var found []duplicate
	var walk func(node *yaml.Node, path string)
	walk = func(node *yaml.Node, path string) {
		switch node.Kind {
		case yaml.SequenceNode:
			for i, n := range node.Content {
				walk(n, fmt.Sprintf("%s[%d]", path, i))
			}
		case yaml.MappingNode:
			seen := map[string]int{}
			for i := 0; i+1 < len(node.Content); i += 2 {
				key, below := node.Content[i], node.Content[i].Value
				if path != "" {
					below = path + "." + key.Value
				}
				if first, ok := seen[key.Value]; ok && key.Tag != "!!merge" {
					found = append(found, duplicate{path: below, line: key.Line + t.offset, first: first + t.offset})
				} else {
					seen[key.Value] = key.Line
				}
				walk(node.Content[i+1], below)
			}
		}
	}
	if t.node != nil {
		walk(t.node, "")
	}
	return found
}

// expands reports whether the document, with its aliases written out, is larger than limit bytes. It never writes them out.
func (t *tree) expands(limit int) bool {
	sizes := map[*yaml.Node]int{}
	var size func(node *yaml.Node) int
	size = func(node *yaml.Node) int {
		node = resolve(node)
		if node == nil {
			return 0
		}
		if n, ok := sizes[node]; ok {
			return n // also 0 for a node that contains itself: the decoder refuses that
		}
		sizes[node] = 0
		sum := len(node.Value) + 1
		for _, c := range node.Content {
			if sum += size(c); sum > limit {
				sum = limit + 1
				break
			}
		}
		sizes[node] = sum
		return sum
	}
	return size(t.node) > limit
}
