// Command report writes the figures of a run into docs/reliability.md, between its markers.
//
//	go run ./e2e/figures/report -figures bin/figures -page docs/reliability.md
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/e2e/figures"
)

const (
	begin = "<!-- figures: written by make reliability -->\n"
	end   = "<!-- end of the figures -->\n"
)

func main() {
	folder := flag.String("figures", "bin/figures", "the folder in which the tests have noted what they did")
	page := flag.String("page", "docs/reliability.md", "the page that has the markers")
	of := flag.String("of", "make reliability", "what was run")
	flag.Parse()
	if err := run(*folder, *page, *of); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

func run(folder, page, of string) error {
	list, err := figures.Read(folder)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return fmt.Errorf("there are no figures in %s: run the tests with %s", folder, figures.Folder)
	}
	makefile, err := os.ReadFile("Makefile")
	if err != nil {
		return err
	}
	if err := known(list, string(makefile)); err != nil {
		return err
	}
	old, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	text, err := replace(string(old), where(of)+table(list))
	if err != nil {
		return fmt.Errorf("%s: %w", page, err)
	}
	return os.WriteFile(page, []byte(text), 0o644)
}

// known returns an error if somebody could not repeat what a figure is of.
func known(list []figures.Figure, makefile string) error {
	for _, f := range list {
		if !strings.Contains("\n"+makefile, "\n"+f.Tier+":") {
			return fmt.Errorf("figure %q is of make %s, of which there is no such target", f.What, f.Tier)
		}
	}
	return nil
}

// replace puts text between the markers.
func replace(page, text string) (string, error) {
	before, rest, ok := strings.Cut(page, begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return "", errors.New("it has no markers")
	}
	return before + begin + "\n" + text + "\n" + end + after, nil
}

// where tells what was run, of what, and on what.
func where(of string) string {
	version := "of unknown version"
	if out, err := exec.Command("git", "describe", "--tags", "--always").Output(); err == nil {
		version = string(bytes.TrimSpace(out))
	}
	kernel := "unknown"
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		kernel = unix.ByteSliceToString(u.Release[:])
	}
	return fmt.Sprintf("`%s` of Braid %s, %s: Linux %s, %d CPUs, %s.\n\n",
		of, version, time.Now().UTC().Format("2 January 2006"), kernel, runtime.NumCPU(), runtime.Version())
}
