package web

import (
	"bytes"
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/gangline/gangline/scheduler/cluster"
)

// Config is what the pages show.
type Config struct {
	Registry *prometheus.Registry
	State    func() *cluster.State       // the newest applied state
	Leader   func() (id, address string) // "" while none is known
	ServerID string                      // this server's
	Version  string                      // this server's release
	Now      func() cluster.Time         // for ages
	// Usage is what users' checkpoints take, empty while this server does not lead; nil: nobody knows.
	Usage  func() []Usage
	Logger *slog.Logger
}

// Handler serves /metrics, /healthz and the status page at /. Safe for
// concurrent use.
func Handler(cfg Config) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(cfg.Registry, promhttp.HandlerOpts{Registry: cfg.Registry, EnableOpenMetrics: true}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if id, _ := cfg.Leader(); id == "" {
			http.Error(w, "no leader is known", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n")) // a client that left needs no answer
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		var page bytes.Buffer // whole or not at all
		if err := statusPage.Execute(&page, makeView(cfg)); err != nil {
			cfg.Logger.Error("the status page cannot be made: this is a bug in Gangline", "err", err)
			http.Error(w, "the page cannot be made: the server's log says why", http.StatusInternalServerError)
			return
		}
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		_, _ = w.Write(page.Bytes()) // a client that left needs no answer
	})
	return mux
}
