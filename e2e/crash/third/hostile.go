package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// misbehaviours do what no plugin should. They get the folder and the result to be passed on.
var misbehaviours = map[string]func(marks string, prev []byte){
	"prints garbage":        func(string, []byte) { fmt.Print("Segmentation fault, probably") },
	"prints nothing":        func(string, []byte) {},
	"prints two documents":  func(_ string, prev []byte) { fmt.Printf("%s%s", prev, prev) },
	"prints half a result":  func(_ string, prev []byte) { fmt.Printf("%s", prev[:len(prev)/2]) },
	"prints an old version": func(string, []byte) { fmt.Print(`{"cniVersion": "9.9.9", "ips": []}`) },
	"prints 1 GiB": func(string, []byte) {
		for mebibyte := bytes.Repeat([]byte("1234567 "), 1<<17); ; {
			for range 1 << 10 {
				if _, err := os.Stdout.Write(mebibyte); err != nil {
					os.Exit(1)
				}
			}
		}
	},
	"closes its output": func(string, []byte) { _ = os.Stdout.Close() },
	"exits":             func(string, []byte) { os.Exit(3) },
	"is killed":         func(string, []byte) { _ = syscall.Kill(os.Getpid(), syscall.SIGKILL) },
	"hangs":             func(string, []byte) { time.Sleep(time.Hour) },
	"forks and hangs": func(marks string, _ []byte) {
		fork(marks)
		time.Sleep(time.Hour)
	},
	"closes its output and hangs": func(string, []byte) {
		_, _ = os.Stdout.Close(), os.Stderr.Close()
		time.Sleep(time.Hour)
	},
}

// fork leaves a process that holds the output.
func fork(marks string) {
	child := exec.Command("sleep", "3600")
	child.Stdout, child.Stderr = os.Stdout, os.Stderr
	if err := child.Start(); err == nil {
		_ = os.WriteFile(marks+".pid", fmt.Append(nil, child.Process.Pid), 0o600)
	}
}

// misbehaviour returns what the file asks for, "VERB misbehaviour", if it is for this verb.
func misbehaviour(marks, command string) func(string, []byte) {
	b, err := os.ReadFile(marks + ".mode")
	if err != nil {
		return nil
	}
	verb, mode, _ := strings.Cut(string(b), " ")
	if verb != command {
		return nil
	}
	return misbehaviours[mode]
}
