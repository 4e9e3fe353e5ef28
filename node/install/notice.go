package install

// Reasons of notices.
const (
	ConfMissing    = "ConfigurationMissing"   // our configuration was removed, or renamed
	ConfAltered    = "ConfigurationAltered"   // somebody else has written to it
	ConfShadowed   = "ConfigurationShadowed"  // another one sorts before it, which the runtime would use
	PrimaryChanged = "ClusterNetworkChanged"  // another configuration is the default network now
	PrimaryMissing = "ClusterNetworkMissing"  // the default network's configuration is gone; pods wait for it
	PrimaryInvalid = "ClusterNetworkInvalid"  // it cannot be used as it is; pods wait
	BinaryMissing  = "PluginMissing"          // a binary of ours was removed
	Failed         = "ConfigurationNotMended" // what is wrong could not be mended
)

// A Notice says what has become of the installation.
type Notice struct {
	Reason  string
	Path    string
	Message string
	Mended  bool // else it is for somebody to look at
}

// mended reports what was put right.
func (g *Guard) mended(n Notice) {
	n.Mended, g.changed = true, true
	g.log.Warn("mended", "reason", n.Reason, "path", n.Path, "message", n.Message)
	g.tell(n)
}

// problem reports what cannot be put right here, once.
func (g *Guard) problem(n Notice) {
	if g.known[n.Reason] {
		return
	}
	g.known[n.Reason] = true
	g.log.Error("not mended", "reason", n.Reason, "path", n.Path, "message", n.Message)
	g.tell(n)
}

func (g *Guard) solved(reason string) {
	if g.known[reason] {
		g.log.Info("solved", "reason", reason)
		delete(g.known, reason)
	}
}

func (g *Guard) tell(n Notice) {
	if g.report != nil {
		g.report(n)
	}
}
