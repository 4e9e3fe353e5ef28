package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/braid-cni/braid/cmd/internal/own"
	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/delegate"
	"github.com/braid-cni/braid/journal"
)

// sweepCommand walks the journal once. The daemon runs it, where the file system of the host is to be seen.
func sweepCommand() *cobra.Command {
	var config, confDir, cniDir, known string
	var asJSON bool
	var o delegate.SweepOptions
	cmd := &cobra.Command{
		Use:   "sweep [--dry-run] [--config FILE | --conf-dir DIR] [--grace 1m]",
		Short: "undo what is left of containers that are gone",
		Long: "Looks at every attachment in the plugin's journal, and undoes those whose container is gone without a DEL:\n" +
			"after a reboot, or where a runtime lost its state and calls no GC. Addresses, leases, rules and interfaces are given\n" +
			"back as DEL does it. What may belong to a container that lives is left alone, and so is what Braid has no record of.\n" +
			"The daemon does this every minute; run it by hand on a node that has none. Nothing but the node is needed.\n\n" +
			"A container must be gone for the grace time, which is waited for if there is something to be undone, unless\n" +
			"--known tells it. The exit status is not 0 if something could not be undone.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			req, err := sweepRequest(config, confDir, cniDir)
			if err != nil {
				return err
			}
			if o.Known, err = readKnown(cmd.InOrStdin(), known); err != nil {
				return err
			}
			d := &delegate.Delegator{Own: own.Plugins, Stderr: cmd.ErrOrStderr(), BootID: journal.BootID()}
			write := printFinding
			if asJSON {
				write = encodeFinding
			}
			return sweepTwice(cmd.Context(), d, req, o, known != "", func(f *delegate.Finding) error {
				return write(cmd.OutOrStdout(), f)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&config, "config", "", "the plugin's configuration, or a list that has it")
	flags.StringVar(&confDir, "conf-dir", "/etc/cni/net.d",
		"where the first configuration with the plugin is taken from, without --config")
	flags.StringVar(&cniDir, "cni-dir", "", "the plugin's cniDir, to be swept if there is no configuration of the plugin")
	flags.BoolVar(&o.DryRun, "dry-run", false, "change nothing, print what would be done")
	flags.DurationVar(&o.Grace, "grace", time.Minute,
		"how long a container must have been gone; what another boot left is not waited for")
	flags.BoolVar(&o.Unreadable, "unreadable", false,
		"undo what is known of records that are too damaged to be judged, or of a newer version: only if their containers are known to be gone")
	flags.BoolVar(&o.Repair, "repair", false, "do what braidd repair does too")
	flags.BoolVar(&asJSON, "json", false, "print a JSON document a line")
	flags.StringVar(&known, "known", "",
		"a file, - for standard input, with a JSON list of what is known of records, as the daemon writes it")
	cmd.MarkFlagsMutuallyExclusive("config", "conf-dir")
	return cmd
}

// sweepTwice sweeps, and once more after the grace time if that is all that something waits for: a process that remembers
// nothing has to see itself that what is gone stays gone.
func sweepTwice(
	ctx context.Context, d *delegate.Delegator, req *cni.Request, o delegate.SweepOptions, once bool,
	write func(*delegate.Finding) error,
) error {
	var waiting []delegate.Known
	var failed, unrepaired int
	var writing error
	o.Found = func(f delegate.Finding) {
		switch f.Action {
		case delegate.Failed:
			failed++
		case delegate.Unrepaired:
			unrepaired++
		case delegate.Waits:
			waiting = append(waiting, delegate.Known{RecordKey: f.RecordKey, StaleSeconds: o.Grace.Seconds()})
		}
		writing = errors.Join(writing, write(&f))
	}
	err := d.Sweep(ctx, req, o)
	if len(waiting) > 0 && !once && !o.DryRun && err == nil && writing == nil {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(o.Grace):
		}
		o.Known = waiting
		found := o.Found
		o.Found = func(f delegate.Finding) {
			if slices.ContainsFunc(o.Known, func(k delegate.Known) bool { return k.Is(f.RecordKey) }) {
				found(f)
			}
		}
		err = d.Sweep(ctx, req, o)
	}
	if failed > 0 {
		err = errors.Join(err, fmt.Errorf("records that could not be undone, and are kept for the next sweep: %d", failed))
	}
	if unrepaired > 0 {
		err = errors.Join(err, fmt.Errorf("pods that lack something which could not be made again: %d", unrepaired))
	}
	return errors.Join(err, writing)
}

// sweepRequest is what the plugin is asked with, for a walk over the journal.
func sweepRequest(config, confDir, cniDir string) (*cni.Request, error) {
	entry, err := sweepEntry(config, confDir)
	if err != nil && config == "" && cniDir != "" {
		entry, err = json.Marshal(map[string]string{"cniVersion": "1.1.0", "name": "braid", "type": "braid", "cniDir": cniDir})
	}
	return &cni.Request{Config: entry, Path: filepath.SplitList(os.Getenv("CNI_PATH"))}, err
}

func readKnown(stdin io.Reader, path string) (list []delegate.Known, err error) {
	if path == "" {
		return nil, nil
	}
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		stdin = f
	}
	d := json.NewDecoder(stdin)
	d.DisallowUnknownFields()
	if err := d.Decode(&list); err != nil {
		const example = `[{"containerID": "c1", "ifName": "eth0", "created": "...", "staleSeconds": 60}]`
		return nil, fmt.Errorf("read --known %s: %w; want a list like %s", path, err, example)
	}
	return list, nil
}

func encodeFinding(w io.Writer, f *delegate.Finding) error { return json.NewEncoder(w).Encode(f) }

func printFinding(w io.Writer, f *delegate.Finding) error {
	_, err := fmt.Fprintf(w, "%-10s %-6s %s", f.Verdict, f.Action, f.Name())
	for _, more := range []struct{ format, value string }{
		{" pod %s", strings.Trim(f.Pod, "/")}, {" (%s)", strings.Join(f.Attachments, " ")}, {": %s", f.Reason}, {": %s", f.Error},
	} {
		if more.value != "" && err == nil {
			_, err = fmt.Fprintf(w, more.format, more.value)
		}
	}
	if err == nil {
		_, err = fmt.Fprintln(w)
	}
	return err
}
