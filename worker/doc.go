// Package worker has a process that stays do the calls of a plugin binary. A plugin lives for some milliseconds, most of which it
// spends on becoming a process: it reads code that is in nobody's cache, touches each page for the first time, and makes its tables
// anew. A worker has all that behind it. It is the same binary, run by the daemon, and does what the plugin process would do, in
// the same place. The plugin process is a small one, braid-shim: it hands over the environment and the configuration, and prints what
// it gets back. Package client does that, but for the usual call, which braid-shim does by itself before it has a runtime.
//
// Nothing depends on a worker. A plugin process that finds none, or one that is of another build or sees another file system,
// another network or another pod's namespace at the path it is given, becomes the plugin and does the call itself; and so it does when
// the worker is killed in the middle, since it then finds in the journal what the worker has begun. A worker executes nothing: the
// plugins of others it has the plugin process run ([Caller].Execute), which is where the runtime has placed it, with the environment
// that they expect.
package worker
