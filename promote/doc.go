// Package promote makes the names in production follow the reviewed
// configuration: it plans what has to change, a person reads the plan, and it
// applies it.
//
// [Planner.Plan] compares the configuration (package config) with what the
// ledger (package ledger) says promotion wrote, and asks source and destination
// only about what differs: the work of a plan grows with the change and not
// with the tree. [Applier.Apply] copies content by digest (package transfer),
// sets a name only when all its content is there, and writes each change to the
// ledger. What one item cannot have, a lost source say, never keeps another
// from its place: the item is named and the rest goes on.
//
// There is no state beside registries and ledger. An apply that was killed
// anywhere is finished by another one: content that is there is not sent again,
// names that are set are recorded, and nothing is half visible, because names
// come last.
package promote
