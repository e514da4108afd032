// Package cloud holds no code: what trains on a rented GPU is run-once and the files beside it, and the tests hold them
// to what docs/cloud.md promises.
package cloud
