package ledger

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"testing"

	"go.uber.org/goleak"
)

// appenderEnv makes the test binary append to a log instead of testing: several
// processes are several of it. It holds the directory; the key file and what
// to append are arguments.
const appenderEnv = "ENTREPOT_TEST_APPENDER"

func TestMain(m *testing.M) {
	dir := os.Getenv(appenderEnv)
	if dir == "" {
		goleak.VerifyTestMain(m)
	}
	if err := appendMany(dir, os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// appendMany appends entries one by one: names with a prefix, and a number.
func appendMany(dir, keyFile, prefix, count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	key, err := LoadKey(keyFile)
	if err != nil {
		return err
	}
	l, err := New(context.Background(), NewDir(dir), Config{Key: key})
	if err != nil {
		return err
	}
	for i := range n {
		entry := setEntry("coredns", fmt.Sprintf("%s:0-%d", prefix, i))
		if _, err := l.Append(context.Background(), func(*State) ([]Entry, error) { return []Entry{entry}, nil }); err != nil {
			return err
		}
	}
	return nil
}
