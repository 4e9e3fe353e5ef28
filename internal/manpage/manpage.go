// Package manpage reads the README of a plugin, which is laid out like a manual page, so that a test can run its
// examples: documentation that is run cannot rot.
package manpage

import (
	"os"
	"strings"
	"testing"
)

// Sections that every README has, in this order. Others may stand between them.
var sections = []string{"Name", "Description", "Configuration", "Examples"}

// Examples returns the JSON code blocks of the section "Examples", by the text right before each: its last line
// that is not empty. The test fails if a section is missing or there is no example.
func Examples(t testing.TB, path string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rest := string(text)
	for _, name := range sections {
		_, after, found := strings.Cut(rest, "\n## "+name+"\n")
		if !found {
			t.Fatalf("%s has no section %q where it is expected (the order is %s)", path, name, strings.Join(sections, ", "))
		}
		rest = after
	}
	body, _, _ := strings.Cut(rest, "\n## ")
	examples := map[string]string{}
	for {
		before, after, found := strings.Cut(body, "\n```json\n")
		if !found {
			break
		}
		lines := strings.Split(strings.TrimSpace(before), "\n")
		code, next, closed := strings.Cut(after, "\n```")
		if !closed {
			t.Fatalf("%s has a code block that does not end", path)
		}
		examples[lines[len(lines)-1]] = code
		body = next
	}
	if len(examples) == 0 {
		t.Fatalf("%s has no example", path)
	}
	return examples
}
