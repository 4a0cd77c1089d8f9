package assertion

import (
	"encoding/xml"
	"fmt"
	"io"
)

// The elements of a JUnit report that CI systems read. Times are left out: they would differ from run to run.
type (
	junitSuites struct {
		XMLName  xml.Name     `xml:"testsuites"`
		Tests    int          `xml:"tests,attr"`
		Failures int          `xml:"failures,attr"`
		Suites   []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Name    string        `xml:"name,attr"`
		Class   string        `xml:"classname,attr"`
		File    string        `xml:"file,attr"`
		Line    int           `xml:"line,attr"`
		Failure *junitFailure `xml:"failure"`
	}
	junitFailure struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr"`
	}
)

// WriteJUnit writes results as the XML that CI systems show beside other tests. It returns the error of writing.
func WriteJUnit(w io.Writer, results []*Result) error {
	all := junitSuites{}
	for _, r := range results {
		s := junitSuite{Name: r.File, Tests: len(r.Verdicts), Failures: r.Failed}
		for i := range r.Verdicts {
			v := &r.Verdicts[i]
			c := junitCase{Name: v.Name, Class: r.File, File: r.File, Line: v.Line}
			if !v.OK {
				text := fmt.Sprintf("%s: wanted %s %s, found %s", v.Text, v.op, v.unit.text(v.Wanted), v.unit.text(v.Found))
				if v.Problem != "" {
					text += ": " + v.Problem
				}
				c.Failure = &junitFailure{Message: text, Type: "assertion"}
			}
			s.Cases = append(s.Cases, c)
		}
		all.Tests += s.Tests
		all.Failures += s.Failures
		all.Suites = append(all.Suites, s)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	if err := enc.Encode(all); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}
