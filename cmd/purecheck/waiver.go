package main

import (
	"go/ast"
	"strings"
)

// readWaivers remembers the text of every comment by the line where it ends, so that a waiver can stand on the line
// of the code that it excuses or on the line above.
func (c *checker) readWaivers(f *ast.File) {
	for _, group := range f.Comments {
		for _, comment := range group.List {
			pos := c.fset.Position(comment.End())
			if c.waivers[pos.Filename] == nil {
				c.waivers[pos.Filename] = map[int]string{}
			}
			c.waivers[pos.Filename][pos.Line] = comment.Text
		}
	}
}

// waived tells whether the line of n, or the one above, has a comment that starts with the key and gives a reason.
func (c *checker) waived(n ast.Node, key string) bool {
	pos := c.fset.Position(n.Pos())
	for _, line := range []int{pos.Line, pos.Line - 1} {
		text := strings.TrimSpace(strings.TrimLeft(c.waivers[pos.Filename][line], "/*"))
		if reason, ok := strings.CutPrefix(text, key); ok && strings.TrimSpace(strings.TrimSuffix(reason, "*/")) != "" {
			return true
		}
	}
	return false
}
