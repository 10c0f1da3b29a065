// Package clientconf points the clients of a machine at a node or router:
// containerd, docker, podman and CRI-O by their own configuration files, kubeadm
// and curl by what a person is to write.
//
// A [Machine] is the machine, or a folder that is to become one. [Machine.Plan]
// says what files would be, [Machine.Write] makes them so, and [Machine.Undo]
// puts back what was there, byte for byte. What others wrote into the same files
// stays: our part is between two comments, or is some values of a list that are
// remembered. A file that cannot be merged is refused, and then nothing is
// written at all.
//
// The names of upstreams come from the server ([Describe]) and end up in paths
// and configuration: they are checked where they come in, and nothing else of
// what a server says is used.
package clientconf
