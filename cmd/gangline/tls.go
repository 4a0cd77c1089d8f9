package main

import (
	"crypto/tls"
	"crypto/x509"
	"os"

	"github.com/spf13/pflag"
)

// tlsFlags name the files of one identity. With --tls-ca both sides of every
// connection must show a certificate of that CA.
type tlsFlags struct {
	ca, cert, key string
}

func (t *tlsFlags) register(f *pflag.FlagSet) {
	f.StringVar(&t.ca, "tls-ca", "", "PEM file with the cluster's CA; turns TLS on")
	f.StringVar(&t.cert, "tls-cert", "", "PEM file with this program's certificate")
	f.StringVar(&t.key, "tls-key", "", "PEM file with the certificate's key")
}

// load returns the configurations for serving and for dialling, nil and nil without TLS.
func (t *tlsFlags) load() (server, client *tls.Config, err error) {
	if t.ca == "" && t.cert == "" && t.key == "" {
		return nil, nil, nil
	}
	if t.ca == "" || (t.cert == "") != (t.key == "") {
		return nil, nil, usage("--tls-ca is needed with the other --tls flags, and --tls-cert and --tls-key go together")
	}
	pem, err := os.ReadFile(t.ca)
	if err != nil {
		return nil, nil, usage("--tls-ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, nil, usage("--tls-ca: %s holds no PEM certificate", t.ca)
	}
	client = &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool}
	server = &tls.Config{MinVersion: tls.VersionTLS13, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
	if t.cert != "" {
		pair, err := tls.LoadX509KeyPair(t.cert, t.key)
		if err != nil {
			return nil, nil, usage("--tls-cert and --tls-key: %w", err)
		}
		client.Certificates, server.Certificates = []tls.Certificate{pair}, []tls.Certificate{pair}
	}
	return server, client, nil
}

// loadServer is load for a program that serves: it needs a certificate.
func (t *tlsFlags) loadServer() (server, client *tls.Config, err error) {
	if t.ca != "" && t.cert == "" {
		return nil, nil, usage("--tls-ca alone is for clients: a server and an agent need --tls-cert and --tls-key too")
	}
	return t.load()
}
