package nodeagent

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// newTransport reads the PEM files, once.
func newTransport(files TLS) (transport, error) {
	if !files.Enabled() {
		return transport{dial: grpc.WithTransportCredentials(insecure.NewCredentials())}, nil
	}
	dial := &tls.Config{MinVersion: tls.VersionTLS13}
	serve := &tls.Config{MinVersion: tls.VersionTLS13}
	if files.CAFile != "" {
		pem, err := os.ReadFile(files.CAFile)
		if err != nil {
			return transport{}, fmt.Errorf("read the certificate authority: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return transport{}, fmt.Errorf("read the certificate authority %s: it holds no PEM certificate", files.CAFile)
		}
		dial.RootCAs, serve.ClientCAs, serve.ClientAuth = pool, pool, tls.RequireAndVerifyClientCert
	}
	var t transport
	if files.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(files.CertFile, files.KeyFile)
		if err != nil {
			return transport{}, fmt.Errorf("read the agent's certificate %s and key %s: %w", files.CertFile, files.KeyFile, err)
		}
		dial.Certificates, serve.Certificates = []tls.Certificate{pair}, []tls.Certificate{pair}
		t.serve = []grpc.ServerOption{grpc.Creds(credentials.NewTLS(serve))}
	}
	t.dial = grpc.WithTransportCredentials(credentials.NewTLS(dial)) // last: it copies dial
	return t, nil
}
