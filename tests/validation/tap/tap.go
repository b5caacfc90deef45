// Package tap writes the Test Anything Protocol, version 13. The validation suite of runtime-spec imports github.com/mndrix/tap-go,
// which Debian does not have; this is what the suite uses of its interface.
package tap

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
)

// T is one run.
type T struct {
	// Writer is where lines go: standard output unless it is set.
	Writer io.Writer
	count  *int
	note   string
}

// New makes a run without tests.
func New() *T {
	return &T{Writer: os.Stdout, count: new(int)}
}

func (t *T) line(format string, args ...interface{}) {
	fmt.Fprintf(t.Writer, format+"\n", args...)
}

// Header begins the output; a plan follows unless count is 0.
func (t *T) Header(count int) {
	t.line("TAP version 13")
	if count > 0 {
		t.line("1..%d", count)
	}
}

// Ok tells of a test.
func (t *T) Ok(passed bool, description string) {
	*t.count++
	word := "ok"
	if !passed {
		word = "not ok"
	}
	t.line("%s %d - %s%s", word, *t.count, description, t.note)
}

// Pass tells of a test that passed.
func (t *T) Pass(description string) { t.Ok(true, description) }

// Fail tells of a test that failed.
func (t *T) Fail(description string) { t.Ok(false, description) }

// Skip tells of tests that were not made.
func (t *T) Skip(count int, description string) {
	for ; count > 0; count-- {
		*t.count++
		t.line("ok %d # SKIP %s", *t.count, description)
	}
}

// AutoPlan ends the output with the plan.
func (t *T) AutoPlan() { t.line("1..%d", *t.count) }

// Todo tells of tests that are expected to fail.
func (t *T) Todo() *T {
	todo := *t
	todo.note = " # TODO"
	return &todo
}

// Diagnostic writes a remark.
func (t *T) Diagnostic(message string) { t.line("# %s", message) }

// Diagnosticf writes a remark.
func (t *T) Diagnosticf(format string, args ...interface{}) {
	t.Diagnostic(fmt.Sprintf(format, args...))
}

// YAML tells more about the last test; JSON is YAML.
func (t *T) YAML(value interface{}) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	t.line("  ---\n  %s\n  ...", text)
	return nil
}
