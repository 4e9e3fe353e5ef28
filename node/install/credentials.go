package install

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

// What the folder of a service account has, and what is copied of it.
const (
	tokenFile = "token"
	caFile    = "ca.crt"
)

// credentialsInterval is how often the source is looked at. Kubelets write a new token when a fifth of the old one's time is
// left: a copy that is some seconds late is early.
const credentialsInterval = 5 * time.Second

// putKubeconfig writes the kubeconfig and what belongs to it. Clients read the token file anew for every use.
func (s *state) putKubeconfig() error {
	if s.Options.Kubeconfig != "" {
		return nil
	}
	dir := s.Options.kubeconfigDir()
	if err := s.mkdir(dir, 0o700); err != nil {
		return err
	}
	for _, name := range []string{caFile, tokenFile} {
		s.file(filepath.Join(dir, name)).Ours = []string{anyContent}
	}
	if err := s.save(); err != nil {
		return err
	}
	if _, err := s.copyCredentials(); err != nil {
		return err
	}
	content, err := kubeconfigFor(s.Options.APIServer)
	if err != nil {
		return err
	}
	return s.putBytes(s.Options.kubeconfig(), 0o600, content)
}

// kubeconfigFor returns a kubeconfig whose files lie beside it. It is JSON, which every reader of YAML takes, and which an ADD that
// asks the API server itself reads sooner.
func kubeconfigFor(server string) ([]byte, error) {
	type object map[string]any
	content, err := json.MarshalIndent(object{
		"apiVersion": "v1", "kind": "Config", "current-context": "braid",
		"contexts": []object{{"name": "braid", "context": object{"cluster": "cluster", "user": "braid"}}},
		"clusters": []object{{"name": "cluster", "cluster": object{"server": server, "certificate-authority": caFile}}},
		"users":    []object{{"name": "braid", "user": object{"tokenFile": tokenFile}}}, // a copy of the service account's, kept fresh
	}, "", "  ")
	return append(content, '\n'), err
}

// anyContent is the identity of a file whose content is not noted.
const anyContent = "any"

// copyCredentials copies what differs, and tells whether something did.
func (s *state) copyCredentials() (changed bool, err error) {
	differ, err := s.staleCredentials()
	if err != nil {
		return false, err
	}
	for name, content := range differ {
		if err := placeBytes(filepath.Join(s.Options.kubeconfigDir(), name), 0o600, content); err != nil {
			return false, err
		}
	}
	return len(differ) > 0, nil
}

// staleCredentials returns the content of what has to be copied, by name.
func (s *state) staleCredentials() (differ map[string][]byte, err error) {
	differ = map[string][]byte{}
	for _, name := range []string{caFile, tokenFile} {
		source := filepath.Join(s.Options.Credentials, name)
		content, err := os.ReadFile(source)
		if err == nil && len(bytes.TrimSpace(content)) == 0 {
			err = fmt.Errorf("%s is empty", source)
		}
		if err != nil {
			return nil, fmt.Errorf("read the service account's credentials: %w", err)
		}
		old, err := os.ReadFile(filepath.Join(s.Options.kubeconfigDir(), name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if err != nil || !bytes.Equal(old, content) {
			differ[name] = content
		}
	}
	return differ, nil
}

// KeepCredentials copies the service account's token and certificate authority beside the kubeconfig whenever they differ,
// until ctx ends. The error is then nil. It returns at once, without an error, where the kubeconfig is not of the
// installer's making.
func KeepCredentials(ctx context.Context, cniDir string, log *slog.Logger) error {
	return keepCredentials(ctx, cniDir, log, credentialsInterval)
}

func keepCredentials(ctx context.Context, cniDir string, log *slog.Logger, interval time.Duration) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var last string // complaint
	for {
		again, err := freshenCredentials(ctx, cniDir, log)
		if !again {
			return nil
		}
		if err != nil && err.Error() != last {
			log.Error("copy credentials", "err", err)
		}
		if last = ""; err != nil {
			last = err.Error()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// freshenCredentials copies once. It takes the lock only if there is something to do; an uninstall may have begun by then.
func freshenCredentials(ctx context.Context, cniDir string, log *slog.Logger) (again bool, err error) {
	s, err := load(cniDir)
	if errors.Is(err, ErrNotInstalled) {
		return true, nil
	}
	if err != nil {
		return true, err
	}
	if s.Options.Kubeconfig != "" {
		return false, nil
	}
	if differ, err := s.staleCredentials(); err != nil || len(differ) == 0 || s.Removing {
		return true, err
	}
	unlock, err := lock(ctx, cniDir)
	if err != nil {
		return ctx.Err() == nil, err
	}
	defer unlock()
	if s, err = load(cniDir); err != nil || s.Removing {
		return true, nil
	}
	changed, err := s.copyCredentials()
	if changed {
		log.Info("credentials copied", "to", s.Options.kubeconfigDir())
	}
	return true, err
}
