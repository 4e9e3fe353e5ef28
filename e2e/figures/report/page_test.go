package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	link     = regexp.MustCompile(`\[([^\]]+)\]\(([^)#]+)\)`)
	makeCall = regexp.MustCompile("`make ([a-z-]+)")
	testName = regexp.MustCompile(`\bTest[A-Z]\w*`)
)

// TestPage: what the page says that tests something exists, where it says.
func TestPage(t *testing.T) {
	const root = "../../.."
	page, err := os.ReadFile(filepath.Join(root, "docs/reliability.md"))
	if err != nil {
		t.Fatal(err)
	}
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range makeCall.FindAllStringSubmatch(string(page), -1) {
		if !strings.Contains(string(makefile), "\n"+m[1]+":") {
			t.Errorf("there is no make %s", m[1])
		}
	}
	for _, m := range link.FindAllStringSubmatch(string(page), -1) {
		text, err := os.ReadFile(filepath.Join(root, "docs", m[2]))
		if err != nil {
			t.Error(err)
			continue
		}
		for _, name := range testName.FindAllString(m[1], -1) {
			if !strings.Contains(string(text), "\nfunc "+name+"(") {
				t.Errorf("%s has no %s", m[2], name)
			}
		}
	}
	if !strings.Contains(string(page), begin) || !strings.Contains(string(page), end) {
		t.Error("the page has no markers")
	}
}
