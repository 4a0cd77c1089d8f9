package api

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// MaxUserBytes bounds a user's name, which every job carries in the state.
const MaxUserBytes = 128

// unknownUser stands for a caller who did not say who they are.
const unknownUser = "unknown"

// forwardedKey is the metadata that names, hop by hop, the servers that
// forwarded a call.
const forwardedKey = "gangline-forwarded"

// forwardedBy lists the servers that a call has passed through.
func forwardedBy(ctx context.Context) []string {
	md, _ := metadata.FromIncomingContext(ctx)
	return md.Get(forwardedKey)
}

// callerCert is the verified certificate of the connection's other end, or nil.
func callerCert(ctx context.Context) *x509.Certificate {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	tls, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(tls.State.VerifiedChains) == 0 || len(tls.State.VerifiedChains[0]) == 0 {
		return nil
	}
	return tls.State.VerifiedChains[0][0]
}

// checkAgentCert keeps users from passing for agents: over TLS an agent's
// certificate must be good for serving, since the agent serves its workers'
// output with it. Users' certificates are to be for clients only; one without
// any stated use is good for all.
func checkAgentCert(ctx context.Context) error {
	cert := callerCert(ctx)
	if cert == nil || len(cert.ExtKeyUsage)+len(cert.UnknownExtKeyUsage) == 0 ||
		slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageServerAuth) || slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageAny) {
		return nil
	}
	return status.Errorf(codes.PermissionDenied,
		"the certificate of %q is a client's, not an agent's: give each agent one that is for servers too (extended key usage serverAuth)",
		cert.Subject.CommonName)
}

// caller says who makes a call: the common name of the connection's verified
// certificate where there is one, else what the request says. Another server
// that forwards a call is believed on whom it speaks for; it is known by its
// server id as its certificate's common name or DNS name.
func (s *Service) caller(ctx context.Context, claimed string) (string, error) {
	user := claimed
	if cert := callerCert(ctx); cert != nil && (len(forwardedBy(ctx)) == 0 || !s.isServer(cert)) {
		user = cert.Subject.CommonName
	}
	if user == "" {
		return unknownUser, nil
	}
	return user, checkText("user", user, MaxUserBytes)
}

func (s *Service) isServer(cert *x509.Certificate) bool {
	for _, srv := range s.cfg.Servers {
		if cert.Subject.CommonName == srv.ID {
			return true
		}
		for _, name := range cert.DNSNames {
			if name == srv.ID {
				return true
			}
		}
	}
	return false
}

// checkText refuses text that is too long for the state or breaks tables.
func checkText(field, text string, limit int) error {
	if len(text) > limit {
		return status.Error(codes.InvalidArgument, fmt.Sprintf("%s: %d bytes, at most %d", field, len(text), limit))
	}
	if strings.ContainsFunc(text, unicode.IsControl) {
		return status.Error(codes.InvalidArgument, fmt.Sprintf("%s: %q holds a control character", field, text))
	}
	return nil
}
