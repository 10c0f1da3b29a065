package ledger

import (
	"log/slog"
	"net/http"
)

// NewHandler serves a log read-only, as C2SP's tlog-tiles says, at paths below
// a prefix such as "/ledger/".
func NewHandler(r Reader, prefix string, logger *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "the ledger's handler is not built yet", http.StatusNotImplemented)
	})
}
