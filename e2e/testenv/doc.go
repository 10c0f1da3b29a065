// Package testenv gives tests the real world to work against: servers and
// clients that exist, at pinned versions, each in processes of their own that
// end with the test; content to pull; and entrepot itself as a process.
//
// What is started takes a testing.TB and fails that test when it cannot be
// had. A program that cannot be installed here skips the test, but fails it
// when CI is true: see [Missing].
package testenv
