// Package transfer copies what promotion publishes: images between OCI
// registries, and files between stores of files.
//
// A [Client] serves one run. It knows every registry and store that the run
// talks to, and shares what has to be shared: how many requests a host is asked
// at once, the pause that a 429 asks for, tokens, and which blobs are known to
// be where.
//
// It promises: an image is named at its destination only after everything below
// it is there; manifests are copied byte for byte; every byte that is read is
// verified by its digest while it is passed on; every network step has a
// deadline and every failure that may pass is tried again, a bounded number of
// times; credentials reach only the host they were configured for, and appear
// in no error; URLs in descriptors are never followed. Whatever it does can be
// interrupted at any point and done again.
//
// It decides nothing: what to copy, move or delete is the caller's to say.
package transfer
