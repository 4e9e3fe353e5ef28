package cnitest

// The promises, in the order of the specification. Quotes are from SPEC.md 1.1.0 of github.com/containernetworking/cni,
// except where they are from the documentation of cni.Plugin.
var cases = []testCase{
	{
		name: "ADD makes the interface and says so",
		promise: "create the interface defined by CNI_IFNAME inside the container at CNI_NETNS ... interfaces: An array of all interfaces created by the attachment ... " +
			"For interfaces created inside the container, this should be the value passed via CNI_NETNS.",
		not: exemption{ipam},
		run: addMakesInterface,
	},
	{
		name:    "ADD assigns the addresses and routes of the result",
		promise: "interface (uint): the index into the interfaces list for a CNI Plugin Result indicating which interface this IP configuration should be applied to.",
		not:     exemption{ipam, layer2},
		run:     addAssignsAddresses,
	},
	{
		name:    "ADD of an IPAM plugin returns addresses only",
		promise: "Delegated IPAM plugins must return an abbreviated Success object. Specifically, it is missing the interfaces array, as well as the interface entry in ips.",
		not:     exemption{notIPAM},
		run:     addAbbreviates,
	},
	{
		name:    "ADD passes prevResult on",
		promise: "If the plugin was supplied a prevResult as part of its input configuration, it MUST handle prevResult by either passing it through, or modifying it appropriately.",
		not:     exemption{ipam},
		run:     addPassesPrevResult,
	},
	{
		name:    "ADD refuses an interface name that is taken",
		promise: "If an interface of the requested name already exists in the container, the CNI plugin MUST return with an error.",
		not:     exemption{ipam},
		run:     addRefusesTakenName,
	},
	{
		name:    "ADD fails without the namespace",
		promise: "When it fails it leaves nothing behind. (cni.Plugin)",
		not:     exemption{ipam},
		run:     addWithoutNamespace,
	},
	{
		name:    "ADD that fails leaves nothing",
		promise: "When it fails it leaves nothing behind. (cni.Plugin)",
		run:     addFails,
	},
	{
		name:    "ADD that is cancelled leaves nothing",
		promise: "When it fails it leaves nothing behind. (cni.Plugin)",
		run:     addCancelled,
	},
	{
		name:    "ADD again after DEL",
		promise: "A runtime should not call ADD twice (without an intervening DEL) for the same (CNI_CONTAINERID, CNI_IFNAME) tuple.",
		run:     addAgain,
	},
	{
		name:    "two attachments of one container",
		promise: "a given container ID may be added to a specific network more than once only if each addition is done with a different interface name.",
		run:     twoAttachments,
	},
	{
		name:    "containers in parallel",
		promise: "Plugins must handle being executed concurrently across different containers. If necessary, they must implement locking on shared resources (e.g. IPAM databases).",
		run:     inParallel,
	},
	{
		name:    "unknown keys are accepted",
		promise: "Plugins may define additional fields that they accept and may generate an error if called with unknown fields.",
		run:     unknownKeys,
	},
	{
		name:    "every version of the specification",
		promise: "cniVersion: The same version supplied on input",
		run:     everyVersion,
	},
	{
		name:    "DEL is repeated",
		promise: "Plugins MUST accept multiple DEL calls for the same (CNI_CONTAINERID, CNI_IFNAME) pair, and return success if the interface in question, or any modifications added, are missing.",
		run:     delRepeated,
	},
	{
		name:    "DEL without ADD",
		promise: "Plugins MUST accept multiple DEL calls for the same (CNI_CONTAINERID, CNI_IFNAME) pair, and return success if the interface in question, or any modifications added, are missing.",
		run:     delWithoutAdd,
	},
	{
		name:    "DEL without prevResult",
		promise: "Plugins should still return without error if prevResult is empty for a DEL command, however.",
		run:     delWithoutPrevResult,
	},
	{
		name:    "DEL when the interface is gone",
		promise: "plugins should always complete a DEL action without error to the fullest extent possible, even if some resources or state are missing.",
		not:     exemption{ipam},
		run:     delWithoutInterface,
	},
	{
		name: "DEL when the namespace is gone",
		promise: "clean up its own resources even if the container network namespace and/or container network interface no longer exist. ... " +
			"an IPAM plugin should generally release an IP allocation and return success even if the container network namespace no longer exists",
		run: delWithoutNamespace,
	},
	{
		name:    "DEL with an empty CNI_NETNS",
		promise: "Optional environment parameters: CNI_NETNS, CNI_ARGS, CNI_PATH",
		run:     delWithEmptyNetns,
	},
	{
		name:    "DEL when CNI_NETNS is a plain file",
		promise: "plugins should always complete a DEL action without error to the fullest extent possible, even if some resources or state are missing.",
		run:     delWithPlainFile,
	},
	{
		name:    "DEL of one leaves the other",
		promise: "delete the interface defined by CNI_IFNAME inside the container at CNI_NETNS",
		run:     delLeavesOthers,
	},
	{
		name:    "CHECK passes right after ADD",
		promise: "The plugin must handle CHECK being called immediately after an ADD, and therefore should allow a reasonable convergence delay for any asynchronous resources.",
		run:     checkPasses,
	},
	{
		name:    "CHECK without prevResult",
		promise: "The plugin must consult the prevResult to determine the expected interfaces and addresses.",
		run:     checkWithoutPrevResult,
	},
	{
		name:    "CHECK allows what a later plugin changed",
		promise: "The plugin must allow for a later chained plugin to have modified networking resources, e.g. routes, on ADD.",
		not:     exemption{ipam},
		run:     checkAllowsChanges,
	},
	{
		name:    "CHECK after DEL",
		promise: "A runtime must not call CHECK for a container that has not been ADDed, or has been DELeted after its last ADD.",
		run:     checkAfterDel,
	},
	{
		name:    "CHECK notices a deleted interface",
		promise: "The plugin should return an error if a resource included in the CNI Result type (interface, address or route) was created by the plugin, and is listed in prevResult, but is missing or in an invalid state.",
		not:     exemption{ipam},
		run:     checkInterfaceDeleted,
	},
	{
		name:    "CHECK notices an interface that is down",
		promise: "The plugin should return an error if it is aware of a condition where the container is generally unreachable.",
		not:     exemption{ipam},
		run:     checkInterfaceDown,
	},
	{
		name:    "CHECK notices a missing address",
		promise: "The plugin should return an error if a resource included in the CNI Result type (interface, address or route) was created by the plugin, and is listed in prevResult, but is missing or in an invalid state.",
		not:     exemption{ipam, layer2},
		run:     checkAddressMissing,
	},
	{
		name:    "CHECK notices a missing route",
		promise: "The plugin should return an error if a resource included in the CNI Result type (interface, address or route) was created by the plugin, and is listed in prevResult, but is missing or in an invalid state.",
		not:     exemption{ipam, layer2},
		run:     checkRouteMissing,
	},
	{
		name:    "STATUS passes",
		promise: "A plugin must exit with a zero (success) return code if the plugin is ready to service ADD requests.",
		run:     statusPasses,
	},
	{
		name:    "GC removes the stale and keeps the valid",
		promise: "The network plugin may then remove any resources related to attachments that do not exist in this set. ... A plugin SHOULD remove as many stale resources as possible.",
		run:     gcKeepsValid,
	},
	{
		name:    "GC tells the interfaces of a container apart",
		promise: "ifname (string): the value of CNI_IFNAME as provided during the CNI ADD operation",
		run:     gcTellsInterfacesApart,
	},
	{
		name:    "GC with nothing valid",
		promise: "The plugin MAY assume that the isolation domain (e.g. network namespace) has been deleted, and thus any resources (e.g. network interfaces) therein have been removed.",
		run:     gcEverything,
	},
}
