package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"
)

// listen opens a listener for the configuration key that names its address.
func listen(ctx context.Context, key string, address Address) (*net.TCPListener, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", string(address))
	if err == nil {
		return ln.(*net.TCPListener), nil // which "tcp" gives
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s: %s is in use by another process; stop it, or configure another address", key, address)
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("%s: no permission to listen on %s; ports below 1024 need a privilege (CAP_NET_BIND_SERVICE)", key, address)
	}
	return nil, fmt.Errorf("%s: cannot listen on %s: %w", key, address, err)
}

// newServer makes an HTTP server within limits. There is none on the time of a
// response: a large blob to a slow client takes as long as it takes, at the least
// rate that clients are held to.
func newServer(h http.Handler, tlsConfig *tls.Config, limits *LimitsConfig, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		TLSConfig:         tlsConfig,
		ReadHeaderTimeout: time.Duration(limits.HeaderTimeout),
		IdleTimeout:       time.Duration(limits.IdleTimeout),
		MaxHeaderBytes:    int(limits.MaxHeaderSize),
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: limits.MaxStreams},
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
}

// serveOn runs a server until it is shut down, which is no error.
func serveOn(s *http.Server, ln net.Listener) error {
	var err error
	if s.TLSConfig != nil {
		err = s.ServeTLS(ln, "", "") // the certificate comes from TLSConfig
	} else {
		err = s.Serve(ln)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serving on %s: %w", ln.Addr(), err)
}
