// Package charttest holds the Helm chart and the compose file to what they
// promise: each of the chart's examples is rendered and checked against the
// schemas of Kubernetes and of what extends it, against policies, and by
// entrepot config check.
//
// It is a module of its own, so that the types of Kubernetes are no dependency
// of entrepot.
package charttest
