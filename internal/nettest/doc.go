// Package nettest gives tests real network namespaces: pods, physical NICs, kernel probes and a leak check.
//
// A package whose tests make links on the "host" side calls [Main] from its TestMain. The test binary then runs in a
// network namespace and a mount namespace of its own, the node. All its threads and all processes that it starts are
// inside, so nothing can touch the machine's real interfaces and rules, tests of several packages run at the same
// time, and whatever a killed test leaves vanishes with the process:
//
//	func TestMain(m *testing.M) { os.Exit(nettest.Main(m)) }
//
// Within the node [NewNS] makes the network namespaces of pods.
//
// Tests need root. Without it they are skipped, but with CI=true or BRAID_TEST_FULL=1 they fail. A device type that
// the running kernel lacks skips the test with the reason ([NeedKernel]); with BRAID_TEST_FULL_KERNEL=1 it fails it.
package nettest
