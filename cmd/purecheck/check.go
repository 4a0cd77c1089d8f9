package main

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// finding is one broken rule at one place.
type finding struct {
	pos  token.Position
	text string
}

// String returns "file:line:column: message", or the message alone for a finding about a whole package.
func (f finding) String() string {
	if !f.pos.IsValid() {
		return f.text
	}
	return fmt.Sprintf("%s: %s", f.pos, f.text)
}

// checker collects the findings of one package.
type checker struct {
	*typed
	root    string
	level   level
	waivers map[string]map[int]string // file -> line -> comment text that ends there
	sorted  map[ast.Node]bool         // calls whose unordered result is put in order, or in a map, at once
	utc     map[ast.Node]bool         // calls whose time is moved to UTC at once
	found   []finding
}

// checkPackage returns every finding in one package, in no particular order.
func checkPackage(g *graph, p policy) ([]finding, error) {
	t, err := g.check(p.importPath())
	if err != nil {
		return nil, err
	}
	c := &checker{
		typed: t, root: g.root, level: p.level,
		waivers: map[string]map[int]string{}, sorted: map[ast.Node]bool{}, utc: map[ast.Node]bool{},
	}
	for _, f := range t.files {
		c.readWaivers(f)
		if p.level == pure {
			c.checkImports(f)
			c.checkGlobals(f)
		}
		ast.Inspect(f, c.visit)
	}
	if p.level == pure {
		c.checkClosure(g, p)
	}
	return c.found, nil
}

// report adds a finding at a node.
func (c *checker) report(at ast.Node, format string, args ...any) {
	pos := c.fset.Position(at.Pos())
	if rel, err := filepath.Rel(c.root, pos.Filename); err == nil {
		pos.Filename = rel
	}
	c.found = append(c.found, finding{pos: pos, text: fmt.Sprintf(format, args...)})
}

// visit checks one node of the syntax tree; parents come before their children.
func (c *checker) visit(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.GoStmt:
		c.report(n, "go statement: a pure function has one thread; let the caller run it concurrently")
	case *ast.SelectStmt:
		c.report(n, "select chooses at random: take the value as an argument instead")
	case *ast.SendStmt:
		c.report(n, "channel send: return the value instead")
	case *ast.ChanType:
		c.report(n, "channel type: pass a slice or a function instead")
	case *ast.UnaryExpr:
		if n.Op == token.ARROW {
			c.report(n, "channel receive: take the value as an argument instead")
		}
	case *ast.RangeStmt:
		c.checkRange(n)
	case *ast.CallExpr:
		c.noteCall(n)
	case *ast.SelectorExpr:
		c.noteUTC(n)
	case *ast.Ident:
		c.checkUse(n)
	case *ast.AssignStmt:
		for _, left := range n.Lhs {
			c.checkWrite(left)
		}
	case *ast.IncDecStmt:
		c.checkWrite(n.X)
	}
	return true
}

// checkRange reports a loop whose order differs from run to run.
func (c *checker) checkRange(n *ast.RangeStmt) {
	for _, left := range []ast.Expr{n.Key, n.Value} {
		if left != nil && n.Tok == token.ASSIGN {
			c.checkWrite(left)
		}
	}
	switch under(c.info.TypeOf(n.X)).(type) {
	case *types.Map:
		if n.Key == nil && n.Value == nil {
			return // "for range m" runs len(m) times and sees no element
		}
		if !c.waived(n, "any order:") {
			c.report(n, "range over a map: its order differs between replicas; loop over sorted keys, "+
				`or say "// any order: <why>"`)
		}
	case *types.Chan:
		c.report(n, "range over a channel: take a slice instead")
	}
}

// under returns the underlying type; for a type parameter that allows one underlying type only, that one.
func under(t types.Type) types.Type {
	if t == nil {
		return nil
	}
	if p, ok := t.(*types.TypeParam); ok {
		if iface, ok := p.Constraint().Underlying().(*types.Interface); ok && iface.NumEmbeddeds() == 1 {
			embedded := iface.EmbeddedType(0)
			if u, ok := embedded.(*types.Union); ok && u.Len() >= 1 {
				return u.Term(0).Type().Underlying()
			}
			return embedded.Underlying()
		}
	}
	return t.Underlying()
}

// noteCall remembers the arguments of calls after which an unordered sequence is harmless.
func (c *checker) noteCall(n *ast.CallExpr) {
	switch c.callee(n.Fun) {
	case "slices.Sorted", "slices.SortedFunc", "slices.SortedStableFunc", "maps.Collect", "maps.Insert":
		for _, arg := range n.Args {
			if call, ok := ast.Unparen(arg).(*ast.CallExpr); ok {
				c.sorted[identOf(call.Fun)] = true
			}
		}
	}
}

// noteUTC remembers a call that is followed by .UTC().
func (c *checker) noteUTC(n *ast.SelectorExpr) {
	if call, ok := ast.Unparen(n.X).(*ast.CallExpr); ok && n.Sel.Name == "UTC" {
		c.utc[identOf(call.Fun)] = true
	}
}

// identOf returns the identifier that names a called function, or nil.
func identOf(fun ast.Expr) ast.Node {
	switch f := ast.Unparen(fun).(type) {
	case *ast.Ident:
		return f
	case *ast.SelectorExpr:
		return f.Sel
	case *ast.IndexExpr:
		return identOf(f.X)
	case *ast.IndexListExpr:
		return identOf(f.X)
	}
	return nil
}

// callee returns "package.Name" of a called package-level function, or "".
func (c *checker) callee(fun ast.Expr) string {
	id, ok := identOf(fun).(*ast.Ident)
	if !ok {
		return ""
	}
	return qualified(c.info.Uses[id])
}

// qualified returns "package.Name" of a package-level function or variable of another package, or "".
func qualified(obj types.Object) string {
	if obj == nil || obj.Pkg() == nil || obj.Parent() != obj.Pkg().Scope() {
		return ""
	}
	return obj.Pkg().Path() + "." + obj.Name()
}

// checkUse reports an identifier that names something outside a function's arguments.
func (c *checker) checkUse(id *ast.Ident) {
	obj := c.info.Uses[id]
	if b, ok := obj.(*types.Builtin); ok && b.Name() == "close" {
		c.report(id, "close of a channel: a pure function has no channels")
		return
	}
	name := qualified(obj)
	if name == "" {
		return
	}
	pkg, base := name[:strings.LastIndex(name, ".")], obj.Name()
	switch pkg {
	case "time":
		switch base {
		case "Now", "Since", "Until", "After", "AfterFunc", "Sleep", "Tick", "NewTimer", "NewTicker", "Timer", "Ticker":
			c.report(id, "time.%s reads the wall clock: take the time as an argument", base)
		case "Local", "LoadLocation":
			c.report(id, "time.%s depends on the machine: use UTC", base)
		case "Unix", "UnixMilli", "UnixMicro":
			if !c.utc[id] {
				c.report(id, "time.%s gives the machine's time zone: follow it with .UTC()", base)
			}
		}
	case "math/rand", "math/rand/v2":
		if _, isFunc := obj.(*types.Func); isFunc && !strings.HasPrefix(base, "New") {
			c.report(id, "rand.%s uses the global generator: take a *rand.Rand as an argument", base)
		}
	case "maps":
		if (base == "Keys" || base == "Values" || base == "All") && !c.sorted[id] && !c.waived(id, "any order:") {
			c.report(id, "maps.%s has no fixed order: wrap it in slices.Sorted, or say \"// any order: <why>\"", base)
		}
	}
}

// checkWrite reports an assignment to a package variable, whole or in part.
func (c *checker) checkWrite(left ast.Expr) {
	if c.level != pure {
		return
	}
	for {
		switch e := ast.Unparen(left).(type) {
		case *ast.IndexExpr:
			left = e.X
		case *ast.StarExpr:
			left = e.X
		case *ast.SelectorExpr:
			if v, ok := c.info.Uses[e.Sel].(*types.Var); ok && qualified(v) != "" {
				c.report(e, "assignment to package variable %s: return the value instead", e.Sel.Name)
				return
			}
			left = e.X
		case *ast.Ident:
			if v, ok := c.info.Uses[e].(*types.Var); ok && qualified(v) != "" {
				c.report(e, "assignment to package variable %s: return the value instead", e.Name)
			}
			return
		default:
			return
		}
	}
}

// impureImports lists standard packages that a pure package has no use for, with everything below them.
//
//nolint:gochecknoglobals // table, never written
var impureImports = []string{
	"C", "context", "crypto/rand", "log", "net", "os", "plugin", "reflect", "runtime", "sync", "syscall", "testing", "unsafe",
}

// checkImports reports direct imports of impure standard packages.
func (c *checker) checkImports(f *ast.File) {
	for _, spec := range f.Imports {
		path, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue // the type checker has refused it already
		}
		for _, bad := range impureImports {
			if path == bad || strings.HasPrefix(path, bad+"/") {
				c.report(spec, "import of %s: a pure package is a function of its arguments", path)
			}
		}
	}
}

// checkGlobals reports package variables and init functions.
func (c *checker) checkGlobals(f *ast.File) {
	for _, decl := range f.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil && d.Name.Name == "init" {
				c.report(d, "init function: give the value a constructor")
			}
		case *ast.GenDecl:
			if d.Tok != token.VAR {
				continue
			}
			for _, spec := range d.Specs {
				c.checkVar(d, spec.(*ast.ValueSpec))
			}
		}
	}
}

// checkVar reports the variables of one declaration that are neither error sentinels nor waived tables.
func (c *checker) checkVar(decl *ast.GenDecl, spec *ast.ValueSpec) {
	for _, name := range spec.Names {
		obj := c.info.Defs[name]
		if name.Name == "_" || obj == nil || isError(obj.Type()) {
			continue
		}
		if c.waived(spec, "table:") || c.waived(spec, "nolint:gochecknoglobals //") ||
			(!decl.Lparen.IsValid() && (c.waived(decl, "table:") || c.waived(decl, "nolint:gochecknoglobals //"))) {
			continue
		}
		c.report(name, "package variable %s: make it a constant, a parameter, or a table that is never written "+
			`("// table: <what it holds>")`, name.Name)
	}
}

// isError tells whether a variable of this type can be an error sentinel.
func isError(t types.Type) bool {
	errType := types.Universe.Lookup("error").Type().Underlying().(*types.Interface)
	return types.Implements(t, errType)
}

// checkClosure reports packages outside the standard library that the package reaches and the policy does not allow.
func (c *checker) checkClosure(g *graph, p policy) {
	via := map[string]string{p.importPath(): ""}
	for queue := []string{p.importPath()}; len(queue) > 0; queue = queue[1:] {
		from := g.packages[queue[0]]
		for _, path := range from.Imports {
			if mapped, ok := from.ImportMap[path]; ok {
				path = mapped
			}
			if _, seen := via[path]; seen || path == "C" || g.packages[path].Standard {
				continue
			}
			via[path] = from.ImportPath
			queue = append(queue, path)
			if !slices.Contains(p.allow, path) {
				c.found = append(c.found, finding{text: fmt.Sprintf(
					"%s: must not reach %s (imported by %s): the policy table allows %s",
					p.dir, path, from.ImportPath, allowed(p.allow))})
			}
		}
	}
	if len(c.CgoFiles) > 0 {
		c.found = append(c.found, finding{text: fmt.Sprintf("%s: uses cgo in %s", p.dir, strings.Join(c.CgoFiles, ", "))})
	}
}

func allowed(paths []string) string {
	if len(paths) == 0 {
		return "the standard library only"
	}
	return "besides the standard library only " + strings.Join(paths, ", ")
}
