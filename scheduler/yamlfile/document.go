package yamlfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v4"
)

// Bounds of a document once its aliases stand for what they name. A small file
// of nested aliases could otherwise mean billions of values.
const (
	maxNodes = 1 << 20
	maxDepth = 64
)

// ErrEmpty says that a file holds no document: it is empty, or all comments.
var ErrEmpty = errors.New("is empty")

// Document reads the one YAML document of a file and returns its root. Aliases
// are replaced by what they name; one that leads back to itself, a second
// document, and a document of more than a million values are refused. Keys
// given twice are left to the reader of the document, which knows their names.
func Document(data []byte) (*yaml.Node, error) {
	loader, err := yaml.NewLoader(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("not valid YAML: %w", err)
	}
	var doc, more yaml.Node
	switch err := loader.Load(&doc); {
	case errors.Is(err, io.EOF) || err == nil && len(doc.Content) == 0:
		return nil, ErrEmpty
	case err != nil:
		return nil, fmt.Errorf("not valid YAML: %w", err)
	}
	switch err := loader.Load(&more); {
	case err == nil:
		return nil, At(&more, "a second document begins here: give one document in each file")
	case !errors.Is(err, io.EOF):
		return nil, fmt.Errorf("not valid YAML: %w", err)
	}
	x := expander{open: map[*yaml.Node]bool{}}
	return x.expand(doc.Content[0], 0)
}

// expander replaces aliases.
type expander struct {
	open  map[*yaml.Node]bool // anchored nodes that the walk is inside of
	nodes int
}

func (x *expander) expand(n *yaml.Node, depth int) (*yaml.Node, error) {
	if n.Kind == yaml.AliasNode {
		if x.open[n.Alias] {
			return nil, At(n, "the alias *%s stands inside of what it names, which makes a cycle", n.Value)
		}
		n = n.Alias
	}
	x.nodes++
	switch {
	case x.nodes > maxNodes:
		return nil, At(n, "with its aliases the file has more than %d values: write less", maxNodes)
	case depth > maxDepth:
		return nil, At(n, "more than %d levels of nesting", maxDepth)
	}
	if n.Anchor != "" {
		x.open[n] = true
		defer delete(x.open, n)
	}
	for i, c := range n.Content {
		e, err := x.expand(c, depth+1)
		if err != nil {
			return nil, err
		}
		n.Content[i] = e
	}
	return n, nil
}
