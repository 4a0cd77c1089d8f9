// Package chart draws pictures for reports as HTML with inline SVG: lines, stacked areas, ranges of a few values per
// row, and bars of what held a machine when. They need no script and no file beside them, follow the reader's light or
// dark theme, and are as wide as there is room.
//
// The main type is [Plot]. The drawing itself is an SVG that is stretched; words and numbers are HTML around it, so that
// they keep their size on a telephone. [CSS] must be on the page once.
//
// The package must not read a clock or write a file, and equal plots give equal bytes on any machine.
//
// Read next: axis.go (scales and their marks), plot.go, gantt.go, then sim/htmlreport.
package chart
