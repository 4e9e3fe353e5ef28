package api

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
)

// ErrNotPlain tells that a kubeconfig has more in it than [Login] knows. client-go knows all.
var ErrNotPlain = errors.New("not a plain kubeconfig")

// Login reads a kubeconfig that names a server with its authority, and a token or a client certificate, each in a file or
// in the kubeconfig itself. A file with a token is read anew for each request. With anything else in the kubeconfig, be it
// wrong, and with files that are no regular ones, the error is ErrNotPlain. No request is sent.
func Login(kubeconfig string) (*Server, error) {
	content, err := readRegular(kubeconfig)
	if err != nil {
		return nil, notPlain(err)
	}
	cluster, user, err := current(content)
	if err != nil {
		return nil, notPlain(err)
	}
	files := folder(filepath.Dir(kubeconfig))
	address, err := url.Parse(cluster.Server)
	if err != nil || address.Scheme != "https" || address.Host == "" || address.RawQuery != "" {
		return nil, notPlain(fmt.Errorf("server %q", cluster.Server))
	}
	trust := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: cluster.ServerName, NextProtos: []string{"h2", "http/1.1"}}
	var authority []byte
	if cluster.CAFile != "" || cluster.CA != "" {
		if authority, err = files.read(cluster.CAFile, cluster.CA); err != nil {
			return nil, notPlain(err)
		}
		trust.RootCAs = x509.NewCertPool()
		if !trust.RootCAs.AppendCertsFromPEM(authority) {
			return nil, notPlain(errors.New("no certificate of the authority"))
		}
	}
	if user.CertFile != "" || user.Cert != "" {
		cert, certErr := files.read(user.CertFile, user.Cert)
		key, keyErr := files.read(user.KeyFile, user.Key)
		pair, err := tls.X509KeyPair(cert, key)
		if err := errors.Join(certErr, keyErr, err); err != nil {
			return nil, notPlain(err)
		}
		trust.Certificates = []tls.Certificate{pair}
	}
	if user.TokenFile != "" {
		if err := regular(files.path(user.TokenFile)); err != nil && !errors.Is(err, fs.ErrNotExist) { // it may come yet
			return nil, notPlain(err)
		}
	}
	dials := &dialer{trust: trust}
	dials.connections.Timeout = DialTime
	var through http.RoundTripper = &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            dials.connections.DialContext, // to a proxy
		DialTLSContext:         dials.dialTLS,
		TLSClientConfig:        trust.Clone(), // by way of a proxy; net/http changes it
		TLSHandshakeTimeout:    tryTime,
		ForceAttemptHTTP2:      true,
		MaxResponseHeaderBytes: maxHeader,
		MaxConnsPerHost:        1, // for HTTP/2; several that are asked for at once would each be one more handshake
	}
	switch {
	case user.TokenFile != "":
		through = WithTokenFile(files.path(user.TokenFile))(through)
	case user.Token != "":
		through = withToken(user.Token, through)
	}
	return &Server{
		URL: address, HTTP: &http.Client{Transport: through}, Credentials: "kubeconfig " + kubeconfig, Rereads: user.TokenFile != "",
		dialer: dials, authority: authority,
	}, nil
}

func notPlain(err error) error { return fmt.Errorf("%w: %v", ErrNotPlain, err) }

// A folder is where relative paths begin.
type folder string

func (f folder) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(string(f), name)
}

// read returns what is in a file, or what is given in its stead.
func (f folder) read(name, encoded string) ([]byte, error) {
	if name == "" {
		return base64.StdEncoding.DecodeString(encoded)
	}
	return readRegular(f.path(name))
}

// readRegular reads a file that is one: nobody has to wait for who writes to a pipe.
func readRegular(path string) ([]byte, error) {
	if err := regular(path); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

func regular(path string) error {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", path)
	}
	return err
}
