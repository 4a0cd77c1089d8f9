package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// listed is what `go list` tells about one package; the field names are its own.
type listed struct {
	ImportPath string
	Dir        string
	Export     string   // file with the compiled type information
	Standard   bool     // part of the standard library
	GoFiles    []string // without tests and files left out by build constraints
	CgoFiles   []string
	Imports    []string
	ImportMap  map[string]string // import as written -> import path, for vendored packages
}

// graph holds the checked packages and everything that they reach.
type graph struct {
	root     string // folder that positions are shown relative to
	packages map[string]listed
}

// load asks the go command for the packages and all their dependencies, compiling whatever is not in its cache. A
// package that is missing or does not compile is an error in the words of the go command.
func load(dir string, chosen []policy) (*graph, error) {
	root, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("find folder %s: %w", dir, err)
	}
	args := []string{"list", "-export", "-deps", "-json=ImportPath,Dir,Export,Standard,GoFiles,CgoFiles,Imports,ImportMap", "--"}
	for _, p := range chosen {
		args = append(args, p.importPath())
	}
	cmd := exec.Command("go", args...)
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("load packages with go list: %w\n%s", err, stderr.String())
	}
	g := &graph{root: root, packages: map[string]listed{}}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return g, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read the output of go list: %w", err)
		}
		g.packages[p.ImportPath] = p
	}
}

// typed is one parsed and type-checked package.
type typed struct {
	listed
	fset  *token.FileSet
	files []*ast.File
	info  *types.Info
}

// check parses and type-checks one package against the compiled form of what it imports.
func (g *graph) check(importPath string) (*typed, error) {
	p, ok := g.packages[importPath]
	if !ok {
		return nil, fmt.Errorf("check %s: go list did not return it", importPath)
	}
	t := &typed{listed: p, fset: token.NewFileSet(), info: &types.Info{
		Types: map[ast.Expr]types.TypeAndValue{},
		Uses:  map[*ast.Ident]types.Object{},
		Defs:  map[*ast.Ident]types.Object{},
	}}
	for _, name := range p.GoFiles {
		f, err := parser.ParseFile(t.fset, filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, fmt.Errorf("parse package %s: %w", importPath, err)
		}
		t.files = append(t.files, f)
	}
	open := func(path string) (io.ReadCloser, error) {
		if mapped, ok := p.ImportMap[path]; ok {
			path = mapped
		}
		file := g.packages[path].Export
		if file == "" {
			return nil, fmt.Errorf("no compiled form of %s", path)
		}
		return os.Open(file)
	}
	conf := types.Config{
		Importer: importer.ForCompiler(t.fset, "gc", open),
		Sizes:    types.SizesFor("gc", runtime.GOARCH),
	}
	if _, err := conf.Check(importPath, t.fset, t.files, t.info); err != nil {
		return nil, fmt.Errorf("type-check package %s: %w", importPath, err)
	}
	return t, nil
}
