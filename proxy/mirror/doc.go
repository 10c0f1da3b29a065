// Package mirror makes a node hold what its ledgers have, or a selection of it,
// before anybody asks: all of it is in the node's store, and never evicted.
//
// A [Mirror] compares what is selected with what is held, and brings what is
// missing by way of the node, which verifies, resumes and turns to other sources
// as it does for clients. With an image come the manifests and blobs below it, what
// refers to it, and what cosign keeps about it at tags. What is selected no longer
// is removed. It does so slowly where a bandwidth says so, and at the times of the
// day that are given.
//
// It promises that a name counts as held only when everything it leads to is in the
// store, and that [Mirror.Verify] reads every byte of it and trusts nothing but the
// ledger. It serves nothing: the node does, and what is not held it fetches for its
// clients as any node.
package mirror
