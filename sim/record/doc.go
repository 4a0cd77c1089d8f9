// Package record keeps, in bounded memory, what reports and pictures of a replay need, however long it is; and writes
// every job and every sample to CSV as they come.
//
// The main type is [Record]: what its Watch is told is added up over equal parts of time, which double when a replay
// outgrows them, and lists keep their longest or first entries.
//
// The package must not read a clock or open a file, and equal replays give equal records.
//
// Read next: timeline.go, record.go, csv.go, then sim/compare and sim/htmlreport.
package record
