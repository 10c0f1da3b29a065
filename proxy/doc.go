// Package proxy is the pull-through engine of a node: it answers the requests
// of package registry, for images and for files by name, from a blob store, and
// fills the store from upstreams.
//
// It promises:
//
//   - No client is handed a complete, wrong blob: the last bytes of a body are
//     held back until the whole of it was found to have its digest.
//   - One fill a digest, however many ask. Every request reads the fill's spool
//     file at its own speed, from any offset, while it grows.
//   - A fill that breaks goes on at the byte where it broke, at the same or the
//     next source; content by digest is the same everywhere.
//   - A file whose digest nobody told is one version of it and never a mix of two:
//     a fill goes on only where a strong validator says that it is the same.
//   - Names that upstream may change (tags, lists) are answered from the record
//     of the last check while they are fresh, and when upstream cannot be asked.
//   - A store that fails costs caching, not answers.
//
// What it does not do: parse HTTP requests (package registry), keep content
// (package blobstore), or talk HTTP to upstreams (package proxy/upstream).
//
// [Node] is the engine. The files follow the life of a request: route.go says
// which upstream is meant; manifest.go and lists.go answer names through
// names.go, which decides when upstream is asked; blob.go answers blobs through
// fill.go, whose bytes come from source.go and are kept by store.go. Files take the
// same way: files.go answers by what filenames.go knows of a name; goal.go says
// what a fill is to bring, which for a file is in filegoal.go and filesource.go.
package proxy
