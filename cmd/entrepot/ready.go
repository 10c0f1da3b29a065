package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// readyTimeout bounds the question, below what container engines wait for an
// answer (30 s).
const readyTimeout = 5 * time.Second

func readyCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "ready",
		Short: "Say whether the process that a configuration file is for takes requests",
		Long: `Ready asks admin.listen of the configuration file for /readyz. The exit status is 0
when the process takes requests, and 1 when it does not, or not yet, or no more. It
serves as the health check of containers: their image has no other program to ask with.`,
		Args: cobra.NoArgs,
		RunE: runs(func(cmd *cobra.Command, _ []string) error {
			cfg, _, err := servedConfig(file)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), readyTimeout)
			defer cancel()
			said, err := askReady(ctx, string(cfg.Admin.Listen))
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), said)
			return err
		}),
	}
	cmd.Flags().StringVar(&file, "config", "", "configuration file of the process, default $ENTREPOT_CONFIG; without either, standalone")
	return cmd
}

// askReady asks the process with that admin listener, and is an error unless it takes
// requests.
func askReady(ctx context.Context, admin string) (said string, err error) {
	base, err := adminURL(admin)
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/readyz", http.NoBody)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", fmt.Errorf("asking admin.listen: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err != nil {
		return "", fmt.Errorf("asking admin.listen: %w", err)
	}
	said = strings.TrimSpace(string(text))
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s says %s: %s", req.URL, resp.Status, said)
	}
	return said, nil
}

// adminURL is where this machine reaches a process that listens for operators at
// admin, host:port.
func adminURL(admin string) (string, error) {
	host, port, err := net.SplitHostPort(admin)
	if err != nil {
		return "", err
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port), nil
}
