package manpage

import (
	"maps"
	"os"
	"path/filepath"
	"testing"
)

const readme = "# x\n\n## Name\n\n## Description\n```json\nnot an example\n```\n## Configuration\n\n" +
	"## Examples\n\nThe first:\n\n```json\n{\"a\":\n1}\n```\n\nMore text.\nThe second:\n```json\n{}\n```\n\n## Notes\n```json\nneither\n```\n"

func TestExamples(t *testing.T) {
	path := filepath.Join(t.TempDir(), "README.md")
	if err := os.WriteFile(path, []byte(readme), 0o600); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"The first:": "{\"a\":\n1}", "The second:": "{}"}
	if got := Examples(t, path); !maps.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
