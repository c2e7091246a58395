package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
)

// peerNetwork is a network between members of the metastore's group: every connection is TLS, and both ends show a
// certificate of one authority. Certificates are read again for each connection, so they may be replaced at any time.
type peerNetwork struct {
	Network
	files TLSFiles
}

// TLSFiles are paths of PEM files.
type TLSFiles struct {
	// Cert and Key are this member's own, CA are the authorities whose members are let in. All or none.
	Cert, Key, CA string
}

// errTLSFiles is returned when some of the files are given and others are not.
var errTLSFiles = errors.New("certificate, key and authority are needed together")

func (f TLSFiles) check() error {
	if f == (TLSFiles{}) {
		return nil
	}
	if f.Cert == "" || f.Key == "" || f.CA == "" {
		return errTLSFiles
	}
	_, err := f.config()
	return err
}

// config reads the files.
func (f TLSFiles) config() (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, err
	}
	authorities := x509.NewCertPool()
	if !authorities.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: no certificate in it", f.CA)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13,
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: authorities, RootCAs: authorities,
	}, nil
}

// Listen lets in who shows a certificate.
func (n peerNetwork) Listen(addr string) (net.Listener, error) {
	l, err := n.Network.Listen(addr)
	if err != nil {
		return nil, err
	}
	return tls.NewListener(l, &tls.Config{
		MinVersion:         tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return n.files.config() },
	}), nil
}

// DialContext connects to a member and makes sure that it is the host that was dialled.
func (n peerNetwork) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	config, err := n.files.config()
	if err != nil {
		return nil, err
	}
	if config.ServerName, _, err = net.SplitHostPort(addr); err != nil {
		return nil, err
	}
	raw, err := n.Network.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	c := tls.Client(raw, config)
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	return c, nil
}
