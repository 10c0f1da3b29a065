// Package warm brings images and files into nodes before anybody asks for them:
// what a list names ([ReadList]), or what patterns select at times ([Prefetcher]).
//
// [Run] walks from each name to everything below it, in parallel, tries again what
// may come another time, and says what became of each name. Where it pulls from is
// a [Source]: a node or router by HTTP, or the node of this process. It promises
// that a name counts as warm only when every byte of it was there or came with its
// digest. It holds nothing: what a node has no room for leaves as everything does;
// package mirror holds.
package warm
