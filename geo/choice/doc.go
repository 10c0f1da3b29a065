// Package choice says which mirrors are fit for a request and which of them is
// to serve it.
//
// A [List] is the mirrors that an operator configured, checked and prepared. Its
// answers are pure functions of a [Query], which has the request and where its
// client is, and of the [State] of each mirror: no clock, no randomness, no
// network. The same question always has the same answer, in every router.
//
// It promises that no unfit mirror is ever chosen, that content stays where it
// is when mirrors come and go, but for that of those mirrors, and that a choice
// allocates nothing.
//
// mirror.go has what a mirror is and how its URLs are made, list.go how a list is
// checked, fit.go who may serve what, cost.go how far a mirror is, rank.go the
// order in which a place prefers mirrors, and choose.go the order of those that are
// fit.
package choice
