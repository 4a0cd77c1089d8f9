// Package htmlreport writes what a replay, or several side by side, gave as one HTML file with pictures. The file needs
// nothing beside it: no script, font or picture from elsewhere; it follows the reader's light or dark theme and the width
// of the window.
//
// The main function is [Write]. The package must not read a clock, and equal pages give equal bytes.
//
// Read next: page.go, sections.go, compared.go, then sim/chart.
package htmlreport
