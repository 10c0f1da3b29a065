// Package peers has the nodes of one region find each other, agree on who brings
// which content from upstream, and take it from each other while it arrives.
//
// It promises:
//
//   - No other service is needed: nodes are in a list, or are the addresses of a
//     DNS name, and are known by what they answer. Every node can have the same
//     configuration; one that reaches itself finds its own id.
//   - All nodes that see the same nodes agree on one for each key (rendezvous
//     hashing). A node that comes or goes moves its own keys only.
//   - A node that is down, or silent, costs who asks it one deadline, and is then
//     left alone until it answers again. One that waits for upstream itself is
//     waited for: it says how far it is.
//   - A request between nodes is signed with a secret that they share. Nobody else
//     is taken for a node, whatever headers are sent.
//   - No node waits for itself: see [Group.Order], and package loop.
//
// What it does not do: trust what a peer sends. The caller verifies it, as it does
// with what upstream sends.
package peers
