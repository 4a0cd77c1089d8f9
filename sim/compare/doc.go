// Package compare replays the same jobs in several ways, side by side, and says what differs: the figures, who gains
// and who loses, and the first decision that another scheduler, policy or cluster took otherwise, with both sides' reasons.
//
// The main function is [Runs]. It replays one after another and keeps of the first run 16 bytes for each decision. The
// first difference is then looked at by replaying both sides again, up to there: replays are repeatable.
//
// The package must not read a clock or open a file itself, and equal inputs give equal results.
//
// Read next: compare.go, diverge.go, text.go, then cmd/gangline/simcompare.go.
package compare
